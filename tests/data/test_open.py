"""sur.data.open: every setting of a source has its effect or is refused, and a place that cannot be read is named."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from photographs import write_lines

from sur.config.data import DataConfig
from sur.data import ListRows, Row, detect_format, open_rows
from sur.support.errors import ConfigError, NotFound


def texts(path: Path, **settings) -> list[str]:
    return [row.simple for row in open_rows(DataConfig(path=path, **settings)) if isinstance(row, Row)]


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".csv":
        file.write_text(f"text,prompt\n{text},x\n")
    elif file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": [text], "prompt": ["x"]}), file)
    else:
        write_lines(file, [{"text": text, "prompt": "x"}])


LAYOUTS = {
    "folders": ("train/metadata.jsonl", "test/metadata.jsonl", "validation/metadata.jsonl"),
    "files": ("train.csv", "test.csv", "validation.csv"),
    "numbered": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "validation_1.parquet"),
    "numbered in a folder": ("data/train-00000-of-00001.parquet", "data/test.a.parquet", "data/validation.parquet"),
    "files beside folders": ("train.jsonl", "test/rows.jsonl", "validation/0.jsonl"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_is_read_alone(tmp_path, layout):
    for name in LAYOUTS[layout]:
        put(tmp_path / name, next(part for part in ("train", "test", "validation") if part in name))
    for part in ("train", "test", "validation"):
        assert texts(tmp_path, split=part) == [part]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path, layout):
    for name in LAYOUTS[layout]:
        put(tmp_path / name, "x")
    with pytest.raises(NotFound, match="data.split is 'tra', but .* has no such part") as caught:
        texts(tmp_path, split="tra")
    assert all(name in str(caught.value) for name in LAYOUTS[layout])


def test_a_split_of_one_file_is_its_name_or_refused(tmp_path):
    put(tmp_path / "train.jsonl", "a")
    assert texts(tmp_path / "train.jsonl", split="train") == ["a"]
    with pytest.raises(NotFound, match="leave it out to read all"):
        texts(tmp_path / "train.jsonl", split="test")


def test_a_split_of_a_single_dataset_is_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["a"], "prompt": ["b"]}).save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match=r"data.split: it is 'train', but .* is one dataset .*; leave it out"):
        texts(tmp_path / "one", split="train")


def test_rows_from_memory_refuse_settings_that_would_do_nothing():
    for setting in ({"split": "train"}, {"format": "csv"}):
        with pytest.raises(ConfigError, match="neither split nor format"):
            ListRows([{"text": "a"}], **setting)


def test_held_out_parts_that_are_read_too_are_named(tmp_path, caplog):
    for name in LAYOUTS["folders"]:
        put(tmp_path / name, "x")
    with caplog.at_level(logging.WARNING, logger="sur"):
        assert len(texts(tmp_path)) == 3
        assert "test/metadata.jsonl, validation/metadata.jsonl is read too" in caplog.text
        caplog.clear()
        texts(tmp_path, split="train")
        put(tmp_path / "other" / "a.csv", "x")
        texts(tmp_path / "other")
    assert caplog.text == ""


def test_the_format_that_is_asked_for_is_the_one_that_is_read(tmp_path):
    (tmp_path / "rows.txt").write_text("text,prompt\na,b\n")
    assert texts(tmp_path / "rows.txt", format="csv") == ["a"]
    write_lines(tmp_path / "rows.dat", [{"text": "c", "prompt": "d"}])
    assert texts(tmp_path / "rows.dat", format="jsonl") == ["c"]


@pytest.mark.parametrize(("name", "kind"), [("ROWS.CSV", "csv"), ("Rows.JsonL", "jsonl"), ("METADATA.JSONL", "surd")])
def test_upper_case_endings_are_endings(tmp_path, name, kind):
    put(tmp_path / name.lower(), "a")
    (tmp_path / name.lower()).rename(tmp_path / name)
    assert detect_format(tmp_path) == kind and texts(tmp_path) == ["a"]
    assert texts(tmp_path / name) == ["a"]


@pytest.mark.parametrize("path", ["x" * 300, "a\0b", "~nobody-of-this-name/rows"])
def test_a_path_that_cannot_be_looked_at_is_one_line(path):
    with pytest.raises((ConfigError, NotFound)) as caught:
        open_rows(DataConfig(path=Path(path)))
    assert "data.path is" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    put(tmp_path / "train" / "metadata.jsonl", "a")
    real = Path.iterdir

    def refusing(path):
        if path.name == "train":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(ConfigError, match=r"train cannot be read \(Permission denied\)"):
        open_rows(DataConfig(path=tmp_path))
