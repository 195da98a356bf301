"""CLIP, VQA and pyiqa scores against computations of their own, and a whole evaluation of a pipeline by all of them."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import ANSWERS, save_clip, save_pipeline, save_vqa
from typer.testing import CliRunner

from sur.adapter.adapter import Adapter
from sur.cli.app import app
from sur.config.adapter import AdapterConfig
from sur.config.evaluation import ClipConfig, EvaluateConfig, VQAConfig
from sur.evaluation.judges.clip import ClipScorer
from sur.evaluation.judges.iqa import IQAScorer
from sur.evaluation.judges.scorer import judges_identity
from sur.evaluation.judges.vqa import VQAScorer, plain
from sur.evaluation.prompts.prompts import PictureQuestion, Prompt
from sur.evaluation.results import Evaluation, read_singles
from sur.support.errors import ConfigError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
QUESTIONS = ["is the cat red ?", "how many dogs are there in the picture ?", "what color is the cup", "are there dogs"]
PICTURES = [Image.fromarray(each) for each in np.random.default_rng(0).integers(0, 255, (4, 48, 48, 3), np.uint8)]
PROMPTS = [Prompt("0", "a cat"), Prompt("1", "the red cat in the picture"), Prompt("2", "x"), Prompt("3", "y " * 200)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny random model of each kind."""
    folder = tmp_path_factory.mktemp("judges")
    save_clip(folder / "clip", seed=2)
    save_vqa(folder / "blip", "blip")
    save_vqa(folder / "vilt", "vilt", seed=2)
    return folder


def pixels(picture: Image.Image, mean, std) -> torch.Tensor:
    """A square picture as the vision models want it: bicubic to 32 pixels, normalised."""
    small = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    return torch.from_numpy((small - mean) / std).permute(2, 0, 1)[None].float()


def bert_ids(folder, question: str) -> torch.Tensor:
    words = (folder / "vocab.txt").read_text().splitlines()
    return torch.tensor([[words.index(w) for w in ["[CLS]", *question.split(), "[SEP]"]]])


def test_clip_scores_are_scaled_cosines_cut_at_zero(models):
    from transformers import AutoTokenizer, CLIPModel

    found = ClipScorer(ClipConfig(model=str(models / "clip"))).score(PICTURES, PROMPTS)
    model, tokenizer = CLIPModel.from_pretrained(models / "clip"), AutoTokenizer.from_pretrained(models / "clip")
    expected = []
    for picture, prompt in zip(PICTURES, PROMPTS, strict=True):
        ids = tokenizer(prompt.narrative)["input_ids"]
        ids = torch.tensor([ids[:76] + [tokenizer.eos_token_id] if len(ids) > 77 else ids])
        with torch.no_grad():
            out = model(input_ids=ids, pixel_values=pixels(picture, CLIP_MEAN, CLIP_STD))
            expected.append(2.5 * max(float(out.logits_per_image / model.logit_scale.exp()), 0.0))
    assert found == pytest.approx(expected, abs=1e-5)
    assert 0.0 in found and max(found) > 0.1


