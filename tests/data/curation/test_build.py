"""Whole builds on tiny models: pictures and prompts to rows that are planned and extracted, killed on the way."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, PngImagePlugin
from tiny_captioners import save_captioner
from tiny_models import save_llm
from tiny_run import save_config_file, save_models
from typer.testing import CliRunner

from sur.cache import Store
from sur.cli.app import app
from sur.config.curation import BuildConfig, load_build_config
from sur.config.run import load_config
from sur.data import open_rows, scan
from sur.data.curation import build_rows, rows_folder
from sur.data.curation.collect import collect
from sur.data.curation.draft import BuildDraft
from sur.data.curation.generate import caption
from sur.data.curation.rows_folder import write_rows
from sur.features.extraction import extract
from sur.features.prepare import plan_extraction
from sur.flows.runtime.launch import prefect_ready, stopped
from sur.support.errors import ConfigError
from sur.support.signals import Stopped

LENIENT = {"min_simple_words": 1, "keep_unfinished": True, "max_repeated_share": 1, "min_kept_share": 0}
LENIENT |= {"min_grounded_share": 0}
A1111 = "a (red:1.2) fox {0}, <lora:film:0.6>, snow\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7"
COMFYUI = {
    "3": {"class_type": "KSampler", "inputs": {"steps": 9, "positive": ["6", 0], "latent_image": ["5", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a [grey] (wolf:0.9), moonlight"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny caption model, a tiny LLM, and what an extraction needs."""
    folder = tmp_path_factory.mktemp("build-models")
    save_captioner(folder / "blip", "blip", seed=1)
    save_models(folder)
    save_llm(folder / "writer", seed=3)
    return folder


def draw(path: Path, seed: int, size=(80, 72), **texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG", pnginfo=info)


def save_pictures(folder: Path, count: int = 3) -> Path:
    """`count` pictures of A1111's, one of ComfyUI's, one without metadata, and six that are left out."""
    for i in range(count):
        draw(folder / f"fox{i}.png", i, parameters=A1111.format(i))
    draw(folder / "deep" / "er" / "wolf.png", 50, prompt=json.dumps(COMFYUI))
    draw(folder / "plain.png", 51)
    shutil.copy(folder / "fox0.png", folder / "same.png")
    draw(folder / "tiny.png", 52, (40, 40), parameters=A1111)
    Image.new("RGB", (80, 80), "grey").save(folder / "blank.png")
    (folder / "broken.png").write_bytes((folder / "fox0.png").read_bytes()[:-900])
    (folder / "not.jpg").write_text("no picture")
    (folder.parent / "outside.png").write_bytes((folder / "fox0.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    return folder


def save_build(path: Path, **sections) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(sections, default=str))))
    return path


def picture_build(folder: Path, models: Path, pictures: Path, **changes) -> Path:
    captions = {"model": models / "blip", "max_new_tokens": 6, "batch_size": 2, "device": "cpu"}
    sections = {"source": {"pictures": pictures}, "captions": captions, "filters": LENIENT, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    return save_build(folder / "build.yaml", run_dir=folder / "run", **sections)


def prompt_build(folder: Path, models: Path, prompts: Path, **changes) -> Path:
    rewriting = {"model": models / "writer", "max_new_tokens": 12, "device": "cpu", "tokens_per_batch": 400}
    rewriting |= {"to_simple": "Say {prompt} so", "to_complex": "Tag {prompt} so", **changes.pop("rewriting", {})}
    sections = {"source": {"prompts": prompts}, "rewriting": rewriting, "filters": LENIENT, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    return save_build(folder / "build.yaml", run_dir=folder / "run", **sections)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(run: Path) -> dict[str, bytes]:
    """Every file of a build but Prefect's."""
    paths = (p for p in sorted(run.rglob("*")) if p.is_file() and "prefect" not in p.parts)
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in paths}


def extracted_rows(config) -> int:
    """Rows of the store after an extraction that left nothing to do."""
    extract(config)
    store = Store.open(config.store.path)
    assert store.features() and not any(store.pending(name) for name in store.features())
    return store.n_rows


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("pictures") / "in")


