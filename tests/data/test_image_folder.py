"""sur.data.image_folder: one row's path never ends the others, and images are found however they are named."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest
from photographs import picture, write_lines
from PIL import Image

from sur.config.data import DataConfig
from sur.data import ListRows, RowError, open_rows, scan
from sur.data.image_folder import SUFFIXES, ImageFolder
from sur.support.images import FORMATS


def folder_of(root: Path, **settings) -> ImageFolder:
    return ImageFolder(root, DataConfig(path=root, **settings))


def test_the_endings_are_those_of_the_formats_that_are_read():
    Image.init()
    endings = {ending for ending, form in Image.registered_extensions().items() if form in FORMATS}
    assert set(SUFFIXES) == endings | {".avif", ".avifs"}


@pytest.mark.parametrize(
    "name",
    [
        "x" * 251,
        "x" * 5000,
        "d/" * 2500 + "e",
        "é" * 130,
        "a\0b.png",
        "lone \udcff.png",
        "lone \ud800.png",
        "circle",
        "circle/a.png",
        "a.png/b.png",
        "C:/a.png",
        "file:///a.png",
        "https://example.org/a.png",
        ".",
        "..",
        "../..",
        "folder",
    ],
)
def test_a_path_that_cannot_be_used_spoils_only_its_row(tmp_path, name):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    rows = [{"text": "x", "prompt": "y", "file_name": name}, {"text": "z", "prompt": "y", "file_name": "a"}]
    source = ListRows(rows, root=tmp_path, image_column="file_name")
    records, (bad,) = scan(source, need_image=True)
    assert [record.image for record in records] == ["a.png"]
    assert bad.field == "file_name" and bad.position == 0 and len(bad.reason) < 12_000


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG])
def test_a_file_system_that_refuses_to_look_spoils_only_the_row(tmp_path, monkeypatch, code):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "locked").mkdir()
    real = os.stat

    def refusing(path, **options):
        if "locked" in os.fspath(path):
            raise OSError(code, os.strerror(code))
        return real(path, **options)

    rows = [{"text": str(n), "prompt": "y", "image": name} for n, name in enumerate(("locked/b.png", "a.png"))]
    source = ListRows(rows, root=tmp_path)
    monkeypatch.setattr(os, "stat", refusing)
    records, (bad,) = scan(source, need_image=True)
    assert len(records) == 1 and os.strerror(code) in bad.reason


@pytest.mark.parametrize("name", ["naïve façade.png", "日本語が.jpg", "Å ring.webp", "été/été.png"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_otherwise_on_the_disk(tmp_path, name, forms):
    written, stored = (unicodedata.normalize(form, name) for form in forms)
    if written == stored:
        written = stored.replace("本", "本")
    (tmp_path / stored).parent.mkdir(exist_ok=True)
    (tmp_path / stored).write_bytes(b"x")
    images = folder_of(tmp_path)
    assert images.ref(written) == stored
    assert images.ref(written.rpartition(".")[0]) == stored
    assert images.read(images.ref(written)) == b"x"


def test_of_two_compositions_the_written_one_is_taken_and_a_third_is_ambiguous(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é.png")).write_bytes(b"x")
    images = folder_of(tmp_path)
    for form in ("NFC", "NFD"):
        assert images.ref(unicodedata.normalize(form, "é.png")) == unicodedata.normalize(form, "é.png")
    with pytest.raises(RowError, match="could be any of"):
        images.ref("é")


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JFIF", ".Png", ".avif", ".pgm"])
def test_every_ending_of_a_format_completes_a_name(tmp_path, ending):
    (tmp_path / f"a cat, 8k. f{ending}").write_bytes(b"x")
    (tmp_path / "a cat, 8k. f.txt").write_text("a caption beside it")
    assert folder_of(tmp_path).ref("a cat, 8k. f") == f"a cat, 8k. f{ending}"


def test_a_format_that_is_not_read_is_named(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(RowError, match=r"there is no image 'a' .*; a\.heic is of no format that is read"):
        folder_of(tmp_path).ref("a")


def test_absolute_and_parent_paths_inside_the_root_are_taken(tmp_path):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(picture())
    (tmp_path / "outside.png").write_bytes(picture())
    (tmp_path / "link").symlink_to(tmp_path / "data")
    root, inside = tmp_path / "data", "images/a.png"
    for path in (root, tmp_path / "link"):
        for given in (root / inside, tmp_path / "link" / inside, root / "images" / "a"):
            assert folder_of(path).ref(str(given)) == inside
    assert folder_of(root).ref("../images/a.png", base="train") == inside
    for outside in (
        tmp_path / "outside.png",
        root / ".." / "outside.png",
        "../outside.png",
        "images/../../outside.png",
    ):
        with pytest.raises(RowError, match=r"leaves the data root .*move the image under the data root"):
            folder_of(root).ref(str(outside))


def test_a_name_may_hold_colons(tmp_path):
    (tmp_path / "portrait:: 8k, a: b.png").write_bytes(b"x")
    assert folder_of(tmp_path).ref("portrait:: 8k, a: b") == "portrait:: 8k, a: b.png"


def test_a_completed_name_is_no_way_out_of_the_root(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(RowError, match="is a link out of the data root"):
        folder_of(tmp_path / "data").ref("a")
    assert folder_of(tmp_path / "data", allow_outside_links=True).ref("a") == "a.png"


def test_a_million_names_are_not_looked_for_one_by_one(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(b"")
    images, real, looks = folder_of(tmp_path), os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda path: looks.append(path) or real(path))
    assert [images.ref(str(number)) for number in range(300)] == [f"{number}.png" for number in range(300)]
    assert len(looks) == 1


def test_rows_files_in_folders_name_their_own_images(tmp_path):
    write_lines(tmp_path / "train" / "metadata.jsonl", [{"file_name": "a", "text": "x", "prompt": "y"}])
    (tmp_path / "train" / "a.jpe").write_bytes(picture(form="JPEG"))
    records, _ = scan(open_rows(DataConfig(path=tmp_path)), need_image=True)
    assert [record.image for record in records] == ["train/a.jpe"]
