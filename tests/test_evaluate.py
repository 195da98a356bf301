"""An evaluation is made once for the same weights, questions and settings; stages keep the seconds of their work."""

import shutil

import pytest
from conftest import CONFIGS, SMALL

from sur.adapter import Adapter, AdapterConfig
from sur.config import RunConfig, load_config
from sur.evaluate import RESULT, evaluate, kept_evaluation, pictures_of
from sur.standing import note_seconds, read_seconds, timed


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A config and its run folder with an untrained adapter and its evaluation; read-only."""
    run = tmp_path_factory.mktemp("evaluated")
    config = load_config(CONFIGS / "shapes.yaml", [*SMALL, f"run_dir={run}"])
    Adapter(AdapterConfig(dim=128)).save_pretrained(run / "adapter")
    counts = []
    made = evaluate(config, run / "adapter", counts.append)
    assert sum(counts) == pictures_of(config.evaluate) == 24
    return config, made


@pytest.fixture
def own(evaluated, tmp_path):
    """The same in a folder of the test's own."""
    config, _ = evaluated
    shutil.copytree(config.run_dir, tmp_path / "run")
    return config.model_copy(update={"run_dir": tmp_path / "run"})


def with_settings(config: RunConfig, **settings) -> RunConfig:
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)})


def test_an_unchanged_evaluation_is_kept(evaluated, own):
    kept = kept_evaluation(own, own.run_dir / "adapter")
    assert kept is not None
    assert kept.model_dump_json(exclude={"adapter"}) == evaluated[1].model_dump_json(exclude={"adapter"})
    assert kept.adapter == str(own.run_dir / "adapter")


def test_other_weights_are_evaluated_anew(own):
    Adapter(AdapterConfig(dim=128)).save_pretrained(own.run_dir / "adapter")
    assert kept_evaluation(own, own.run_dir / "adapter") is None


def test_another_base_model_is_evaluated_anew(own, tmp_path):
    shutil.copytree(own.base_model, tmp_path / "base")
    same = own.model_copy(update={"base_model": str(tmp_path / "base")})
    assert kept_evaluation(same, own.run_dir / "adapter") is not None
    scheduler = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + "\n")
    assert kept_evaluation(same, own.run_dir / "adapter") is None


@pytest.mark.parametrize("settings", [{"prompts": 5}, {"seed": 1}, {"steps": 4}, {"guidance": 2.0}, {"sets": ()}])
def test_other_settings_are_evaluated_anew(own, settings):
    assert kept_evaluation(with_settings(own, **settings), own.run_dir / "adapter") is None


@pytest.mark.parametrize("lost", ["examples/synonyms/001-adapter.png", RESULT])
def test_what_lacks_a_picture_is_evaluated_anew(own, lost):
    (own.run_dir / lost).unlink()
    assert kept_evaluation(own, own.run_dir / "adapter") is None


def test_a_result_of_another_version_is_evaluated_anew(own):
    (own.run_dir / RESULT).write_text('{"adapter": "x", "rows": [], "gaps": []}')
    assert kept_evaluation(own, own.run_dir / "adapter") is None


def test_a_stage_s_seconds_are_those_of_its_work(own):
    assert list(read_seconds(own.run_dir)) == ["evaluate"]
    note_seconds(own.run_dir, "train", 100.0)
    steps = iter([5, 5, 5, 9])
    with timed(own, "train", lambda: next(steps)):
        pass  # nothing to do: the seconds stay
    assert read_seconds(own.run_dir)["train"] == 100.0
    with pytest.raises(KeyboardInterrupt), timed(own, "train", lambda: next(steps)):
        raise KeyboardInterrupt  # stopped, but it got further
    assert 100.0 <= read_seconds(own.run_dir)["train"] < 110.0
    steps = iter([0, 9])
    with timed(own, "train", lambda: next(steps)):
        pass  # from the start
    assert read_seconds(own.run_dir)["train"] < 10.0
    assert list(read_seconds(own.run_dir)) == ["train", "evaluate"]
