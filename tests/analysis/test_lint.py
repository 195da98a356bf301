"""Each check finds what is planted, says nothing of what is sound, and what it names can be left out of a training."""

import importlib.util
import itertools
import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import save_config_file, save_models, save_rows
from typer.testing import CliRunner

from sur.analysis.lint.leakage import held_back
from sur.analysis.lint.lint import CHECKS, LintOptions, lint_data, lint_store
from sur.analysis.lint.outliers import scores
from sur.analysis.lint.similar import sharing_rare, shingles, similar_texts, similar_vectors
from sur.analysis.store.pictures import LatentPictures
from sur.cache import ArraySpec, FeatureSpec, Loader, Manifest, Order, RowRecord, Selection, Store, row_id
from sur.cli.app import app
from sur.config.data import DataConfig
from sur.config.load import save_config
from sur.config.run import load_config
from sur.data import ListRows, language, open_rows, scan
from sur.data.exclude import read_exclude, write_exclude
from sur.features.extraction import extract
from sur.support.errors import ConfigError, RowError
from sur.training.batches import open_loader

WORDS = [f"{a}{b}" for a in ("ba", "co", "du", "fe", "gi", "ho") for b in ("ran", "sel", "tom", "vix", "zun", "pla")]


def sentence(seed, words=14):
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def record(simple, complex="", image="", slot=-1):
    return RowRecord(row_id(simple, complex, image.encode()), simple, complex, image, slot)


def store_of(path, records):
    store = Store.create(path / "s.zarr", 64)
    store.add_rows(records)
    return store


def found(report, check):
    return [finding for finding in report.findings if finding.check == check]


def only(*checks, **options):
    return LintOptions(only=checks, **options)


def test_sound_rows_have_no_findings(tmp_path):
    report = lint_store(store_of(tmp_path, [record(sentence(n), f"{sentence(n, 6)}, 8k") for n in range(60)]))
    assert report.findings == () and report.leave_out == {} and report.rows == 60
    assert {*report.checked, *report.skipped} == set(CHECKS)
    assert "no latents" in report.skipped["blank-picture"]


def test_rows_of_the_same_prompts_are_a_group_of_which_each_picture_is_kept_once(tmp_path):
    rows = [record("A cat", "cat, 8k", "1.png"), record("a  cat", "cat, 8K", "2.png"), record("a dog", "dog", "3.png")]
    rows += [record("a cat", "CAT, 8k", "1.png"), record("a hen"), record("A hen")]
    several, single = found(lint_store(store_of(tmp_path, rows)), "duplicate")
    assert several.rows == tuple(rows[n].id.hex() for n in (0, 1, 3))
    assert several.leave_out == several.rows[2:] and "several pictures" in several.remedy
    assert single.leave_out == single.rows[1:] == (rows[5].id.hex(),) and "several" not in single.remedy


def test_a_prompt_that_may_just_fit_is_not_left_out(tmp_path):
    store = store_of(tmp_path, [record(f"prompt {n}") for n in range(3)])
    spec = {"states": ArraySpec("float32", (4, 2)), "length": ArraySpec("int32", ())}
    store.ensure_feature(FeatureSpec("text.a", "text", {"model": "a"}, spec))
    values = {"states": np.ones((3, 4, 2), np.float32), "length": np.array([4, 4, 2], np.int32)}
    store.write_partition("text.a", 0, values, {}, {"truncated": 1})
    report = lint_store(store, only("cut-off"))
    assert [finding.leave_out for finding in report.findings] == [(), ()]
    assert all("or just fits: 1 of 2" in finding.message for finding in report.findings)


def test_near_duplicates_are_found_and_others_are_not(tmp_path):
    near = sentence(3, 30)
    rows = [record(near), record(near.replace(" ", " quite ", 1)), *(record(sentence(n, 30)) for n in range(100, 140))]
    (finding,) = found(lint_store(store_of(tmp_path, rows)), "near-duplicate")
    assert set(finding.rows) == {rows[0].id.hex(), rows[1].id.hex()}


