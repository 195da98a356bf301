"""What models write: captions and rewrites against plain greedy loops, the log that keeps them, the served LLM."""

import http.server
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tiny_captioners import save_captioner
from tiny_models import save_llm

from sur.config.curation import ASKED, CaptionConfig, RewriteConfig
from sur.config.features import VLLMConfig
from sur.data.curation.writers.captions import Captioner
from sur.data.curation.writers.rewriting import Rewriter, strip_chatter
from sur.data.curation.writers.text_log import TextLog, Written, count_texts, digest
from sur.support.errors import ConfigError, EngineGone, EngineRefused

PICTURES = [Image.fromarray(each) for each in np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), np.uint8)]
NAMES = ["a", "b", "c", "d"]
PROMPTS = ["two red circles above a blue square", "a cat", "3 green triangles, soft light, highly detailed"]
KINDS = ("blip", "git", "llava")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny model of each kind."""
    folder = tmp_path_factory.mktemp("writers")
    for kind in KINDS:
        save_captioner(folder / kind, kind, seed=1)
    save_llm(folder / "llm")
    return folder


def greedy(step, ids: list[int], ends: set[int], most: int) -> tuple[list[int], bool]:
    """The most likely token each time, until one ends the text."""
    made: list[int] = []
    while len(made) < most:
        token = int(step(ids + made).argmax())
        if token in ends:
            return made, True
        made.append(token)
    return made, False


def captions(models, kind, pictures=PICTURES, names=NAMES, **changes) -> list[Written]:
    settings = {"model": str(models / kind), "max_new_tokens": 8, "device": "cpu", **changes}
    captioner = Captioner(CaptionConfig(**settings))
    try:
        return captioner.write(pictures, names)
    finally:
        captioner.close()


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_caption_is_the_most_likely_word_each_time(models, kind):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any = AutoModelForImageTextToText.from_pretrained(models / kind).eval()
    processor = AutoProcessor.from_pretrained(models / kind, backend="pil")
    for picture, found in zip(PICTURES, captions(models, kind), strict=True):
        pixels = processor(images=[picture], return_tensors="pt")["pixel_values"]
        seen = model.vision_model(pixels)[0] if kind == "blip" else None

        def step(ids, seen=seen, pixels=pixels):
            with torch.no_grad():
                given = torch.tensor([ids])
                if kind == "blip":
                    return model.text_decoder(input_ids=given, encoder_hidden_states=seen).logits[0, -1]
                return model(input_ids=given, pixel_values=pixels).logits[0, -1]

        made, ended = greedy(step, [5 if kind == "blip" else 2], {3}, 8)
        assert found == Written(processor.tokenizer.decode(made, skip_special_tokens=True), len(made), ended)


def test_a_chat_model_is_asked_about_the_picture(models):
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(models / "llava").eval()
    processor = AutoProcessor.from_pretrained(models / "llava", backend="pil")
    for picture, found in zip(PICTURES, captions(models, "llava"), strict=True):
        given = processor(images=[picture], text=[f"user: <image>{ASKED}\nassistant:"], return_tensors="pt")

        def step(ids, given=given):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), pixel_values=given["pixel_values"]).logits
                return logits[0, -1]

        made, ended = greedy(step, given["input_ids"][0].tolist(), {1}, 8)
        assert found == Written(processor.tokenizer.decode(made, skip_special_tokens=True).strip(), len(made), ended)
    assert captions(models, "llava", instruction="What?") != captions(models, "llava")


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_get_captions_of_their_own_alone_or_together(models, kind):
    together = captions(models, kind)
    assert len({found.text for found in together}) > 1
    assert together == [captions(models, kind, [p], [n])[0] for p, n in zip(PICTURES, NAMES, strict=True)]


def test_a_caption_begins_behind_the_words_that_blip_is_given(models):
    found = captions(models, "blip", instruction="A picture of the")
    assert not any(each.text.lower().startswith("a picture of the") for each in found)
    assert found != captions(models, "blip")


def test_sampled_captions_repeat_with_their_seed_which_is_kept(models):
    first, again, other = (captions(models, "git", temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [each.text for each in first] != [each.text for each in other]
    assert {each.seed for each in first} == {first[0].seed} and first[0].seed != other[0].seed
    assert {each.seed for each in captions(models, "git")} == {None}


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [("llm", {}, "could not be loaded"), ("git", {"instruction": "A"}, "GIT models take none")],
)
def test_what_is_no_caption_model_is_refused(models, model, changes, said):
    with pytest.raises(ConfigError, match=said):
        captions(models, model, **changes)


def test_a_caption_s_identity_names_all_that_it_depends_on(models):
    base = CaptionConfig(model=str(models / "blip"))
    before = digest(Captioner(base).identity())
    for change in ({"instruction": "A"}, {"max_new_tokens": 7}, {"temperature": 1.0}, {"compute_dtype": "bfloat16"}):
        assert digest(Captioner(base.model_copy(update=change)).identity()) != before
    assert digest(Captioner(base.model_copy(update={"batch_size": 2, "device": "cpu"})).identity()) == before


def rewriter(models, **changes) -> Rewriter:
    settings = {"model": str(models / "llm"), "max_new_tokens": 12, "device": "cpu", "to_simple": "Say {prompt} so"}
    return Rewriter(RewriteConfig(**{**settings, **changes}))


def rewrites(made: Rewriter, prompts=PROMPTS) -> list[Written]:
    return made.write(made.tokens(prompts, "simple"), prompts)


def test_a_rewrite_is_the_most_likely_continuation_of_the_chat(models):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = rewriter(models)
    tokenizer = AutoTokenizer.from_pretrained(models / "llm")
    model = AutoModelForCausalLM.from_pretrained(models / "llm").eval()
    found = rewrites(made)
    for prompt, each in zip(PROMPTS, found, strict=True):
        ids = tokenizer(f"<s>user: Say {prompt} so\nassistant:", add_special_tokens=False)["input_ids"]

        def step(ids):
            with torch.no_grad():
                return model(torch.tensor([ids])).logits[0, -1]

        expected, ended = greedy(step, ids, {1}, 12)
        assert each == Written(tokenizer.decode(expected, skip_special_tokens=True).strip(), len(expected), ended)
    assert len({each.text for each in found}) == len(PROMPTS)


def test_padding_changes_no_rewrite(models):
    made = rewriter(models)
    assert rewrites(made) == [rewrites(made, [prompt])[0] for prompt in PROMPTS]


def test_batches_of_what_is_left_are_those_that_were_left(models):
    made = rewriter(models, tokens_per_batch=60)
    lengths = [30, 5, 17, 8, 21, 9, 40]
    batches = made.batches(lengths)
    assert sorted(sum(batches, [])) == list(range(len(lengths))) and len(batches) > 2
    left = [i for i in range(len(lengths)) if i not in batches[0] + batches[1]]
    again = made.batches([lengths[i] for i in left])
    assert [[left[i] for i in batch] for batch in again] == batches[2:]


def test_a_rewrite_s_identity_names_all_that_it_depends_on(models):
    before = digest(rewriter(models).identity("simple"))
    assert digest(rewriter(models).identity("complex")) != before
    for change in ({"to_simple": "{prompt}!"}, {"template": None}, {"seed": 3}, {"repetition_penalty": 1.2}):
        assert digest(rewriter(models, **change).identity("simple")) != before
    assert digest(rewriter(models, to_complex="{prompt}!", tokens_per_batch=9).identity("simple")) == before


@pytest.mark.parametrize("change", [{"to_simple": "no place"}, {"backend": "vllm"}, {"template": "{prompt}{prompt}"}])
def test_a_rewriter_that_cannot_work_is_refused(models, change):
    with pytest.raises(ValidationError):
        rewriter(models, **change)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A fox in snow.", "A fox in snow."),
        ('"A fox in snow."', "A fox in snow."),
        ("Sure! Here is the rewritten sentence:\n\nA fox in snow.", "A fox in snow."),
        ("Sentence: A fox\nin snow.\n\nKeywords: more", "A fox in snow."),
        ("**A fox in snow.**", "**A fox in snow.**"),
        ('"A fox" and "a wolf"', '"A fox" and "a wolf"'),
        ("Here:", "Here:"),
        ("Here is a clock showing 10:30 on a white wall.",) * 2,
        ("Here is a clock: it shows 10:30.",) * 2,
        ("Here is a man in a red coat who says: stop",) * 2,
        ("Here are two foxes on one side: a red one and a grey one.",) * 2,
        ("Sentence written on a wall: stop.",) * 2,
        ("Answer 10:30 on a clock.",) * 2,
        ("Sure, it is 10:30 on the clock.",) * 2,
        ("OK sign on a door: come in.",) * 2,
        ("Answer:30 foxes",) * 2,
        ("Keywords:a fox", "a fox"),
        ("Here is a plain English sentence that describes the picture: A fox.", "A fox."),
        ("Here's the rewritten prompt:\nA fox.", "A fox."),
        ("Here is a short narrative: A clock shows 10:30.", "A clock shows 10:30."),
        ("Here are the keywords: fox, snow", "fox, snow"),
        ("Here is a list of keywords: fox, snow", "fox, snow"),
        ("Sure, as you like: A fox.", "A fox."),
        ("Sure!\n\nHere is the sentence: A fox.", "A fox."),
        ("Certainly! Rewritten prompt: A fox.", "A fox."),
        ('Rewritten sentence (short):"A fox."', "A fox."),
        ("Output: A fox.", "A fox."),
        ("", ""),
    ],
)
def test_what_a_model_says_around_its_text_is_taken_off(raw, text):
    assert strip_chatter(raw) == (text, "\n\nKeywords" in raw)


class Completions(http.server.BaseHTTPRequestHandler):
    """The part of vLLM's server that is asked, over the same tiny model run by transformers."""

    made: Rewriter
    fail = 0
    asked: list[dict]

    def do_GET(self):
        answers = {"/version": {"version": "0.32.0+cpu"}, "/v1/models": {"data": [{"id": "tiny"}]}}
        self.answer(200, answers[self.path])

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).fail:
            type(self).fail -= 1
            return self.answer(503, {})
        if self.headers["Authorization"] == "Bearer wrong":
            return self.answer(401, {})
        self.asked.append(body)
        (found,) = self.made.write([body["prompt"]], ["x"])
        choice = {"text": " " + found.text, "finish_reason": "stop" if found.finished else "length"}
        self.answer(200, {"choices": [choice], "usage": {"completion_tokens": found.tokens + found.finished}})

    def answer(self, status, content):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@pytest.fixture
