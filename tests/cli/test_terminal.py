"""Texts of strangers on a terminal: they are shown, and steer nothing."""

import io
import json
import logging
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, row_id
from sur.cli.app import app
from sur.cli.show.store import print_row
from sur.support.formatting import visible
from sur.support.log import log_to_stderr, show_controls
from sur.support.terminal import PlainConsole

HOSTILE = "a\x1b[2J \x1b]0;owned\x07 cat\0 \x9b31m of \u202eesrever\u2066 \x7f\x08 [bold]hen[/bold] :fox:"
SHOWN = (
    r"a\u001b[2J \u001b]0;owned\u0007 cat\u0000 \u009b31m of \u202eesrever\u2066 \u007f\u0008 [bold]hen[/bold] :fox:"
)
STEERS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_a_text_is_shown_as_it_is_but_for_what_steers_a_terminal():
    assert visible(HOSTILE) == SHOWN
    for harmless in ("zwei Katzen,\n\tein Hund", "猫と犬", "קוף", "👩‍🚀 naïve", "half \\ of it"):
        assert visible(harmless) == harmless
    assert visible(b"\xff.png".decode("utf-8", "surrogateescape")) == "\\udcff.png"
    assert json.loads(visible(json.dumps([HOSTILE], ensure_ascii=False))) == [HOSTILE]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store whose prompts, image, feature's identity and files are hostile."""
    path = tmp_path_factory.mktemp("hostile") / "store"
    opened = Store.open_or_create(path, 4)
    rows = [RowRecord(row_id(text, HOSTILE, b"x"), text, HOSTILE, HOSTILE) for text in (HOSTILE, f"{HOSTILE} again")]
    opened.add_rows(rows)
    spec = FeatureSpec("llm.a", "llm", {"model": HOSTILE, "layer": 1}, {"states": ArraySpec("float32", (3,))})
    opened.ensure_feature(spec)
    (path / "rows" / "\x1b[31mred\u202e").write_text("stray")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "STORE"),
        ("inspect", "STORE", "--long"),
        ("inspect", "STORE", "--row", "0", "--neighbours", "0"),
        ("inspect", "STORE", "--search", "cat"),
        ("inspect", "STORE", "--search", "\x1b[31mcat"),
        ("inspect", "STORE", "--row", "0", "--neighbours", "0", "--json"),
        ("verify", "STORE"),
        ("lint", "STORE", "--only", "same-prompt"),
    ],
)
def test_no_command_lets_a_stored_text_steer_the_terminal(store, command):
    done = CliRunner().invoke(app, [str(store) if word == "STORE" else word for word in command], color=True)
    assert done.output and (done.exception is None or isinstance(done.exception, SystemExit)), done.exception
    assert not STEERS.search(done.output.replace("\n", "")), ascii(done.output)


def test_a_row_is_shown_with_every_character_of_its_prompts(store):
    done = CliRunner().invoke(app, ["inspect", str(store), "--row", "0", "--neighbours", "0"], color=True)
    assert done.exit_code == 0 and SHOWN.replace(" ", "") in re.sub(r"\s", "", done.output)


def test_a_console_with_colours_steers_the_terminal_itself_alone():
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=True, color_system="truecolor", width=400)
    console.print(HOSTILE, style="bold red")
    assert SHOWN in out.getvalue() and out.getvalue().startswith("\x1b[1;31m")
    assert print_row.__annotations__["out"] in (PlainConsole, "PlainConsole")


def test_lines_of_the_log_steer_nothing(capsys):
    with log_to_stderr():
        logging.getLogger("sur.test").info("row %s", HOSTILE)
    assert SHOWN in capsys.readouterr().err
    record = logging.LogRecord("sur", logging.INFO, "", 0, "row %s", (HOSTILE,), None)
    assert show_controls(record) and record.getMessage() == f"row {SHOWN}"


def test_commands_print_through_the_one_function_that_shows_controls():
    folder = Path(__file__).parents[2] / "sur" / "cli"
    for file in folder.rglob("*.py"):
        found = re.findall(r"typer\.echo\(|(?<![\w.])print\(|(?<!\w)Console\(", file.read_text())
        assert found == (["typer.echo("] if file.name == "arguments.py" else []), file