@pytest.fixture(scope="module")
def built(tmp_path_factory, models, pictures) -> BuildConfig:
    """A finished build of the pictures; read-only."""
    config = load_build_config(picture_build(tmp_path_factory.mktemp("built"), models, pictures))
    build_rows(config)
    return config


def test_pictures_become_rows_with_narrative_complex_and_negative_prompt(built, pictures):
    rows = {line["source"]["file"]: (line, row) for line, row in zip(
        lines(built.data_dir / "provenance.jsonl"), lines(built.data_dir / "metadata.jsonl"), strict=True)}  # fmt: skip
    assert sorted(rows) == ["deep/er/wolf.png", "fox0.png", "fox1.png", "fox2.png"]
    told, row = rows["fox1.png"]
    assert row["prompt"] == "a red fox 1, snow" and row["negative_prompt"] == "fog" and row["text"]
    assert rows["deep/er/wolf.png"][1]["prompt"] == "a [grey] wolf, moonlight"
    original = (pictures / "fox1.png").read_bytes()
    assert (built.data_dir / row["file_name"]).read_bytes() == original
    assert told["source"]["sha256"] == hashlib.sha256(original).hexdigest()
    assert told["metadata"]["fields"]["Sampler"] == "Euler a"
    assert told["original"] == "a (red:1.2) fox 1, <lora:film:0.6>, snow"
    assert told["removed"] == [["weight", "("], ["weight", ":1.2)"], ["network", "<lora:film:0.6>"]]
    model = json.loads((built.data_dir / "models.json").read_text())[told["text"]["model"]]
    assert model["task"] == "caption" and model["weights"] and model["generation"]["max_new_tokens"] == 6


def sources(config: BuildConfig) -> dict[str, str]:
    """Each row's source file, by the keys."""
    named = {line["row"]: line["source"]["file"] for line in lines(config.data_dir / "provenance.jsonl")}
    rows = (config.data_dir / "metadata.jsonl").read_bytes().splitlines()
    return {json.loads(row)["prompt"]: named[hashlib.sha256(row).hexdigest()[:32]] for row in rows}