def served(models):
    """Address of a server that completes prompts."""
    Completions.made, Completions.asked, Completions.fail = rewriter(models), [], 0
    with http.server.HTTPServer(("127.0.0.1", 0), Completions) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def asking(models, address, **vllm) -> Rewriter:
    return rewriter(models, backend="vllm", vllm=VLLMConfig(endpoint=address, **vllm))


def test_a_served_llm_is_told_the_same_tokens_and_gives_the_same_texts(models, served):
    made = asking(models, served, concurrency=2)
    assert rewrites(made) == rewrites(rewriter(models))
    assert sorted(body["prompt"] for body in Completions.asked) == sorted(made.tokens(PROMPTS, "simple"))
    first = Completions.asked[0]
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("tiny", 12, 0.0)
    assert "seed" not in first
    assert made.identity("simple")["engine"] == "vllm 0.32"
    assert made.identity("simple")["served"] == "tiny"


def test_every_sampled_prompt_of_a_served_llm_has_its_own_seed(models, served):
    made = rewriter(models, backend="vllm", vllm=VLLMConfig(endpoint=served), temperature=1.0)
    seeds = [each.seed for each in rewrites(made)]
    assert len(set(seeds)) == 3
    assert seeds == [each.seed for each in rewrites(made)]
    assert {body["seed"] for body in Completions.asked} == set(seeds)