def test_a_clip_score_does_not_depend_on_its_neighbours(models):
    scorer = ClipScorer(ClipConfig(model=str(models / "clip")))
    together = scorer.score(PICTURES, PROMPTS)
    alone = [scorer.score([picture], [prompt])[0] for picture, prompt in zip(PICTURES, PROMPTS, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_vilt_model_picks_its_most_likely_answer(models):
    from transformers import ViltForQuestionAnswering

    found = VQAScorer(VQAConfig(model=str(models / "vilt"))).answer(PICTURES, QUESTIONS)
    model = ViltForQuestionAnswering.from_pretrained(models / "vilt").eval()
    expected = []
    for picture, question in zip(PICTURES, QUESTIONS, strict=True):
        with torch.no_grad():
            logits = model(bert_ids(models / "vilt", question), pixel_values=pixels(picture, 0.5, 0.5)).logits
        expected.append(ANSWERS[int(logits[0].argmax())])
    assert found == expected and len(set(found)) > 1


def test_a_blip_model_writes_its_most_likely_answer_word_by_word(models):
    from transformers import BlipForQuestionAnswering

    scorer = VQAScorer(VQAConfig(model=str(models / "blip"), max_answer_tokens=4))
    found = scorer.answer(PICTURES, QUESTIONS)
    model = BlipForQuestionAnswering.from_pretrained(models / "blip").eval()
    words = (models / "blip" / "vocab.txt").read_text().splitlines()
    expected = []
    with torch.no_grad():
        for picture, question in zip(PICTURES, QUESTIONS, strict=True):
            seen = model.vision_model(pixel_values=pixels(picture, CLIP_MEAN, CLIP_STD))[0]
            read = model.text_encoder(input_ids=bert_ids(models / "blip", question), encoder_hidden_states=seen)[0]
            written = [words.index("[DEC]")]
            for _ in range(4):
                logits = model.text_decoder(input_ids=torch.tensor([written]), encoder_hidden_states=read).logits
                written.append(int(logits[0, -1].argmax()))
                if words[written[-1]] == "[SEP]":
                    break
            kept = [words[i] for i in written[1:] if words[i] not in ("[SEP]", "[PAD]", "[CLS]", "[UNK]", "[MASK]")]
            expected.append(" ".join(kept))
    assert found == expected and len(set(found)) > 1
    assert found == [scorer.answer([p], [q])[0] for p, q in zip(PICTURES, QUESTIONS, strict=True)]


def test_the_vqa_score_is_the_share_of_right_answers_and_none_without_questions(models):
    scorer = VQAScorer(VQAConfig(model=str(models / "vilt")))
    answers = scorer.answer([PICTURES[0]] * 2 + [PICTURES[2]], [QUESTIONS[0], QUESTIONS[1], QUESTIONS[2]])
    right, wrong = (
        PictureQuestion(QUESTIONS[0], ("nothing", answers[0].upper() + ".")),
        PictureQuestion(QUESTIONS[1], ("nothing",)),
    )
    both = Prompt("0", "", questions=(right, wrong))
    one = Prompt("2", "", questions=(PictureQuestion(QUESTIONS[2], (answers[2],)),))
    assert scorer.score(PICTURES[:3], [both, PROMPTS[1], one]) == [0.5, None, 1.0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Dog.", "dog"),
        ("two", "2"),
        ("a pair", "pair"),
        ("none", "0"),
        ("light grey!", "light gray"),
        (" yes ", "yes"),
    ],
)
def test_answers_are_compared_without_case_articles_and_number_words(answer, expected):
    assert plain(answer) == expected


def test_a_model_of_another_kind_or_without_weights_is_refused(models, tmp_path):
    with pytest.raises(ConfigError, match="evaluate.vqa.model .* is a clip model; give one of type blip or vilt"):
        VQAScorer(VQAConfig(model=str(models / "clip")))
    with pytest.raises(ConfigError, match="evaluate.clip.model 'nobody/nothing' could not be loaded"):
        ClipScorer(ClipConfig(model="nobody/nothing"))
    save_clip(tmp_path / "clip")
    weights = load_file(tmp_path / "clip" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="lacks weights of CLIPModel: .*visual_projection"):
        ClipScorer(ClipConfig(model=str(tmp_path / "clip")))


def test_another_judge_makes_another_evaluation(models, tmp_path):
    settings = EvaluateConfig(clip=ClipConfig(model=str(models / "clip")), vqa=VQAConfig(model=str(models / "vilt")))
    other = settings.model_copy(update={"vqa": VQAConfig(model=str(models / "blip"))})
    assert judges_identity(settings)["clip"] == judges_identity(other)["clip"]
    assert judges_identity(settings)["vqa"] != judges_identity(other)["vqa"]


class _Brightness(torch.nn.Module):
    """A stand-in for a metric of pyiqa: weighs the channels, and has no value for a black picture."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lower_better, self.metric_mode = name == "brisque", "FR" if name == "lpips" else "NR"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32 and x.shape[:2] == (1, 3) and x.min() >= 0 and x.max() <= 1
        score = (x.mean((2, 3)) * torch.tensor([1.0, 10.0, 100.0])).sum(1, keepdim=True)
        return torch.where(score == 0, torch.nan, score)


def _create_metric(name: str, device: str = "cpu") -> torch.nn.Module:
    if name not in ("brisque", "musiq", "lpips"):
        raise KeyError(name)
    return _Brightness(name).to(device)


@pytest.fixture
def pyiqa(monkeypatch):
    """The package is not in the tests' environment (it wants torchvision): its two calls, under its name."""
    module = types.ModuleType("pyiqa")
    module.create_metric = _create_metric  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "pyiqa", module)


