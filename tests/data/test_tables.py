"""sur.data.tables: one bad cell spoils one row, and no file is taken for an image in a cell."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import picture
from PIL import Image

from sur.config.data import DataConfig
from sur.data import ListRows, open_rows, scan
from sur.support.images import decode


def strings(*cells: bytes) -> pa.Array:
    """A column of strings from bytes, as a writer makes it that does not check its encoding."""
    offsets = np.cumsum([0, *map(len, cells)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(cells))]
    return pa.StringArray.from_buffers(len(cells), *buffers[1:])


def save(table: pa.Table, folder, kind: str) -> None:
    if kind == "parquet":
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / "rows.parquet", row_group_size=3)
        return
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(folder)


BOTH = pytest.mark.parametrize("kind", ["parquet", "hf"])


@BOTH
@pytest.mark.parametrize("column", ["text", "prompt"])
def test_a_cell_of_another_encoding_spoils_one_row(tmp_path, kind, column):
    cells = [b"a", b"b", "é".encode("latin-1"), b"d", b"\xff\xfe", "ü".encode()]
    plain = strings(*[b"x%d" % n for n in range(6)])
    table = pa.table({"text": plain, "prompt": plain, column: strings(*cells)})
    save(table.select(["text", "prompt"]), tmp_path / "rows", kind)
    records, quarantined = scan(open_rows(DataConfig(path=tmp_path / "rows")), need_image=False)
    assert [getattr(r, "simple" if column == "text" else "complex") for r in records] == ["a", "b", "d", "ü"]
    assert [(row.position, row.field) for row in quarantined] == [(2, column), (4, column)]
    assert all("not UTF-8" in row.reason for row in quarantined)


@BOTH
def test_a_missing_column_is_told_with_all_columns_of_the_file(tmp_path, kind):
    save(pa.table({"caption": ["a"], "tags": ["b"], "width": [3]}), tmp_path / "rows", kind)
    _, (row,) = scan(open_rows(DataConfig(path=tmp_path / "rows")), need_image=False)
    assert (row.field, row.reason) == ("text", "missing column (there are: caption, tags, width)")


@pytest.mark.parametrize("name", ["#1.png", "#1", "#0", "rows.parquet#0", "a#1", "#"])
@pytest.mark.parametrize("kind", ["parquet", "hf", "memory"])
def test_a_file_may_be_called_like_an_image_in_a_cell(tmp_path, kind, name):
    folder = tmp_path / "rows"
    table = pa.table({"text": ["a", "b"], "prompt": ["A", "B"], "file_name": [name, "plain.png"]})
    if kind == "memory":
        folder.mkdir()
        source = ListRows(table.to_pylist(), root=folder, image_column="file_name")
    else:
        save(table, folder, kind)
        source = open_rows(DataConfig(path=folder))
    (folder / name).write_bytes(picture(1))
    (folder / "plain.png").write_bytes(picture(2))
    records, quarantined = scan(source, need_image=True)
    assert not quarantined and [source.image_bytes(row.image) for row in records] == [picture(1), picture(2)]


@BOTH
def test_embedded_images_are_those_of_their_rows_beside_bad_cells(tmp_path, kind):
    images = [picture(seed) for seed in range(5)]
    table = pa.table({"text": strings(b"a", b"b", b"\xe9", b"d", b"e"), "prompt": list("ABCDE"), "image": images})
    save(table, tmp_path / "rows", kind)
    source = open_rows(DataConfig(path=tmp_path / "rows", image_column="image"))
    records, _ = scan(source, need_image=True)
    assert [source.image_bytes(row.image) for row in records[::-1]] == [images[n] for n in (4, 3, 1, 0)]


def test_a_group_of_rows_that_is_damaged_leaves_the_others(tmp_path):
    words = [f"t{n}" + np.random.default_rng(n).bytes(400).hex() for n in range(9)]
    table = pa.table({"text": words, "prompt": ["x"] * 9})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=3, use_dictionary=False, write_page_checksum=True)
    column = pq.read_metadata(tmp_path / "rows.parquet").row_group(1).column(0)
    end = column.data_page_offset + column.total_compressed_size
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    data[end - 100] ^= 1
    (tmp_path / "rows.parquet").write_bytes(data)
    records, (bad,) = scan(open_rows(DataConfig(path=tmp_path)), need_image=False)
    assert [record.simple[:2] for record in records] == ["t0", "t1", "t2", "t6", "t7", "t8"]
    assert bad.location == "rows.parquet#3" and "its 3 rows from 3 on are not readable as Parquet" in bad.reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I", "I;16"])
def test_pil_images_of_every_mode_are_rows(mode):
    rows = [{"text": "a", "prompt": "b", "image": Image.new(mode, (6, 4))}]
    source = ListRows(rows)
    (record,), quarantined = scan(source, need_image=True)
    assert not quarantined and decode(source.image_bytes(record.image)).size == (6, 4)


def test_pil_images_that_cannot_be_written_spoil_only_their_rows(tmp_path):
    (tmp_path / "a.png").write_bytes(picture()[:60])
    cut, closed, good = Image.open(tmp_path / "a.png"), Image.new("RGB", (4, 4)), Image.new("RGB", (5, 5))
    closed.close()
    rows = [{"text": str(n), "prompt": "b", "image": image} for n, image in enumerate((cut, closed, good))]
    records, quarantined = scan(ListRows(rows), need_image=True)
    assert [record.simple for record in records] == ["2"] and [row.position for row in quarantined] == [0, 1]
    cut.close()
