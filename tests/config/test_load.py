"""sur.config.run: defaults < file < overrides, and errors that say where and what instead."""

import json
from pathlib import Path

import pytest

from sur.config.load import save_config
from sur.config.run import load_config
from sur.support.errors import ConfigError

MINIMAL = "run_dir: runs/x\nbase_model: models/tiny\ndata: {path: rows}\n"


def write(folder: Path, text: str = MINIMAL) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_models_and_store_path_follow_their_siblings(tmp_path):
    config = load_config(write(tmp_path), ["vae={resolution: 64}"])
    assert config.text.model == "models/tiny"
    assert config.vae is not None
    assert config.vae.model == "models/tiny"
    assert config.store.path == Path("runs/x/store.zarr")


def test_what_is_given_is_not_replaced_by_a_sibling(tmp_path):
    config = load_config(write(tmp_path), ["text.model=other", "store.path=elsewhere", "text.batch_size=3"])
    assert config.text.model == "other"
    assert config.text.batch_size == 3
    assert config.store.path == Path("elsewhere")


def test_overrides_win_over_the_file_and_are_read_as_yaml(tmp_path):
    text = MINIMAL + "store: {rows_per_partition: 7}\ntrain: {learning_rate: 0.5}\n"
    overrides = ["store.rows_per_partition=9", "train.learning_rate=1e-5", "llm={model: m, layers: [1, 2]}"]
    config = load_config(write(tmp_path, text), overrides)
    assert config.store.rows_per_partition == 9
    assert config.train.learning_rate == 1e-5
    assert config.llm is not None
    assert config.llm.layers == (1, 2)


def test_an_override_may_fill_a_section_that_is_null(tmp_path):
    config = load_config(write(tmp_path, MINIMAL + "vae: null\n"), ["vae.resolution=128"])
    assert config.vae is not None
    assert config.vae.resolution == 128


def test_resolved_config_reads_back_equal(tmp_path):
    overrides = [f"run_dir={tmp_path}/run", "llm={model: m, layers: [3]}", "vae.resolution=64"]
    config = load_config(write(tmp_path), overrides)
    assert load_config(save_config(config)) == config


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("trian.steps=3", "did you mean 'train'"),
        ("train.stepz=3", "did you mean 'train.steps'"),
        ("learning_rate=3", "did you mean 'train.learning_rate'"),
        ("loss.alignment.wieght=3", "did you mean 'loss.alignment.weight'"),
        ("store.qqqq=3", "known here: path, rows_per_partition"),
    ],
)
def test_unknown_override_names_itself_and_the_nearest_key(tmp_path, override, suggestion):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path), [override])
    assert f"override '{override}'" in str(caught.value)
    assert suggestion in str(caught.value)


@pytest.mark.parametrize(
    ("override", "right"),
    [("llm={model: x, layers: 12}", "'llm.layers=[12]'"), ("evaluate.sets=templates", "'evaluate.sets=[templates]'")],
)
def test_a_single_value_for_a_list_is_answered_with_the_list(tmp_path, override, right):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path), [override])
    assert f"must be a list: {right}" in str(caught.value)
    assert "tuple" not in str(caught.value)


def test_unknown_key_in_the_file_names_the_file(tmp_path):
    path = write(tmp_path, MINIMAL + "store: {rows_per_partitoin: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = f"{path}: unknown key 'store.rows_per_partitoin'; did you mean 'store.rows_per_partition'?"
    assert message in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "run_dir: x\ndata: {path: y, limit: -1}\n"), ["train.steps=many"])
    message = str(caught.value)
    assert "'base_model' is required" in message
    assert "'data.limit'" in message
    assert "(got -1)" in message
    assert "override 'train.steps=many': 'train.steps'" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("no-equals-sign", "must look like section.key=value"),
        ("a..b=1", "must look like section.key=value"),
        ("data.path=[", "is not YAML"),
        ("base_model.x=1", "base_model is a plain value, not a section"),
    ],
)
def test_malformed_overrides_are_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "must hold a mapping"),
        ("a: [", "not usable YAML"),
        ("data: {path: 1}\ndata: {path: 2}", "'data' is given twice, the second time in line 2"),
    ],
)
def test_unusable_files_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


def test_the_file_of_a_build_is_known_for_one(tmp_path):
    path = write(tmp_path, "run_dir: runs/built\nsource: {prompts: prompts.txt}\n")
    for overrides in ([], ["source.prompts=other.txt"]):
        with pytest.raises(ConfigError, match="this is the file of a build, for `sur build`"):
            load_config(path, overrides)
    with pytest.raises(ConfigError, match="unknown key 'source'"):  # not when it comes from the command line
        load_config(write(tmp_path), ["source.path=x"])


def test_the_folder_of_a_run_is_no_config_file_but_names_one(tmp_path):
    save_config(load_config(write(tmp_path), [f"run_dir={tmp_path}/run"]))
    with pytest.raises(ConfigError, match=r"is a folder, .* that of its run is .*run/config\.yaml"):
        load_config(tmp_path / "run")