def test_a_quality_metric_is_given_each_picture_in_its_own_direction(pyiqa):
    scorer = IQAScorer("musiq")
    pictures = [Image.new("RGB", (9, 7), (255, 51, 0)), Image.new("RGB", (4, 4)), Image.new("L", (4, 4), 255)]
    assert scorer.score(pictures, PROMPTS[:3]) == [pytest.approx(3.0), None, pytest.approx(111.0)]
    assert scorer.higher_is_better and not IQAScorer("brisque").higher_is_better


def test_a_quality_metric_that_cannot_be_had_says_what_to_do(pyiqa, monkeypatch):
    with pytest.raises(ConfigError, match="pyiqa made no metric 'brisk'.*correct evaluate.iqa"):
        IQAScorer("brisk")
    with pytest.raises(ConfigError, match="'lpips' compares with a reference picture"):
        IQAScorer("lpips")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(
        ConfigError,
        match=r"\(import of pyiqa halted; None in sys.modules\): pip install pyiqa, which brings torchvision",
    ):
        IQAScorer("brisque")


def test_any_pipeline_and_adapter_are_judged_from_the_command_line(models, tmp_path, pyiqa, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_pipeline(tmp_path / "pipe")
    adapter = Adapter(AdapterConfig(dim=32))
    torch.nn.init.normal_(adapter.output.weight, std=0.5)
    adapter.save_pretrained(tmp_path / "adapter")
    lines = [
        {"id": f"p{i}", "category": "counting", "narrative": f"there are {i} cats",
         "complex": f"{i} cats, 8k" if i else None,
         "questions": [{"question": "how many dogs are there", "answers": i}]}
        for i in range(5)
    ]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [
        "evaluate", "--pipeline", "pipe", "--adapter", "adapter", "--prompts", "own.jsonl", "--out", "out",
        "evaluate.steps=2", "evaluate.seeds_per_prompt=2", "evaluate.iqa=[brisque]", "evaluate.resamples=100",
        f"evaluate.clip.model={models / 'clip'}", f"evaluate.vqa.model={models / 'vilt'}",
    ]  # fmt: skip
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert (
        "report: out/report.html" in shown.output
        and "own, clip, all: no gap to close; adapter - narrative" in shown.output
    )
    made = Evaluation.model_validate_json((tmp_path / "out" / "evaluation.json").read_text())
    assert [each.name for each in made.scorers] == ["clip", "vqa", "brisque"]
    assert [each.higher_is_better for each in made.scorers] == [True, True, False]
    rows = {(row.scorer, row.condition): row for row in made.rows if row.group == "all"}
    assert {(row.prompts, row.pictures) for (_, c), row in rows.items() if c != "complex"} == {(5, 10)}
    assert {(row.prompts, row.pictures) for (_, c), row in rows.items() if c == "complex"} == {(4, 8)}
    singles = read_singles(tmp_path / "out")
    for (scorer, condition), row in rows.items():
        found = [np.mean(each.scores[scorer][condition]) for each in singles if condition in each.pictures]
        assert row.score.value == pytest.approx(np.mean(found))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figure") == 14 and "What the cache holds" not in page and "✓</span> narrative" not in page
    again = CliRunner().invoke(app, command)
    assert "nothing has changed" in again.output and again.exit_code == 0