def test_a_server_that_fails_for_a_moment_is_asked_again(models, served):
    Completions.fail = 2
    assert rewrites(asking(models, served)) == rewrites(rewriter(models))


def test_a_server_that_is_gone_or_wants_a_key_is_named(models, served, monkeypatch):
    with pytest.raises(EngineGone, match="rewriting.vllm.endpoint"):
        asking(models, "http://127.0.0.1:9").identity("simple")
    Completions.fail = 10**6
    with pytest.raises(EngineGone, match="status 503"):
        rewrites(asking(models, served, patience_seconds=0.1))
    Completions.fail = 0
    monkeypatch.setenv("VLLM_API_KEY", "wrong")
    with pytest.raises(EngineRefused, match="VLLM_API_KEY"):
        rewrites(asking(models, served))


MADE = {"task": "caption", "model": "m"}


def test_a_log_gives_back_what_was_written_by_model_and_input(tmp_path):
    with TextLog(tmp_path) as log:
        log.append(MADE, {"a": Written("a cat\n…", 3, True), "b": Written("", 0, False, 7)})
    with TextLog(tmp_path) as log:
        assert log.get(MADE, "a") == Written("a cat\n…", 3, True)
        assert log.get(MADE, "b") == Written("", 0, False, 7)
        assert log.get(MADE, "c") is None
        assert log.get({**MADE, "model": "n"}, "a") is None
        assert len(log) == 2
    assert count_texts(tmp_path) == 2


def test_a_line_that_a_kill_cut_anywhere_is_taken_off_whole(tmp_path):
    with TextLog(tmp_path) as log:
        log.append(MADE, {"a": Written("a cat", 3, True)})
        first = log.path.stat().st_size
        log.append(MADE, {"b": Written("two cats", 3, True), "c": Written("x", 1, True)})
        whole = log.path.read_bytes()
    for cut in range(first, len(whole)):
        log.path.write_bytes(whole[:cut])
        with TextLog(tmp_path) as again:
            assert len(again) == 1 and again.get(MADE, "b") is None
            again.append(MADE, {"b": Written("two cats", 3, True), "c": Written("x", 1, True)})
        assert log.path.read_bytes() == whole


def test_a_damaged_line_is_named_and_a_second_build_waits_its_turn(tmp_path):
    with TextLog(tmp_path) as log:
        log.append(MADE, {"a": Written("a cat", 3, True)})
        with pytest.raises(ConfigError, match="another `sur build` is at work"):
            TextLog(tmp_path)
    log.path.write_bytes(b"{broken}\n" + log.path.read_bytes())
    with pytest.raises(ConfigError, match="line 1 is damaged"):
        TextLog(tmp_path)