def test_missing_file_suggests_a_neighbour(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean .*run\.yaml"):
        load_config(tmp_path / "rum.yaml")


def test_the_config_cannot_be_changed(tmp_path):
    config = load_config(write(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.base_model = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "path",
    sorted(p for p in Path("configs").glob("*.yaml") if not p.stem.startswith("build-")),
    ids=lambda path: path.stem,
)
def test_shipped_configs_are_valid(path):
    assert load_config(path).run_dir.parts[0] == "runs"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.steps=400"], "teacher would never teach"),
        (["loss.denoising={weight: 1, first_step: 2300}"], "denoising loss would never set in"),
        (["loss={alignment: {form: none}, distillation: {form: pooled, weight: 0}}"], "every loss is off"),
        (["train.mixed_precision=fp16"], "muon and mixed_precision fp16 do not go together"),
    ],
)
def test_settings_under_which_nothing_or_not_all_would_be_learnt_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(Path("configs/shapes.yaml"), overrides)
    assert "run_dir" not in str(error.value) and overrides[0].partition("=")[0] in str(error.value)


def test_the_base_models_revision_is_also_its_text_encoders_and_vaes(tmp_path):
    config = load_config(write(tmp_path), ["base_model_revision=abc", "vae.resolution=64"])
    assert (config.base[1], config.text.revision, config.vae and config.vae.revision) == ("abc", "abc", "abc")
    other = load_config(write(tmp_path), ["base_model_revision=abc", "text.model=other"])
    assert other.text.revision is None


BOMB = "l0: &l0 [1, 2]\n" + "".join(f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]\n" for n in range(1, 45))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + BOMB, "more than 20000 values, its aliases written out"),
        (MINIMAL + "train: {steps: &s [*s]}", "contains itself"),
        (MINIMAL + "train: " + "{a: " * 60 + "1" + "}" * 60, "nests more than 50 levels"),
        (MINIMAL + "train: " + "[" * 4000 + "]" * 4000, "nests more than 50 levels"),
        (MINIMAL + f"train: {{steps: {'7' * 5000}}}", "is not usable YAML"),
        (MINIMAL + f"train: {{steps: {'7' * 20}}}", "is larger than any setting"),
        (MINIMAL + f"train: {{steps: 0x{'f' * 200000}}}", "is larger than any setting"),
        (MINIMAL + "train: {steps: 2021-02-30}", "is not usable YAML"),
        (MINIMAL + "train: {steps: !!binary e}", "is not usable YAML"),
        (MINIMAL + "? [a, b]\n: 1\n", "a mapping or list is a key in line 4"),
        (MINIMAL + "# " + "x" * 1_000_000, "more than 1000000 bytes"),
        (MINIMAL + "train: {steps: !!python/object:os.system x}", "is not usable YAML"),
    ],
)
def test_a_hostile_file_is_refused_in_one_short_message(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert message in str(caught.value) and len(str(caught.value)) < 1000


def test_of_thousands_of_faults_the_first_are_named_and_the_rest_counted(tmp_path):
    text = MINIMAL + "".join(f"key{number}: {number}\n" for number in range(6000))
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and "unknown key 'key0'" in lines[0] and "and 5980 more faults" in lines[-1]


@pytest.mark.parametrize("override", ["a." * 5000 + "b=1", f"train.steps={'x' * 90_000}", f"{'k' * 90_000}=1"])
def test_what_is_too_long_is_not_repeated_whole(tmp_path, override):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path), [override])
    assert len(str(caught.value)) < 1500


def test_an_alias_and_a_merged_mapping_are_read(tmp_path):
    text = MINIMAL + "vae: &v {resolution: 64, batch_size: 3}\ntext: {<<: {batch_size: 5}, store_dtype: float32}\n"
    config = load_config(write(tmp_path, text))
    assert config.vae is not None and (config.vae.resolution, config.text.batch_size) == (64, 5)


@pytest.mark.parametrize("slug", ["../../x", "a/b", "/etc", "..", "", "A b", "-x", "x" * 200, "x\u202e", "x\n"])
@pytest.mark.parametrize("section", ["text", "vae", "llm"])
def test_a_slug_that_is_no_name_of_a_feature_is_refused(tmp_path, section, slug):
    sections = {"text": "", "vae": "resolution: 64, ", "llm": "model: m, layers: [1], "}
    path = write(tmp_path, MINIMAL + f"{section}: {{{sections[section]}slug: {json.dumps(slug)}}}")
    with pytest.raises(ConfigError, match="slug"):
        load_config(path)


@pytest.mark.parametrize(
    "override",
    ["llm={model: m, layers: [1], max_tokens: 1000000000}", "text.t5_tokens=99999999", "vae.resolution=1000000"],
)
def test_sizes_that_no_model_has_are_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="less than or equal to"):
        load_config(write(tmp_path), [override])