def test_groups_of_similar_texts_are_those_of_all_pairs():
    generator, texts = random.Random(5), []
    for n in range(60):
        words = sentence(n, 20).split()
        texts.append(" ".join(words))
        for _ in range(generator.randrange(3)):
            words[generator.randrange(20)] = generator.choice(WORDS)
            texts.append(" ".join(words))
    sets = [shingles(text) for text in texts]
    links = {
        (i, j) for i in range(len(texts)) for j in range(i) if len(sets[i] & sets[j]) >= 0.8 * len(sets[i] | sets[j])
    }
    groups = similar_texts(texts, 0.8)
    linked = {index for pair in links for index in pair}
    assert len(links) > 20 and {index for group in groups for index in group} == linked
    place = {index: number for number, group in enumerate(groups) for index in group}
    assert all(place[i] == place[j] for i, j in links)


def test_texts_without_words_are_no_group():
    assert similar_texts(["", "!!", "??", "a"], 0.8) == [] and similar_texts([], 0.8) == []


def test_groups_of_similar_vectors_are_those_of_all_pairs():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((200, 32)).astype(np.float32) + 5
    vectors[150:] = vectors[:50] + 0.02 * generator.standard_normal((50, 32)).astype(np.float32)
    vectors[199] = vectors[198] = vectors[197]
    wide = vectors - vectors.mean(axis=0)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    linked = np.flatnonzero(((unit @ unit.T) >= 0.99).sum(axis=1) > 1)
    groups = similar_vectors(vectors, 0.99)
    assert sorted(index for group in groups for index in group) == linked.tolist()
    assert [group for group in groups if 199 in group] == [[47, 197, 198, 199]]


def test_crowded_directions_hide_no_pair(monkeypatch):
    """Most rows look in four directions, so that a bucket holds hundreds of them that are not alike."""
    monkeypatch.setattr("sur.analysis.lint.similar.TILE_ROWS", 100)
    generator = np.random.default_rng(3)
    directions = 8 * generator.standard_normal((4, 48))
    vectors = (directions[np.arange(2000) % 4] + generator.standard_normal((2000, 48))).astype(np.float32)
    vectors[1000:1200] = vectors[:200] + 0.1 * generator.standard_normal((200, 48)).astype(np.float32)
    wide = (vectors - vectors.mean(axis=0)).astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    alike = np.argwhere(np.triu(unit @ unit.T >= 0.999, 1))
    place = {index: number for number, group in enumerate(similar_vectors(vectors, 0.999)) for index in group}
    assert len(alike) >= 190
    assert all(one in place and place[one] == place.get(other) for one, other in alike.tolist())
    assert set(place) == set(alike.ravel().tolist())


def test_groups_of_a_crowd_that_is_alike_are_whole():
    vectors = np.random.default_rng(0).standard_normal((2, 24)).astype(np.float32)[np.arange(3000) % 2]
    vectors += 1e-4 * np.random.default_rng(1).standard_normal(vectors.shape).astype(np.float32)
    assert [len(group) for group in similar_vectors(vectors, 0.99)] == [1500, 1500]


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_a_crowded_bucket_of_texts_is_split_without_losing_a_pair(threshold):
    frame, generator, texts = " ".join(WORDS[:20]), random.Random(2), []
    for n in range(150):
        words = sentence(n, 12).split()
        texts.append(f"{frame} {' '.join(words)}")
        words[generator.randrange(12)] = generator.choice(WORDS)
        texts.append(f"{frame} {' '.join(words)}")
    sets = [shingles(text) for text in texts]
    lists = list(sharing_rare(range(len(texts)), sets.__getitem__, threshold))
    together = {pair for each in lists for pair in itertools.combinations(each, 2)}
    pairs = itertools.combinations(range(len(texts)), 2)
    links = {(i, j) for i, j in pairs if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])}
    assert len(links) >= 100 and links <= together
    assert threshold < 0.8 or len(together) < len(texts) ** 2 / 4


def test_a_simple_prompt_that_is_the_complex_one_is_named(tmp_path):
    rows = [record("Two Cats", "two  cats"), record("two dogs", "two dogs, 8k"), record("alone")]
    (finding,) = found(lint_store(store_of(tmp_path, rows)), "same-prompt")
    assert finding.rows == (rows[0].id.hex(),)


