"""Curves and trackers: always a file, TensorBoard where it is installed, others by name, nothing secret."""

import json
import subprocess
import sys

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from sur.training.tracking.curves import Curves, flat, read_curves, start_trackers

INSTALLED = [str(name) for name in get_available_trackers()]


def test_curves_are_cut_back_to_the_step_that_a_run_goes_on_from(tmp_path):
    path = tmp_path / "curves.jsonl"
    for first, last in ((1, 5), (3, 4)):
        with Curves(path, first - 1, Accelerator(cpu=True)) as curves:
            for step in range(first, last + 1):
                curves.write({"step": step, "train": {"a": float(last)}})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["step"], record["train"]["a"]) for record in found] == [(1, 5), (2, 5), (3, 4), (4, 4)]


def written(path, steps: int, first: int = 1) -> None:
    with Curves(path, first - 1, Accelerator(cpu=True)) as curves:
        for step in range(first, steps + 1):
            curves.write({"step": step, "learning_rate": 1e-3, "train": {"a": {"b": float(step)}, "c": 1.5}})


def test_a_last_line_cut_at_any_place_ends_no_resume(tmp_path):
    path = tmp_path / "curves.jsonl"
    written(path, 3)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place])
        assert [record["step"] for record in read_curves(path)] == ([1, 2, 3] if place == len(whole) - 1 else [1, 2])
        written(path, 3, first=3)
        assert path.read_bytes() == whole, place


@pytest.mark.parametrize("line", ["{", "[1]", "null", '{"train": {}}', '{"step": "2"}', "\0\0\0", "[" * 9999, "\u2028"])
def test_a_line_that_is_no_record_is_left_out_with_a_warning(tmp_path, caplog, line):
    path = tmp_path / "curves.jsonl"
    written(path, 2)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n", encoding="utf-8")
    assert [record["step"] for record in read_curves(path)] == [1, 2]
    assert [message for message in caplog.messages if f"line 2 of {path} is no record" in message]
    written(path, 3, first=3)
    assert [record["step"] for record in read_curves(path)] == [1, 2, 3]


def test_trackers_are_told_numbers_by_flat_names():
    record = {"step": 3, "learning_rate": 0.1, "train": {"alignment": 1.0}, "validation": {"alignment": 2.0}}
    assert flat(record) == {"learning_rate": 0.1, "train/alignment": 1.0, "validation/alignment": 2.0}


def test_a_tracker_that_is_unknown_or_not_installed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="accelerate knows no tracker 'tensorbord', only .*tensorboard"):
        start_trackers(Accelerator(cpu=True), ["tensorbord"], tmp_path, {}, 0)
    absent = next(name for name in LOGGER_TYPE_TO_CLASS if name not in INSTALLED)
    with pytest.raises(ValueError, match=f"train.trackers names {absent}, which is not installed"):
        start_trackers(Accelerator(cpu=True), [absent], tmp_path, {}, 0)


@pytest.mark.skipif("tensorboard" in INSTALLED, reason="TensorBoard is installed")
def test_without_tensorboard_the_default_says_nothing_and_tracks_nothing(tmp_path, caplog):
    accelerator = Accelerator(cpu=True)
    start_trackers(accelerator, None, tmp_path, {"train": {"steps": 3}}, 0)
    assert accelerator.trackers == [] and caplog.text == "" and list(tmp_path.iterdir()) == []


class Listening(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "listening"
    requires_logging_directory = False
    tracker = None

    def __init__(self):
        super().__init__()
        self.settings, self.logged, self.finished = {}, [], False

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step, **_options):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_a_tracker_hears_every_record_and_the_end(tmp_path):
    accelerator, listening = Accelerator(cpu=True), Listening()
    accelerator.trackers = [listening]
    with Curves(tmp_path / "curves.jsonl", 0, accelerator) as curves:
        curves.write({"step": 1, "train": {"a": 0.5}})
    assert listening.logged == [(1, {"train/a": 0.5})] and listening.finished


@pytest.mark.slow
@pytest.mark.skipif("tensorboard" not in INSTALLED, reason="the extra `tensorboard` is not installed")
def test_tensorboard_has_the_curves_and_hides_what_a_resumed_run_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # pyright: ignore

    secret = "s3://user:password@bucket"
    program = f"""
import sys
from pathlib import Path
from accelerate import Accelerator
from sur.training.tracking.curves import Curves, start_trackers
folder = Path(sys.argv[1])
for first, last in ((1, 5), (3, 6)):
    accelerator = Accelerator(cpu=True)
    settings = {{"train": {{"steps": 6, "trackers": None, "sample_prompts": ["{secret}"]}}}}
    start_trackers(accelerator, None, folder / "trackers", settings, first - 1)
    with Curves(folder / "curves.jsonl", first - 1, accelerator) as curves:
        for step in range(first, last + 1):
            curves.write({{"step": step, "train": {{"alignment": float(last)}}}})
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "arning" not in done.stderr, done.stderr
    events = EventAccumulator(str(tmp_path / "trackers" / "sur-adapter")).Reload().Scalars("train/alignment")
    assert [(event.step, event.value) for event in events] == [(1, 5), (2, 5), (3, 6), (4, 6), (5, 6), (6, 6)]
    for path in (tmp_path / "trackers").rglob("*"):
        assert path.is_dir() or b"password" not in path.read_bytes()