def test_provenance_and_rows_belong_together_after_a_kill_between_them(models, tmp_path, monkeypatch):
    for i in (1, 2):
        draw(tmp_path / "in" / f"fox{i}.png", i, parameters=A1111.format(i))
    config = load_build_config(picture_build(tmp_path, models, tmp_path / "in"))
    build_rows(config)
    before = sources(config)
    assert before == {"a red fox 1, snow": "fox1.png", "a red fox 2, snow": "fox2.png"}
    draw(tmp_path / "in" / "fox0.png", 7, parameters=A1111.format(0))
    replace = rows_folder.write_bytes

    def killed(path: Path, content: bytes, durable: bool = False) -> None:
        if path.name == "metadata.jsonl":
            raise KeyboardInterrupt
        replace(path, content, durable)

    monkeypatch.setattr(rows_folder, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        build_rows(config)
    assert lines(config.data_dir / "provenance.jsonl")[0]["source"]["file"] == "fox0.png"
    assert sources(config) == before
    monkeypatch.undo()
    build_rows(config)
    assert sources(config) == {"a red fox 0, snow": "fox0.png", **before}


def test_every_picture_left_out_is_named_with_its_reason(built):
    left = {line["location"]: line for line in lines(built.run_dir / "quarantine.jsonl")}
    assert {name: line["reason"].split(";")[0][:24] for name, line in left.items()} == {
        "blank.png": "blank: its grey levels d", "broken.png": "corrupt or truncated PNG", "link.png":
        "'link.png' is a link out", "not.jpg": "not a readable image (10", "plain.png": "nothing gave a complex p",
        "same.png": "same as fox0.png", "tiny.png": "40 x 40 pixels, the shor",
    }  # fmt: skip
    assert all(set(line) == {"position", "location", "field", "reason", "remedy"} for line in left.values())
    summary = json.loads((built.run_dir / "summary.json").read_text())
    assert summary["candidates"] == 11 and summary["rows"] == 4
    assert summary["left_out"] == {
        "blank picture": 1, "duplicate": 1, "no complex prompt": 1, "small picture": 1, "unreadable": 3
    }  # fmt: skip


def test_what_was_built_is_planned_and_extracted(built, models, tmp_path):
    config = load_config(save_config_file(tmp_path, models, built.data_dir))
    plan = plan_extraction(config)
    assert (plan.rows_valid, len(plan.quarantined)) == (4, 0)
    assert extracted_rows(config) == 4


def test_the_same_build_writes_nothing_new_and_a_new_picture_is_the_only_one_done(built, models, pictures, tmp_path):
    inside = tmp_path / "in"
    shutil.copytree(pictures, inside, symlinks=True)
    config = load_build_config(picture_build(tmp_path, models, inside))
    build_rows(config)
    before = files(config.run_dir)
    build_rows(config)
    assert files(config.run_dir) == before
    draw(inside / "a-new.png", 77, parameters=A1111.format("new"))
    assert build_rows(config).rows == 5
    log = (config.run_dir / "texts.jsonl").read_bytes()
    assert log.startswith(before["texts.jsonl"])
    (added,) = [json.loads(line) for line in log[len(before["texts.jsonl"]) :].splitlines()]
    assert [each[0] for each in added["texts"]] == [hashlib.sha256((inside / "a-new.png").read_bytes()).hexdigest()]


def test_pictures_without_a_generator_s_prompt_may_be_kept_or_refused(models, pictures, tmp_path):
    kept = load_build_config(picture_build(tmp_path / "a", models, pictures), ["keep_unpaired=true"])
    assert build_rows(kept).left_out.get("no complex prompt") is None
    rows = lines(kept.data_dir / "metadata.jsonl")
    assert sum("prompt" not in row for row in rows) == 1
    refused = load_build_config(picture_build(tmp_path / "b", models, pictures), ["source.metadata=required"])
    assert build_rows(refused).left_out["no metadata"] == 1
    ignored = load_build_config(picture_build(tmp_path / "c", models, pictures), ["source.metadata=ignored"])
    assert build_rows(ignored).rows == 0


def test_a_picture_that_changes_while_the_build_runs_gets_no_other_one_s_caption(models, tmp_path):
    for i in range(3):
        draw(tmp_path / "in" / f"fox{i}.png", i, parameters=A1111.format(i))
    config = load_build_config(picture_build(tmp_path, models, tmp_path / "in"))
    draft = collect(config)
    draw(tmp_path / "in" / "fox1.png", 99, parameters=A1111.format(1))
    (tmp_path / "in" / "fox2.png").unlink()
    draft = caption(config, draft)
    assert [candidate.location for candidate in draft.candidates] == ["fox0.png"]
    assert write_rows(config, draft).left_out == {"changed": 2}
    assert len(lines(config.run_dir / "texts.jsonl")[0]["texts"]) == 1


def test_a_negative_prompt_that_is_too_long_is_cut_and_said_to_be(models, tmp_path, monkeypatch):
    from sur.data.curation import collect as collecting

    given: list[int] = []
    cleaning = collecting.clean
    monkeypatch.setattr(collecting, "clean", lambda text, *rest: given.append(len(text)) or cleaning(text, *rest))
    negative = "fog, " * 3_000 + "(" * 300_000
    draw(tmp_path / "in" / "fox.png", 1, invokeai_metadata=json.dumps(
        {"positive_prompt": "a red fox", "negative_prompt": negative}))  # fmt: skip
    config = load_build_config(picture_build(tmp_path, models, tmp_path / "in"))
    assert build_rows(config).rows == 1
    assert max(given) <= collecting.LONGEST_PROMPT
    assert lines(config.data_dir / "metadata.jsonl")[0]["negative_prompt"] == "fog"
    (told,) = lines(config.data_dir / "provenance.jsonl")
    assert told["negative_cut"] == "315000 characters, more than 20000: cut to 14998"
    assert len(told["metadata"]["negative"]) == 14_998


def test_names_prompts_and_fields_that_are_no_unicode_spoil_only_their_own_rows(models, tmp_path):
    for name, fields in (("good", {"x": "\ud800"}), ("bad", {"positive_prompt": "a \ud800 fox"})):
        told = {"positive_prompt": "a red fox", "strength": float("nan"), **fields}
        draw(tmp_path / "in" / f"{name}.png", len(name), invokeai_metadata=json.dumps(told))
    shutil.copy(tmp_path / "in" / "good.png", os.fsencode(tmp_path / "in") + b"/\xff.png")
    config = load_build_config(picture_build(tmp_path, models, tmp_path / "in"))
    assert build_rows(config).rows == 1
    (told,) = lines(config.data_dir / "provenance.jsonl")
    assert told["metadata"]["fields"] == {"strength": "NaN", "x": "\ud800"}
    left = {each["location"]: each["reason"] for each in lines(config.run_dir / "quarantine.jsonl")}
    assert left == {
        "bad.png": "not valid Unicode (surrogates not allowed)", "\\udcff.png": "the file's name is not valid Unicode"
    }  # fmt: skip


def test_prompts_become_rows_that_are_planned_and_extracted(models, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    texts = ["a (red:1.2) fox, snow", "two wolves, moonlight, 8k", "A RED fox, snow", "x", "two cats on a bench"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts) + "{broken\n")
    config = load_build_config(prompt_build(tmp_path, models, prompts))
    summary = build_rows(config)
    assert (summary.rows, summary.left_out) == (3, {"duplicate": 1, "too short": 1, "unreadable": 1})
    rows = lines(config.data_dir / "metadata.jsonl")
    assert [row["prompt"] for row in rows] == ["a red fox, snow", "two wolves, moonlight, 8k", "two cats on a bench"]
    assert len({row["text"] for row in rows}) == 3
    told = lines(config.data_dir / "provenance.jsonl")[0]
    assert told["source"] == {"file": "prompts.jsonl", "location": "prompts.jsonl:1"}
    run = load_config(save_config_file(tmp_path, models, config.data_dir), ["vae=null"])
    assert plan_extraction(run).rows_valid == 3
    assert extracted_rows(run) == 3


def test_narratives_get_complex_prompts_the_other_way(models, tmp_path):
    prompts = tmp_path / "stories.txt"
    prompts.write_text("\ufeffA red fox sits in the snow.\n\nTwo wolves howl at the moon.\n", encoding="utf-8")
    path = prompt_build(tmp_path, models, prompts, rewriting={"writes": ["complex"]})
    config = load_build_config(path, ["source.holds=simple"])
    assert build_rows(config).rows == 2
    rows = lines(config.data_dir / "metadata.jsonl")
    assert [row["text"] for row in rows] == ["A red fox sits in the snow.", "Two wolves howl at the moon."]
    assert all(row["prompt"] for row in rows)
    assert [t["source"]["location"] for t in lines(config.data_dir / "provenance.jsonl")] == [
        "stories.txt:1", "stories.txt:3"
    ]  # fmt: skip


def test_a_caption_is_rewritten_to_the_complex_prompt_that_a_picture_lacks(models, pictures, tmp_path):
    writer = {"model": models / "writer", "max_new_tokens": 12, "device": "cpu", "writes": ["complex"]}
    config = load_build_config(picture_build(tmp_path, models, pictures, rewriting=writer))
    assert build_rows(config).rows == 5
    made = {t["source"]["file"]: t for t in lines(config.data_dir / "provenance.jsonl")}
    assert set(made["plain.png"]) >= {"text", "prompt"}
    assert "prompt" not in made["fox1.png"]


def test_pictures_that_a_table_names_come_with_its_prompts(models, pictures, tmp_path):
    table = pictures / "table.csv"
    table.write_text('image,prompt\nplain.png,"a fox, (snow)"\n../outside.png,x y z\n')
    source = {"prompts": table, "picture_column": "image"}
    config = load_build_config(picture_build(tmp_path, models, pictures, source=source))
    assert build_rows(config).left_out == {"unreadable": 1}
    (row,) = lines(config.data_dir / "metadata.jsonl")
    assert row["prompt"] == "a fox, snow"
    records, bad = scan(open_rows(load_config(save_config_file(tmp_path, models, config.data_dir)).data), True)
    assert (len(records), bad) == (1, [])
    table.unlink()


def test_a_prompt_that_is_too_long_for_the_model_is_left_out(models, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red fox\n" + "two grey wolves in the moonlight " * 9 + "\n")
    config = load_build_config(prompt_build(tmp_path, models, prompts, rewriting={"max_prompt_tokens": 60}))
    assert build_rows(config).left_out == {"too long": 1}
    assert "more than 60" in lines(config.run_dir / "quarantine.jsonl")[0]["reason"]


def test_other_settings_write_anew_beside_the_old_texts(models, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red fox\n")
    path = prompt_build(tmp_path, models, prompts)
    for overrides, texts in (([], 1), (["rewriting.max_new_tokens=5"], 2), ([], 2)):
        config = load_build_config(path, overrides)
        build_rows(config)
        assert len(lines(config.run_dir / "texts.jsonl")) == texts


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["captions=null"], "nothing writes the narratives"),
        (["source.pictures=null", "source.prompts=x.txt"], "captions describe pictures, and the source has none"),
        (["source.prompts=x.txt"], "either `pictures`"),
        (["filter.min_simple_words=3"], "did you mean 'filters"),
        (["filters.min_simple_word=3"], "did you mean 'filters.min_simple_words'?"),
        (["cleaning.dialect=latin"], "'a1111', 'comfyui'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name(models, tmp_path, overrides, said):
    with pytest.raises(ConfigError) as error:
        load_build_config(picture_build(tmp_path, models, tmp_path), overrides)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["build-images", "build-prompts"])
def test_shipped_configs_are_valid(name):
    assert load_build_config(f"configs/{name}.yaml").run_dir == Path("runs") / name


RUN = """
import sys
from sur.data.curation import build_rows, load_build_config
build_rows(load_build_config(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_build_killed_at_random_moments_ends_the_same_and_captions_nothing_twice(models, tmp_path):
    pictures = save_pictures(tmp_path / "in", count=40)
    captions = {"model": models / "blip", "max_new_tokens": 20, "batch_size": 2, "device": "cpu"}
    whole = load_build_config(picture_build(tmp_path / "whole", models, pictures, captions=captions))
    build_rows(whole)
    path = picture_build(tmp_path / "killed", models, pictures, captions=captions)
    run = tmp_path / "killed" / "run"
    moments = random.Random(5)
    killed = 0
    for _ in range(5):
        known = (run / "texts.jsonl").stat().st_size if run.exists() and (run / "texts.jsonl").exists() else 0
        with subprocess.Popen([sys.executable, "-c", RUN, str(path)], env=os.environ) as child:
            while child.poll() is None and (
                not (run / "texts.jsonl").exists() or (run / "texts.jsonl").stat().st_size <= known
            ):
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.02))
            child.kill()
        killed += child.returncode == -9
    assert killed >= 3
    build_rows(load_build_config(path))
    written = [each[0] for line in lines(run / "texts.jsonl") for each in line["texts"]]
    assert len(written) == len(set(written)) == 42
    ours, theirs = files(run), files(whole.run_dir)
    assert {name for name in theirs if ours.get(name) != theirs[name]} == {"config.yaml"}  # which names the folder
    assert {name for name in ours if name not in theirs and ".partial" not in name} == set()


@pytest.mark.xdist_group("prefect")
def test_the_command_runs_the_flow_and_says_what_is_left_out(models, pictures, tmp_path, monkeypatch):
    path = picture_build(tmp_path, models, pictures)
    passed: list[object] = []
    with prefect_ready(tmp_path / "run"):
        from sur.flows import build as flow

        read = flow.BuildDraft.read
        monkeypatch.setattr(flow.BuildDraft, "read", lambda path: passed.append(path) or read(path))
        shown = CliRunner().invoke(app, ["build", str(path), "filters.min_image_side=32"])
    assert passed == [tmp_path / "run" / "draft.jsonl"] * 2 and not (tmp_path / "run" / "draft.jsonl").exists()
    assert shown.exit_code == 0, shown.output
    assert "5 rows of 11 candidates, 5 with a picture, 5 with a complex prompt" in shown.output
    assert "blank picture" in shown.output and "quarantine.jsonl" in shown.output


def test_a_draft_is_read_as_it_was_written(models, pictures, tmp_path):
    config = load_build_config(picture_build(tmp_path, models, pictures))
    draft = collect(config)
    read = BuildDraft.read(draft.save(tmp_path))
    assert (read.candidates, read.left, read.given) == (draft.candidates, draft.left, 11)


def test_a_build_that_is_stopped_says_what_is_kept(built, tmp_path):
    stop = stopped(Stopped(signal.SIGTERM), built)
    assert (
        str(stop)
        == f"stopped; kept: 5 texts that models wrote, in {built.run_dir}. The same command goes on from there"
    )
    assert stop.exit_code == 143
    nothing = built.model_copy(update={"run_dir": tmp_path})
    assert str(stopped(KeyboardInterrupt(), nothing)) == "stopped before anything was saved"


def test_pictures_are_taken_by_content_and_what_is_passed_over_is_counted(tmp_path):
    folder = tmp_path / "in"
    pixels = np.random.default_rng(8).integers(0, 255, (72, 80, 3), dtype=np.uint8)
    folder.mkdir()
    for number, (name, kind) in enumerate(
        (("a.jfif", "JPEG"), ("b.JPE", "JPEG"), ("c.avif", "AVIF"), ("no ending", "PNG"), ("e.dat", "WEBP"),
         ("f.png_large", "BMP"), ("g.bak", "TIFF"), ("h.pnm", "PPM"), ("deep.er", "GIF"))
    ):  # fmt: skip
        Image.fromarray(np.roll(pixels, number, axis=0)).save(folder / name, kind)
    (folder / "i.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "iphone").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for name in ("a.txt", "b.txt", "notes", "BMW.md", "rows.json", ".hidden.png"):
        (folder / name).write_text("BM P5 words", encoding="ascii")
    os.mkfifo(folder / "pipe")
    (folder / ".cache").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    path = save_build(
        tmp_path / "b.yaml", run_dir=tmp_path / "run", source={"pictures": folder}, captions={"model": "none"},
        filters=LENIENT,
    )  # fmt: skip
    draft = collect(load_build_config(path))
    assert [candidate.location for candidate in draft.candidates] == sorted(
        ["a.jfif", "b.JPE", "c.avif", "no ending", "e.dat", "f.png_large", "g.bak", "h.pnm", "deep.er"]
    )
    assert {candidate.extension for candidate in draft.candidates} == {
        ".jpg", ".avif", ".png", ".webp", ".bmp", ".tif", ".ppm", ".gif"
    }  # fmt: skip
    assert {entry.row.location for entry in draft.left} == {"i.heic", "iphone", "linked"}
    assert draft.passed_over == {
        ".json": 1, ".md": 1, ".txt": 2, "hidden files": 1, "hidden folders": 1, "no ending": 2
    }  # fmt: skip
    assert BuildDraft.read(draft.save(tmp_path / "saved")).passed_over == draft.passed_over


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    draw(tmp_path / "in" / "shut" / "a.png", 1)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    path = save_build(tmp_path / "b.yaml", run_dir=tmp_path / "run", source={"pictures": tmp_path / "in"},
                      captions={"model": "none"})  # fmt: skip
    (entry,) = collect(load_build_config(path)).left
    assert (entry.row.location, "Permission denied" in entry.row.reason) == ("shut", True)


@pytest.mark.parametrize("side", ["simple", "complex", "ignored"])
def test_captions_beside_pictures_are_read_where_they_are_asked_for(tmp_path, side):
    folder = tmp_path / "in"
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png")):
        draw(folder / name, number, parameters=A1111.format(number))
    (folder / "a.txt").write_text("an (old:1.2) inn,\n at dusk\n", encoding="utf-8-sig")
    (folder / "sub" / "c.png.caption").write_text("a quay")
    (folder / "d.txt").write_bytes(b"caf\xe9")
    (folder / "licence.txt").write_text("free")
    sections = {"captions": {"model": "none"}} if side != "simple" else {}
    path = save_build(
        tmp_path / "b.yaml", run_dir=tmp_path / "run", source={"pictures": folder, "captions_beside": side},
        filters=LENIENT, **sections,
    )  # fmt: skip
    draft = collect(load_build_config(path))
    found = {candidate.location: candidate for candidate in draft.candidates}
    if side == "ignored":
        assert set(found) == {"a.png", "b.png", "sub/c.png", "d.png"} and draft.passed_over == {
            ".caption": 1,
            ".txt": 3,
        }
        return
    assert draft.passed_over == {".txt": 2}  # the licence, and the caption that is no UTF-8
    (entry,) = draft.left
    assert entry.row.location == "d.png" and "d.txt" in entry.row.reason
    assert found["a.png"].facts["caption"] == {"file": "a.txt"}
    if side == "simple":
        assert found["a.png"].simple == "an (old:1.2) inn, at dusk" and found["sub/c.png"].simple == "a quay"
        assert found["a.png"].complex == "a red fox 0, snow" and found["b.png"].simple == ""
    else:
        assert found["a.png"].complex == "an old inn, at dusk" and found["b.png"].complex == "a red fox 1, snow"


def test_captions_beside_are_of_pictures_alone(tmp_path):
    (tmp_path / "p.txt").write_text("a fox")
    path = save_build(tmp_path / "b.yaml", run_dir=tmp_path / "run",
                      source={"prompts": tmp_path / "p.txt", "captions_beside": "simple"})  # fmt: skip
    with pytest.raises(ConfigError, match="captions_beside is for a folder of pictures"):
        load_build_config(path)


def test_a_narrative_loses_tokens_that_steer_an_encoder(tmp_path):
    (tmp_path / "p.txt").write_text("A fox sits<|endoftext|>in snow.</s>\n")
    path = save_build(
        tmp_path / "b.yaml", run_dir=tmp_path / "run", source={"prompts": tmp_path / "p.txt", "holds": "simple"},
        keep_unpaired=True, filters=LENIENT,
    )  # fmt: skip
    (candidate,) = collect(load_build_config(path)).candidates
    assert candidate.simple == "A fox sits, in snow."
    assert [source for _, source in candidate.facts["removed_from_text"]] == ["<|endoftext|>", "</s>"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sur.config.curation import load_build_config
from sur.data.curation import build_rows
from sur.support import files
until = int(sys.argv[2])
replace = Path.replace
def killing(self, target):
    global until
    until -= 1
    if until == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killing
build_rows(load_build_config(sys.argv[1]))
"""


def test_what_a_killed_build_left_half_written_is_gone_after_the_next(tmp_path):
    for number in range(2):
        draw(tmp_path / "in" / f"fox{number}.png", number, parameters=A1111.format(number))
        (tmp_path / "in" / f"fox{number}.txt").write_text(f"A fox sits in snow {number}.")
    path = save_build(
        tmp_path / "b.yaml", run_dir=tmp_path / "run", filters=LENIENT,
        source={"pictures": tmp_path / "in", "captions_beside": "simple"},
    )  # fmt: skip
    config = load_build_config(path)
    for until in (1, 3, 5):  # at the configuration, at the second picture, behind the provenance
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path), str(until)], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(config.run_dir.rglob("*.partial"))
    (config.data_dir / f".other.{os.getppid()}.partial").write_text("of a process that is alive")
    assert build_rows(config).rows == 2
    assert [left.name for left in config.run_dir.rglob("*.partial")] == [f".other.{os.getppid()}.partial"]
    assert len(lines(config.data_dir / "metadata.jsonl")) == len(lines(config.data_dir / "provenance.jsonl")) == 2


def test_two_builds_do_not_write_one_folder_at_a_time(tmp_path):
    import fcntl

    draw(tmp_path / "in" / "fox.png", 1, parameters=A1111)
    (tmp_path / "in" / "fox.txt").write_text("A fox sits in snow.")
    path = save_build(
        tmp_path / "b.yaml", run_dir=tmp_path / "run", filters=LENIENT,
        source={"pictures": tmp_path / "in", "captions_beside": "simple"},
    )  # fmt: skip
    config = load_build_config(path)
    config.data_dir.mkdir(parents=True)
    descriptor = os.open(config.data_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another `sur build` is at work"):
        build_rows(config)
    os.close(descriptor)
    assert build_rows(config).rows == 1