def test_unsafe_words_are_found_as_words_only(tmp_path):
    rows = [
        record("a Nude statue"),
        record("a scene", "nsfw, 8k"),
        record("sussex, denuded hills"),
        record("a gorse bush"),
    ]
    report = lint_store(store_of(tmp_path, rows))
    assert {f.rows[0] for f in found(report, "unsafe-prompt")} == {rows[0].id.hex(), rows[1].id.hex()}
    assert "weak" in report.checked["unsafe-prompt"]


def test_prompts_in_another_language_are_named():
    english = [
        "two red circles above a blue square",
        "a cat sleeps on the table in the kitchen",
        "a quartet of plum intersections is all there is",
    ]
    german = "ein roter Kreis liegt über einem blauen Quadrat in der Küche"
    said = language.languages([*english, german, "un chat"])
    assert said[german] == "de" and {said[text] for text in english} <= {"en", ""} and "un chat" not in said
    with pytest.raises(ValueError, match="no language that py3langid knows"):
        language.languages(english, expected="xx")


def test_without_py3langid_the_check_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = lint_store(store_of(tmp_path, [record("a cat")]))
    assert "pip install py3langid" in report.skipped["language"]


def test_validation_rows_that_training_sees_in_another_form_are_leakage(tmp_path):
    rows = [record(sentence(n // 2), f"{n}, 8k") for n in range(80)]
    held = held_back(rows, 0.2)
    loader_says = _held_by_loader(store := store_of(tmp_path, rows), 0.2)
    assert {row.id for row, here in zip(rows, held, strict=True) if here} == loader_says
    report = lint_store(store, only("leakage", validation_fraction=0.2))
    expected = {rows[n].id.hex() for n in range(80) if held[n] and not held[n ^ 1]}
    assert expected and set(report.leave_out) == expected
    assert lint_store(store, only("leakage", validation_fraction=0.0)).findings == ()


def _held_by_loader(store, fraction):
    store.ensure_feature(FeatureSpec("x", "x", {}, {"states": ArraySpec("float32", (4,))}))
    for partition in store.pending("x"):
        store.write_partition("x", partition, {"states": np.zeros((len(store.rows(partition)), 4), np.float32)})
    selection = Selection(split="validation", validation_fraction=fraction)
    slots = Loader(store, ["x"], batch_size=1, selection=selection, order=Order(drop_last=False)).slots
    return {row.id for row in store.rows() if row.slot in slots}


def test_outliers_have_the_score_of_iglewicz_and_hoaglin(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    vectors[17] *= 40
    logs = np.log(np.linalg.norm(vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0), axis=1))
    apart = logs - np.median(logs)
    np.testing.assert_allclose(scores(vectors), 0.6745 * apart / np.median(np.abs(apart)), rtol=1e-4, atol=1e-5)
    store = store_of(tmp_path, [record(sentence(n)) for n in range(100)])
    store.ensure_feature(FeatureSpec("llm.x", "llm", {}, {"states": ArraySpec("float32", (8,))}))
    for partition in (0, 1):
        store.write_partition("llm.x", partition, {"states": vectors[partition * 64 : partition * 64 + 64]})
    (finding,) = found(lint_store(store), "outlier")
    assert finding.rows == (store.rows()[17].id.hex(),) and "llm.x" in finding.message


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


LONG = "a cat and " * 60


@pytest.fixture(scope="module")
def run(tmp_path_factory, models):
    """An extracted run whose data have a blank picture, two nearly equal ones and a prompt that is cut off."""
    folder = tmp_path_factory.mktemp("lint")
    rows = save_rows(folder / "rows", pictures=8, phrases=1, broken=True)
    random = np.random.default_rng(7)
    smooth = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize(
        (48, 48), Image.Resampling.BICUBIC
    )
    smooth.save(rows / "like.png")
    pixels = np.asarray(smooth).astype(int)
    Image.fromarray((pixels + random.integers(-2, 3, pixels.shape)).clip(0, 255).astype(np.uint8)).save(
        rows / "alike.png"
    )
    Image.new("RGB", (48, 48), (90, 120, 30)).save(rows / "blank.png")
    more = [("like.png", "a first", "first, 8k"), ("alike.png", "another thing", "second, 8k")]
    more += [("blank.png", "nothing at all", "empty, 8k"), ("0.png", LONG, "long, 8k")]
    with (rows / "metadata.jsonl").open("a") as file:
        file.writelines(json.dumps({"file_name": f, "text": t, "prompt": p}) + "\n" for f, t, p in more)
    path = save_config_file(folder, models, rows)
    extract(load_config(path))
    return path


def simple_of(config, ids):
    rows, _ = scan(open_rows(config.data), need_image=True)
    return sorted(row.simple.strip()[:14] for row in rows if row.id.hex() in ids)


def test_data_are_checked_before_extraction(run):
    config = load_config(run)
    report = lint_data(config.data, config)
    assert simple_of(config, found(report, "blank-picture")[0].rows) == ["nothing at all"]
    assert len(found(report, "blank-picture")) == 1
    (near,) = found(report, "near-duplicate-picture")
    assert simple_of(config, near.rows) == ["a first", "another thing"]
    cut = {finding.message.split(" is cut off by ")[1].split(" (")[0] for finding in found(report, "cut-off")}
    assert cut == {"text.pipe.simple", "llm.llm.l01.mean, llm.llm.l03.mean"}
    assert {row for finding in found(report, "cut-off") for row in finding.rows} == {
        row.id.hex() for row in Store.open(config.store.path).rows() if row.simple == LONG.strip()
    }
    (unusable,) = found(report, "unusable")
    assert "absent.png" in unusable.message and unusable.rows == ()
    assert "stores" in report.skipped["outlier"]


def test_a_folder_alone_cannot_tell_what_is_cut_off(run):
    report = lint_data(DataConfig(path=load_config(run).data.path))
    assert "config file" in report.skipped["cut-off"] and found(report, "blank-picture")


def test_a_store_tells_by_its_receipts_what_was_cut_off(run):
    store = Store.open(load_config(run).store.path)
    report = lint_store(store, only("cut-off"))
    cut = {row for finding in report.findings for row in finding.rows}
    assert cut == {row.id.hex() for row in store.rows() if row.simple == LONG.strip()}
    assert any("text.pipe.simple, which reads 77 tokens" in finding.message for finding in report.findings)


def test_a_blank_picture_in_a_store_is_decoded_before_it_is_named(shapes_config, tmp_path):
    shutil.copytree(shapes_config.store.path, tmp_path / "store.zarr")
    store = Store.open(tmp_path / "store.zarr", writable=True)
    name = "vae.shapes.64"
    from sur.config.features import VAEConfig
    from sur.features.encoders.vae import VAEEncoder

    vae = VAEEncoder(VAEConfig(model="sur/shapes/weights", slug="shapes", resolution=64))
    grey = vae.encode([Image.new("RGB", (64, 64), (30, 28, 33))]).values[name]
    values, missing = store.read_partition(name, 0), store.receipt(name, 0).missing
    values["mean"][5], values["logvar"][5] = grey["mean"][0], grey["logvar"][0]
    store.discard(name, 0)
    store.write_partition(name, 0, values, missing)
    alone = found(lint_store(store, only("blank-picture")), "blank-picture")
    assert store.rows()[5].id.hex() in {finding.rows[0] for finding in alone}
    assert all("seems to be blank" in finding.message for finding in alone)  # no VAE lies beside this store
    shutil.copy(shapes_config.run_dir / "config.yaml", tmp_path)
    (finding,) = found(lint_store(store, only("blank-picture")), "blank-picture")
    assert finding.rows == (store.rows()[5].id.hex(),) and "pixels deviate" in finding.message


@pytest.fixture(scope="module")
def safety_checker(tmp_path_factory):
    """A tiny random checker of diffusers' class, in a pipeline's layout, that flags everything."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    folder = tmp_path_factory.mktemp("checker")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)  # any cosine is above
        checker.special_care_embeds_weights.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(
        folder / "feature_extractor"
    )
    return folder


def test_what_the_safety_checker_flags_is_named(run, safety_checker, tmp_path):
    config = load_config(run)
    report = lint_data(config.data, config, only("unsafe-picture", safety_checker=safety_checker))
    assert len(report.findings) == 12 and "safety checker in" in report.checked["unsafe-picture"]
    store = Store.open(config.store.path)
    assert LatentPictures(store).faithful
    assert len(lint_store(store, only("unsafe-picture", safety_checker=safety_checker)).findings) == 12
    shutil.copytree(store.path, tmp_path / "away.zarr")
    away = lint_store(Store.open(tmp_path / "away.zarr"), only("unsafe-picture", safety_checker=safety_checker))
    assert "needs the VAE" in away.skipped["unsafe-picture"]


def test_without_a_safety_checker_pictures_are_not_said_to_be_safe(run, tmp_path):
    report = lint_data(load_config(run).data)
    assert "--safety-checker" in report.skipped["unsafe-picture"] and "unsafe-picture" not in report.checked
    with pytest.raises(ConfigError, match="no safety checker in"):
        lint_data(load_config(run).data, None, only("unsafe-picture", safety_checker=tmp_path))


def test_an_unknown_check_names_the_known_ones():
    with pytest.raises(ConfigError, match="no check blurry; there are: .*leakage"):
        LintOptions(skip=("blurry",))


def test_ids_are_written_and_read_with_their_reasons(tmp_path):
    ids = {record(sentence(n)).id.hex(): "duplicate, leakage" for n in range(3)}
    write_exclude(tmp_path / "out.txt", ids)
    assert (
        read_exclude(tmp_path / "out.txt") == {bytes.fromhex(row) for row in ids} and read_exclude(None) == frozenset()
    )
    (tmp_path / "out.txt").write_text("not an id\n")
    with pytest.raises(RowError, match="line 1 of .* begins with 'not'"):
        read_exclude(tmp_path / "out.txt")
    with pytest.raises(FileNotFoundError, match="sur lint --write"):
        read_exclude(tmp_path / "absent.txt")


def test_ids_that_a_file_has_already_stay_in_it(tmp_path):
    ids, file = [record(sentence(n)).id.hex() for n in range(3)], tmp_path / "out.txt"
    file.write_text(f"# mine\n{ids[0]}  by hand")
    assert write_exclude(file, {ids[0]: "leakage", ids[1]: "duplicate"}) == 2
    assert file.read_text() == f"# mine\n{ids[0]}  by hand\n{ids[1]}  duplicate\n"
    assert write_exclude(file, {}) == 2 and len(read_exclude(file)) == 2
    file.write_text("notes of another kind\n")
    with pytest.raises(RowError, match="no row id"):
        write_exclude(file, {ids[2]: "leakage"})
    assert file.read_text() == "notes of another kind\n"


def test_excluded_rows_are_quarantined_by_the_scan(tmp_path):
    rows = [{"text": f"prompt {n}", "prompt": "p"} for n in range(3)]
    ids = [row.id for row in scan(ListRows(rows, tmp_path, image_column=None), False)[0]]
    write_exclude(tmp_path / "out.txt", {ids[1].hex(): "blank-picture"})
    kept, left = scan(ListRows(rows, tmp_path, image_column=None, exclude=tmp_path / "out.txt"), False)
    assert [row.id for row in kept] == [ids[0], ids[2]]
    assert (left[0].location, left[0].field) == ("#1", "data.exclude") and ids[1].hex() in left[0].reason


def test_a_training_leaves_excluded_rows_out_at_once(shapes_config, tmp_path):
    store = Store.open(shapes_config.store.path)
    before = {row.tobytes() for row in open_loader(store, shapes_config, "train").ids}
    gone = sorted(before)[:7]
    write_exclude(tmp_path / "out.txt", {row.hex(): "" for row in gone})
    data = shapes_config.data.model_copy(update={"exclude": tmp_path / "out.txt"})
    config = shapes_config.model_copy(update={"data": data})
    loader = open_loader(store, config, "train")
    assert {row.tobytes() for row in loader.ids} == before - set(gone)
    whole = open_loader(store, shapes_config, "train").manifest
    assert isinstance(whole, Manifest)
    assert {row.tobytes() for row in open_loader(store, config, "train", whole).ids} == before  # a manifest is final


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_fails_with_findings_and_writes_their_ids(run, tmp_path):
    shown = invoke("lint", run, "--skip", "language", "--write", tmp_path / "out.txt")
    assert shown.exit_code == 1, shown.output
    for text in ("blank-picture: the picture blank.png", "not checked: needs a safety checker", "data.exclude="):
        assert text in shown.output
    again = invoke("lint", load_config(run).store.path, "--only", "cut-off", "--json")
    plain = json.loads(again.stdout)
    assert again.exit_code == 1 and plain["findings"][0]["check"] == "cut-off"
    assert set(plain["leave_out"]) <= {row.hex() for row in read_exclude(tmp_path / "out.txt")}


def test_the_command_succeeds_when_what_it_named_is_left_out(run, tmp_path):
    invoke("lint", run, "--skip", "language", "--write", tmp_path / "out.txt")
    text = run.read_text().replace("data: {", f"data: {{exclude: {tmp_path / 'out.txt'}, ")
    (tmp_path / "run.yaml").write_text(text)
    again = json.loads(invoke("lint", tmp_path / "run.yaml", "--skip", "language", "--json").stdout)
    assert [(f["check"], "absent.png" in f["message"]) for f in again["findings"]] == [("unusable", True)]
    before = read_exclude(tmp_path / "out.txt")
    rest = ("--skip", "language", "--skip", "unusable", "--write", tmp_path / "out.txt")
    shown = invoke("lint", tmp_path / "run.yaml", *rest)
    assert shown.exit_code == 0, shown.output
    assert (
        read_exclude(tmp_path / "out.txt") == before and f"0 rows to leave out ({len(before)} in all)" in shown.output
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.zarr"], "there is no store, config file or data folder nowhere.zarr"),
        (["RUN", "--only", "duplicate", "--skip", "duplicate"], "every check is skipped"),
        (["DATA", "train.validation_fraction=0.5"], "is taken for a setting of a config file"),
    ],
)
def test_what_cannot_be_checked_is_said(run, arguments, message):
    places = {"RUN": run, "DATA": load_config(run).data.path}
    assert message in str(invoke("lint", *(places.get(each, each) for each in arguments)).exception)


def test_a_run_folder_stands_for_its_store_and_its_settings(own_config):
    config = own_config.model_copy(update={"train": own_config.train.model_copy(update={"validation_fraction": 0.5})})
    save_config(config)
    plain = json.loads(invoke("lint", config.run_dir, "--only", "leakage", "--json").stdout)
    assert plain["source"] == str(config.store.path) and "0.5" in plain["checked"]["leakage"]
    shutil.rmtree(config.store.path)
    plain = json.loads(invoke("lint", config.run_dir, "--only", "unusable", "--json").stdout)
    assert plain["source"] == str(config.data.path)


def test_settings_replace_those_of_the_file(run):
    shown = invoke("lint", run, "train.validation_fraction=0.5", "--only", "leakage")
    assert "with train.validation_fraction 0.5" in shown.output


def test_the_command_takes_a_folder(run):
    shown = invoke("lint", load_config(run).data.path, "--only", "unusable")
    assert shown.exit_code == 1 and "absent.png" in shown.output


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--only", "language"], "the check language was asked for and did not run: needs py3langid"),
        (["--only", "language", "--only", "duplicate"], "the check language was asked for"),
        (["--only", "unsafe-picture"], "the check unsafe-picture was asked for and did not run"),
        (["--only", "outlier", "--json"], "is for stores"),
        (
            [word for name in CHECKS if name != "outlier" for word in ("--skip", name)],
            "the check outlier was asked for",
        ),
    ],
)
def test_a_check_that_was_asked_for_and_cannot_run_is_an_error(run, monkeypatch, options, needed):
    monkeypatch.setattr(language, "can_tell_languages", lambda: False)
    done = invoke("lint", load_config(run).data.path, *options)
    assert isinstance(done.exception, ConfigError) and needed in str(done.exception)
    assert done.stdout  # the report is printed all the same


def test_checks_that_nobody_asked_for_by_name_may_be_left_out(run, monkeypatch):
    monkeypatch.setattr(language, "can_tell_languages", lambda: False)
    assert invoke("lint", load_config(run).data.path, "--only", "same-prompt").exit_code == 0
