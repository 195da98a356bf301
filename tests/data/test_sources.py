"""Rows of every kind of source: good ones come through, bad ones with position, field, reason and remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from photographs import FAULTS, PHOTOS, picture, write_lines
from photographs import surd as surd
from PIL import Image

from sur.cache import row_id
from sur.config.data import DataConfig
from sur.data import ListRows, Quarantined, Row, detect_format, open_rows, scan, write_quarantine
from sur.support.errors import RowError
from sur.support.images import decode


def reasons(quarantined: list[Quarantined]) -> dict[int, tuple[str, str]]:
    for each in quarantined:
        assert each.position >= 0 and each.location and each.field and each.reason and each.remedy
    return {each.position: (each.field, each.reason) for each in quarantined}


def test_surd_with_real_photographs_keeps_the_good_and_explains_the_bad(surd):
    source = open_rows(DataConfig(path=surd))
    records, quarantined = scan(source, need_image=True)
    assert [(r.simple, r.complex) for r in records] == list(PHOTOS.values())
    assert [r.image for r in records] == list(PHOTOS)
    for record in records:
        content = source.image_bytes(record.image)
        assert record.id == row_id(record.simple, record.complex, content)
        assert decode(content).mode == "RGB"
    found = reasons(quarantined)
    for position, part in enumerate(FAULTS.values(), start=4):
        field, reason = found.pop(position)
        assert field == "file_name" and part in reason
    assert {position - 13: field for position, (field, _) in found.items()} == {
        0: "duplicate",
        1: "text",
        2: "prompt",
        3: "text",
        4: "text",
        5: "line",
        6: "line",
        7: "text",
        8: "text",
    }
    assert found[13][1] == "same prompts and image as metadata.jsonl:1"
    assert "missing column (there are: file_name, prompt)" in found[16][1]
    assert "expected a string, got int '17'" in found[17][1]
    assert quarantined[0].location == "metadata.jsonl:5"


def test_authors_sample_layout_has_the_rows_one_folder_down(tmp_path):
    write_lines(tmp_path / "train" / "metadata.jsonl", [{"file_name": "a", "text": "simple", "prompt": "complex"}])
    (tmp_path / "train" / "a.png").write_bytes(picture())
    (row,) = list(open_rows(DataConfig(path=tmp_path)))
    assert row == Row("simple", "complex", "train/a.png", 0, "train/metadata.jsonl:1")


def test_rows_without_image_are_fine_unless_one_is_needed(tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"text": "a", "prompt": "b"}, {"text": "c", "prompt": "d", "file_name": ""}])
    source = open_rows(DataConfig(path=tmp_path / "rows.jsonl"))
    records, quarantined = scan(source, need_image=False)
    assert [record.image for record in records] == ["", ""] and not quarantined
    assert records[0].id == row_id("a", "b", None)
    records, quarantined = scan(source, need_image=True)
    assert not records and len(reasons(quarantined)) == 2


def test_images_can_be_left_out_altogether(tmp_path):
    write_lines(tmp_path / "metadata.jsonl", [{"text": "a", "prompt": "b", "file_name": "gone.png"}])
    assert len(scan(open_rows(DataConfig(path=tmp_path)), need_image=False)[1]) == 1
    assert len(scan(open_rows(DataConfig(path=tmp_path, image_column=None)), need_image=False)[0]) == 1


def test_unpaired_prompts_are_kept_only_when_allowed(tmp_path):
    write_lines(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b", "prompt": ""}, {"text": "c", "prompt": "d"}])
    strict, allowed = (DataConfig(path=tmp_path / "rows.jsonl", allow_unpaired=each) for each in (False, True))
    records, quarantined = scan(open_rows(strict), need_image=False)
    assert [r.simple for r in records] == ["c"] and "allow_unpaired" in quarantined[1].remedy
    assert [r.complex for r in scan(open_rows(allowed), need_image=False)[0]] == ["", "", "d"]
    records, quarantined = scan(open_rows(allowed), need_image=True)  # unpaired rows need none
    assert [r.complex for r in records] == ["", ""] and sorted(reasons(quarantined)) == [2]
    none = DataConfig(path=tmp_path / "rows.jsonl", complex_column=None)
    assert [r.complex for r in scan(open_rows(none), need_image=False)[0]] == ["", "", ""]


def test_csv(tmp_path):
    content = 'text,prompt,file_name\nplain,"with, comma",a\n"two\nlines",x,\nshort\nlong,1,2,3\nb\xe9d,x,\n'
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + content.encode("latin-1"))
    (tmp_path / "a.jpg").write_bytes(picture(form="JPEG"))
    records, quarantined = scan(open_rows(DataConfig(path=tmp_path)), need_image=False)
    assert [(r.simple, r.complex, r.image) for r in records] == [
        ("plain", "with, comma", "a.jpg"),
        ("two\nlines", "x", ""),
    ]
    found = reasons(quarantined)
    assert found[2] == ("prompt", "empty prompt") and "more cells" in found[3][1]
    assert "not valid Unicode" in found[4][1]


@pytest.fixture(params=["path", "bytes", "struct"])
def parquet(request, tmp_path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [picture(seed) for seed in range(5)]
    for i, image in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(image)
    cells = {
        "path": [f"{i}.png" for i in range(5)],
        "bytes": images,
        "struct": [{"bytes": image, "path": None} for image in images],
    }[request.param]
    table = {"text": ["a", "b", "c", None, "e"], "prompt": list("ABCDE"), "image": cells, "other": [1.0] * 5}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet", row_group_size=2)
    return tmp_path


def test_parquet_with_paths_or_embedded_images(parquet):
    source = open_rows(DataConfig(path=parquet, image_column="image"))
    records, quarantined = scan(source, need_image=True)
    assert [r.simple for r in records] == ["a", "b", "c", "e"]
    assert reasons(quarantined) == {3: ("text", "empty prompt")}
    assert quarantined[0].location == "rows.parquet#3"
    for seed in (4, 0, 2, 1):  # any order, across row groups
        record = next(r for r in records if r.simple == "abcde"[seed])
        assert source.image_bytes(record.image) == picture(seed)
        assert record.id == row_id(record.simple, record.complex, picture(seed))


def test_damaged_parquet_file_is_one_quarantined_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "prompt": ["b"]}), tmp_path / "b.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing more PAR1")
    records, quarantined = scan(open_rows(DataConfig(path=tmp_path)), need_image=False)
    assert [r.simple for r in records] == ["a"] and "not readable as Parquet" in quarantined[0].reason


def test_huggingface_dataset_on_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": picture(seed), "path": None} for seed in range(3)]
    columns = {"text": ["a", "", "c"], "prompt": ["A", "B", "C"], "image": images}
    features = datasets.Features(
        {"text": datasets.Value("string"), "prompt": datasets.Value("string"), "image": datasets.Image()}
    )
    data = datasets.Dataset.from_dict(columns, features=features)
    datasets.disable_progress_bars()
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "two")
    source = open_rows(DataConfig(path=tmp_path / "one", image_column="image"))
    records, quarantined = scan(source, need_image=True)
    assert [(r.simple, r.image) for r in records] == [("a", "#0"), ("c", "#2")]
    assert reasons(quarantined) == {1: ("text", "empty prompt")}
    assert source.image_bytes("#2") == picture(2)
    test = open_rows(DataConfig(path=tmp_path / "two", image_column="image", split="test"))
    assert len(list(test)) == 1
    with pytest.raises(ValueError, match=r"splits \['test', 'train'\]"):
        list(open_rows(DataConfig(path=tmp_path / "two")))


def test_plain_python_rows(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    rows = [
        {"text": "bytes", "prompt": "x", "image": picture(1)},
        {"text": "pil", "prompt": "x", "image": Image.new("RGB", (4, 4))},
        {"text": "path", "prompt": "x", "image": Path("a.png")},
        {"text": "out", "prompt": "x", "image": "../a.png"},
        {"text": "none", "prompt": "x"},
        {"text": "bad", "prompt": "x", "image": b"junk"},
        "no mapping",
    ]
    source = ListRows(rows, root=tmp_path)  # pyright: ignore[reportArgumentType]
    records, quarantined = scan(source, need_image=False)
    assert [r.simple for r in records] == ["bytes", "pil", "path", "none"]
    assert sorted(reasons(quarantined)) == [3, 5, 6]
    assert ListRows([{"q": "a", "c": "b"}], simple_column="q", complex_column="c").config.simple_column == "q"


def test_same_source_gives_the_same_ids_wherever_it_lies(surd, tmp_path):
    moved = surd.rename(tmp_path / "moved")
    first = scan(open_rows(DataConfig(path=moved)), need_image=True)[0]
    again = scan(open_rows(DataConfig(path=moved / "metadata.jsonl")), need_image=False)[0]
    assert [r.id for r in first] == [r.id for r in again]


def test_prompts_lose_outer_blanks_only():
    (row,) = list(ListRows([{"text": "  a  b\n", "prompt": "\tc"}]))
    assert isinstance(row, Row) and (row.simple, row.complex) == ("a  b", "c")


def test_limit_counts_rows_read():
    rows = [{"text": "a", "prompt": "b"}, {"text": "", "prompt": "b"}, {"text": "c", "prompt": "b"}]
    assert len(list(ListRows(rows, limit=2))) == 2


def test_header_check_skips_decoding(surd):
    source = open_rows(DataConfig(path=surd, check_images="header"))
    records, quarantined = scan(source, need_image=True)
    assert len(records) == 5  # the truncated one passes here and is found by the encoder
    assert "60000 x 50000" in reasons(quarantined)[5][1] or "pixels" in reasons(quarantined)[5][1]


def test_limits_of_bytes_and_pixels_come_from_the_config(surd):
    small = DataConfig(path=surd, max_image_pixels=451 * 300)
    assert [r.image for r in scan(open_rows(small), need_image=True)[0]] == ["chelsea.png"]
    light = DataConfig(path=surd, max_image_bytes=130_000)
    assert [r.image for r in scan(open_rows(light), need_image=True)[0]] == ["rocket.jpg"]


def test_image_bytes_never_leave_the_data_root(surd):
    source = open_rows(DataConfig(path=surd))
    for ref in ("../secret.png", "/etc/hostname", "link.png", "a/../../secret.png", "bad\0name"):
        with pytest.raises(RowError):
            source.image_bytes(ref)
    trusting = open_rows(DataConfig(path=surd, allow_outside_links=True))
    assert trusting.image_bytes("link.png") == picture()


def test_report_is_one_json_object_a_line(surd, tmp_path):
    _, quarantined = scan(open_rows(DataConfig(path=surd)), need_image=True)
    write_quarantine(tmp_path / "run" / "quarantine.jsonl", quarantined)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["quarantine.jsonl"]
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(quarantined) == 18
    assert set(json.loads(lines[0])) == {"position", "location", "field", "reason", "remedy"}


def test_formats_are_detected_and_unknown_ones_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_rows(DataConfig(path=tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="set data.format"):
        detect_format(tmp_path)
    (tmp_path / "x.csv").write_text("text,prompt\n")
    assert detect_format(tmp_path) == "csv"
    with pytest.raises(FileNotFoundError, match="holds no \\*.parquet"):
        open_rows(DataConfig(path=tmp_path, format="parquet"))


def test_a_name_too_long_and_a_number_too_long_spoil_only_their_rows(tmp_path):
    lines = [{"file_name": "a caption in the wrong column " * 20, "text": "a", "prompt": "b"}]
    write_lines(tmp_path / "metadata.jsonl", [*lines, '{"text": ' + "9" * 5000 + "}", {"text": "c", "prompt": "d"}])
    records, quarantined = scan(open_rows(DataConfig(path=tmp_path)), need_image=False)
    assert [record.simple for record in records] == ["c"]
    assert "is not a path" in quarantined[0].reason and quarantined[1].field == "line"


def test_a_rows_file_may_be_a_link_as_in_the_hubs_cache(tmp_path):
    write_lines(tmp_path / "blobs" / "0123", [{"text": "a", "prompt": "b"}])
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "metadata.jsonl").symlink_to(tmp_path / "blobs" / "0123")
    (row,) = list(open_rows(DataConfig(path=tmp_path / "snapshot")))
    assert isinstance(row, Row)
    assert (row.simple, row.location) == ("a", "metadata.jsonl:1")
