"""Progress where there is no terminal: lines in the log, not too many, with what is left."""

import itertools
import logging
import os
import re
import subprocess
import sys

import pytest

from sur.support.formatting import format_seconds
from sur.support.log import log_to_stderr
from sur.support.progress import LINE_SECONDS, Progress


@pytest.fixture
def lines(caplog, monkeypatch):
    """Lines of a progress under a clock that gains ten seconds at every look."""
    caplog.set_level(logging.INFO, "sur.support.progress")
    ticks = itertools.count(0.0, 10.0)
    monkeypatch.setattr("sur.support.progress.time.monotonic", lambda: next(ticks))
    return lambda: [record.getMessage() for record in caplog.records]


def test_lines_come_at_intervals_with_note_and_time_left(lines):
    with Progress("train", 100, "steps") as progress:
        for step in range(1, 11):
            progress.reach(step, f"loss {step}")
    first, *between, last = lines()
    assert first == "train: 100 steps in all"
    assert 2 <= len(between) <= 10 * 10 / LINE_SECONDS
    assert between[0] == "train: 3 of 100 steps, loss 3, about 16 min left"
    assert last.startswith("train: 10 of 100 steps done, after ")


def test_a_resumed_run_s_time_left_counts_from_where_it_resumed(lines):
    with Progress("train", 1000, "steps") as progress:
        for step in range(901, 906):
            progress.reach(step)
    assert lines()[1] == "train: 903 of 1000 steps, about 16 min left"


def test_what_has_nothing_to_do_says_nothing(lines):
    with Progress("vae", 0, "partitions"):
        pass
    assert lines() == []


def test_others_hear_how_many_units_are_done():
    heard = []
    with Progress("evaluate", 3, "pictures", heard.append) as progress:
        progress.advance(2)
        progress.advance()
    assert heard == [2, 3]


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "7 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")])
def test_durations_are_in_a_unit_that_people_read(seconds, text):
    assert format_seconds(seconds) == text


def test_the_log_of_a_command_is_on_stderr_and_only_inside_the_block():
    program = (
        "import logging; from sur.support.log import log_to_stderr\n"
        "with log_to_stderr(): logging.getLogger('sur.features.plan').info('inside')\n"
        "logging.getLogger('sur.features.plan').info('outside')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.endswith("| INFO    | sur.features.plan - inside\n") and "outside" not in done.stderr


def test_levels_of_the_loggers_are_put_back():
    before = logging.getLogger("sur").level
    with log_to_stderr():
        assert logging.getLogger("sur").level == logging.INFO
    assert logging.getLogger("sur").level == before


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after a text with carriage returns and rich's cursor movements."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b"):
            if part.endswith("A"):
                row -= int(part[2:-1] or 1)
            elif part.endswith("K"):
                lines[row] = "" if part == "\x1b[2K" else lines[row][:column]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


IN_A_TERMINAL = """
import logging, sys, time
from sur.support.log import log_to_stderr
from sur.support.progress import Progress
early = logging.StreamHandler()  # as Prefect's: it knows the stderr from before the bar
logging.getLogger("other").addHandler(early)
with log_to_stderr():
    with Progress("[/x]", 3, "rows") as outer:
        with Progress("inner", 3, "rows") as inner:
            for step in range(3):
                logging.getLogger("sur.test").warning("ours %d [b]\\x1b[2J", step)
                inner.advance(note="file [/y].png")
        logging.getLogger("other").warning("theirs")
        outer.advance()
        time.sleep(0.3)
logging.getLogger("other").warning("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_in_a_terminal_lines_of_the_log_stand_above_the_bar():
    import pty

    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", IN_A_TERMINAL], stderr=side, env=environment)
    os.close(side)
    written = b""
    while True:
        try:
            read = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not read:
            break
        written += read
    assert process.wait() == 0, written
    shown = screen(written.decode())
    logged = [line for line in shown if "ours" in line or "theirs" in line or "after" in line]
    assert [re.sub(r"^[\d:.]+ ", "", line) for line in logged] == [
        *(rf"| WARNING | sur.test - ours {step} [b]\u001b[2J" for step in range(3)), "theirs", "after",
    ]  # fmt: skip
    assert any(line.startswith("[/x]") and "1/3" in line for line in shown)
