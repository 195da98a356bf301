"""sur.data.text_files: no row is swallowed by its neighbour, whatever program wrote the file."""

from __future__ import annotations

import errno

import pytest
from photographs import picture, write_lines

from sur.config.data import DataConfig
from sur.data import open_rows, scan, text_files


def read(path, **settings):
    records, quarantined = scan(open_rows(DataConfig(path=path, **settings)), need_image=False)
    return [record.simple for record in records], [(row.location, row.field, row.reason) for row in quarantined]


HEADER = "text,prompt,file_name\n"


@pytest.mark.parametrize(
    ("lines", "good", "bad"),
    [
        (['"a,A,', "b,B,", "c,C,", "d,D,"], "bcd", [2]),  # never closed
        (["a,A,", '"b,B,', "c,C,", '"d,D,', "e,E,"], "ace", [3, 5]),  # the second closes the first
        (["a,A,", '"b,B,', "c,C,", 'd,"D, D",', "e,E,"], "acde", [3]),  # closed in the middle of a later cell
        (["a,A,", '"b,B,', "c,C,", 'd,D,"', "e,E,"], "ace", [3, 5]),  # closed at the end of a later row
        (["a,A,", 'b,"B,', "c,C,", "d,D,"], "acd", [3]),
        (["a,A,", 'b,"B "quoted" C",', "c,C,"], "ac", [3]),
        (["a,A,", 'b 6" long,B,', "c,C,"], ["a", 'b 6" long', "c"], []),
        (["a,A,", '"b\nb2\nb3",B,', "c,C,"], ["a", "b\nb2\nb3", "c"], []),
        (["a,A,", '"b ""b2""",B,', "", "c,C,"], ["a", 'b "b2"', "c"], []),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_not_closed_spoils_only_its_row(tmp_path, lines, good, bad, end):
    (tmp_path / "rows.csv").write_bytes((HEADER + "".join(line + "\n" for line in lines)).replace("\n", end).encode())
    texts, left = read(tmp_path)
    assert [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts] == list(good)
    assert [location for location, _, _ in left] == [f"rows.csv:{line}" for line in bad]
    assert all(field == "line" and "not CSV" in reason for _, field, reason in left)


def test_many_open_quotes_cost_no_more_than_their_rows(tmp_path):
    rows = [f'"{n},x,\n' if n % 3 == 0 else f"{n},{n},\n" for n in range(9000)]
    (tmp_path / "rows.csv").write_text(HEADER + "".join(rows))
    texts, left = read(tmp_path)
    assert len(texts) == 6000 and len(left) == 3000


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_csv_of_every_office_program_is_read(tmp_path, delimiter, encoding):
    cells = [["file_name", " text", "prompt "], ["bild", "ein Kätzchen, klein", "cat; 8k|tab\there"], ["", "b", "c"]]
    lines = [delimiter.join(f'"{cell}"' if number else cell for cell in row) for number, row in enumerate(cells)]
    (tmp_path / "rows.csv").write_bytes("\r\n".join(lines).encode(encoding))
    (tmp_path / "bild.png").write_bytes(picture())
    assert read(tmp_path) == (["ein Kätzchen, klein", "b"], [])


def test_a_semicolon_in_a_header_cell_does_not_change_the_delimiter(tmp_path):
    (tmp_path / "rows.csv").write_text("text,prompt,note; a; b; c; d\nx,y,z\n")
    assert read(tmp_path) == (["x"], [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_lines_in_wide_characters_are_read(tmp_path, encoding):
    text = '{"text": "naïve\u2028line", "prompt": "b"}\nbroken\n{"text": "c", "prompt": "d"}\n'
    (tmp_path / "rows.jsonl").write_bytes(text.encode(encoding))
    texts, left = read(tmp_path)
    assert texts == ["naïve\u2028line", "c"] and [location for location, _, _ in left] == ["rows.jsonl:2"]


def test_a_column_that_the_header_has_twice_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,prompt,text\na,b,c\n")
    assert read(tmp_path) == ([], [("rows.csv:1", "line", "the header has 'text' more than once")])


def test_a_file_that_ends_in_the_middle_of_a_character_keeps_its_first_rows(tmp_path):
    (tmp_path / "rows.csv").write_bytes((HEADER + "a,A,\n" + "b,B,\n").encode("utf-16") + b"x")
    texts, ((_, field, reason),) = read(tmp_path)
    assert texts in (["a"], ["a", "b"]) or texts == []
    assert field == "file" and "not readable behind line" in reason


def test_a_disk_that_fails_in_the_middle_keeps_the_other_files(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name, "prompt": "x"}])
    real = text_files._json_records

    def failing(file):
        yield from real(file)
        if file.name == "b.jsonl":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(text_files, "_json_records", failing)
    texts, left = read(tmp_path)
    assert texts == ["a", "b", "c"]
    assert left == [("b.jsonl:2", "file", "not readable behind line 1 (Input/output error)")]


def test_a_folder_in_the_place_of_a_file_is_one_bad_row(tmp_path):
    (tmp_path / "metadata.jsonl").mkdir()
    texts, ((location, field, reason),) = read(tmp_path)
    assert texts == [] and (location, field) == ("metadata.jsonl:1", "file") and "Is a directory" in reason


INVISIBLE = [
    "\u200b",
    "\ufeff\u200b\u200d",
    "\u2060 \u00ad",
    "\u3164",
    "\u2800\u2800",
    "\u202e\u202c",
    "\u0301",
    "\x07",
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_prompt_that_shows_nothing_is_empty(tmp_path, text):
    rows = [{"text": text, "prompt": "x"}, {"text": "a", "prompt": text}, {"text": "b\u200b", "prompt": f"c{text}"}]
    write_lines(tmp_path / "rows.jsonl", rows)
    texts, left = read(tmp_path)
    assert texts == ["b\u200b"]
    assert [field for _, field, _ in left] == ["text", "prompt"]
    assert all(reason == "empty prompt: its characters are all invisible" for _, _, reason in left)
    records, _ = scan(open_rows(DataConfig(path=tmp_path, allow_unpaired=True)), need_image=False)
    assert [record.complex for record in records] == ["", f"c{text}".strip()]


@pytest.mark.parametrize("text", ["猫", "🐈", "ﷺ", "-", "7", "ⅷ", "\ue000"])
def test_whatever_shows_something_is_a_prompt(tmp_path, text):
    write_lines(tmp_path / "rows.jsonl", [{"text": text, "prompt": text}])
    assert read(tmp_path) == ([text], [])
