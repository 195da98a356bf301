"""sur.support.ending and errors: what a command says and returns when an error ends it."""

import errno
import os

import pytest

from sur.cache import CacheError
from sur.support.ending import told
from sur.support.errors import ConfigError, shown_message
from sur.support.files import replacing, replacing_folder, write_text
from sur.support.signals import Stopped
from sur.support.tensor_files import disk_errors, save_tensors


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"), (errno.EDQUOT, "quota"), (errno.EROFS, "mount it writable"),
        (errno.EIO, "check the disk"), (errno.EFBIG, "ulimit -f"), (errno.EACCES, "the right"),
        (errno.EISDIR, "rename one of them"), (errno.ENAMETOOLONG, "shorter name"), (errno.EMFILE, "ulimit -n"),
    ],
)  # fmt: skip
def test_a_disk_s_error_is_one_line_with_place_reason_and_remedy(tmp_path, capsys, number, remedy):
    with pytest.raises(OSError) as raised, replacing(tmp_path / "target") as partial:
        partial.write_text("half")
        raise OSError(number, os.strerror(number))  # as `write` does, which names no file
    assert told(raised.value) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'target'}: {os.strerror(number)}; ") and remedy in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "refused"), OSError("odd"), ValueError("odd"), KeyError(1)]
)
def test_a_fault_of_the_program_has_a_traceback_and_an_exit_code_of_its_own(capsys, error):
    assert shown_message(error) is None
    assert told(error) == 70
    assert type(error).__name__ in capsys.readouterr().err


def test_stops_and_errors_that_a_user_can_mend_have_the_exit_codes_of_old(capsys):
    assert told(Stopped(15, "stopped; kept: all")) == 143
    assert told(ConfigError("wrong")) == told(CacheError("wrong")) == told(FileNotFoundError(2, "none", "x")) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_places_that_no_file_can_take_are_told(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in ("folder", "file/inside", "n" * 300):
        with pytest.raises(OSError) as raised:
            write_text(tmp_path / path, "text")
        message = shown_message(raised.value)
        assert message is not None and message.startswith(str(tmp_path / path.partition("/")[0])), message
    with pytest.raises(OSError) as raised, replacing_folder(tmp_path / "file" / "folder"):
        pass
    assert shown_message(raised.value)
    with pytest.raises(ValueError) as nul:
        write_text(tmp_path / "a\0b" / "c", "text")
    assert "NUL" in (shown_message(nul.value) or "")


def test_tensors_that_a_disk_does_not_take_are_an_error_of_the_disk(tmp_path):
    import torch
    from safetensors import SafetensorError

    with pytest.raises(OSError) as raised:
        save_tensors({"a": torch.zeros(3)}, tmp_path / "absent" / "tensors")
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(OSError) as raised, disk_errors(tmp_path / "x"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
