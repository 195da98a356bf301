"""sur.data.quarantine and exclude: files of rows that were left out, one row a line whatever its texts hold."""

import logging

import pytest

from sur.data import Quarantined, read_quarantine, write_quarantine
from sur.data.exclude import read_exclude, write_exclude
from sur.support.errors import ConfigError

ROWS = [
    Quarantined(3, "metadata.jsonl:4", "text", "line one\u2028line two\x85\x0cthree", "löschen"),
    Quarantined(-1, "a\nb.png", "vae.sd15.512", 'mean is "nan"', "drop it"),
]


def test_what_is_written_is_read(tmp_path):
    write_quarantine(tmp_path / "quarantine.jsonl", ROWS)
    assert read_quarantine(tmp_path / "quarantine.jsonl") == ROWS
    assert (tmp_path / "quarantine.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert read_quarantine(tmp_path / "absent.jsonl") == []


def test_a_torn_line_is_passed_over_with_a_warning(tmp_path, caplog):
    write_quarantine(tmp_path / "quarantine.jsonl", ROWS)
    content = (tmp_path / "quarantine.jsonl").read_bytes()
    for stop in (len(content) - 5, len(content) - 20):
        (tmp_path / "quarantine.jsonl").write_bytes(content[:stop])
        with caplog.at_level(logging.WARNING, logger="sur"):
            assert read_quarantine(tmp_path / "quarantine.jsonl") == ROWS[:1]
        assert "quarantine.jsonl cannot be read" in caplog.text


def test_reasons_with_line_ends_of_any_kind_stay_in_their_line(tmp_path):
    rows = {"0" * 31 + "1": "says\u2028two\nlines", "0" * 31 + "2": "form\x0cfeed"}
    assert write_exclude(tmp_path / "out.txt", rows) == 2
    assert read_exclude(tmp_path / "out.txt") == {bytes.fromhex(row) for row in rows}
    assert write_exclude(tmp_path / "out.txt", {"0" * 31 + "3": "a"}) == 3


def test_a_list_of_ids_that_is_not_text_is_named(tmp_path):
    (tmp_path / "out.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"data.exclude is .*out.txt, which cannot be read \(not UTF-8"):
        read_exclude(tmp_path / "out.txt")
