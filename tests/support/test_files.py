"""sur.support.files: lines end at newlines, and nowhere else."""

import json

import pytest

from sur.config.run_folder import RunFolder
from sur.evaluation.prompts.prompt_files import read_prompts
from sur.evaluation.results import Single, read_singles
from sur.support.files import file_lines

# Where str.splitlines cuts besides.
INSIDE = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\nb", ["a", "", "b"]), ("a\r\nb\r\n", ["a", "b"]),
        (f"a{INSIDE}b\nc", [f"a{INSIDE}b", "c"]), ("\ufeffa\n", ["a"]), ("a\rb\n", ["a\rb"]),
    ],
)  # fmt: skip
def test_lines_end_at_newlines_alone(tmp_path, content, lines):
    (tmp_path / "file").write_bytes(content.encode())
    assert file_lines(tmp_path / "file") == lines


def test_prompts_with_line_separators_inside_are_read_back_whole(tmp_path):
    singles = [
        Single(
            set="own", id=f"{mark}", groups=(), narrative=f"a cat{mark}on a mat", complex=None, pictures={}, scores={}
        )
        for mark in INSIDE
    ]
    RunFolder(tmp_path).scores.write_text(
        "".join(single.model_dump_json() + "\n" for single in singles), encoding="utf-8"
    )
    assert read_singles(tmp_path) == singles
    prompts = [{"id": str(number), "narrative": f"a{mark}b"} for number, mark in enumerate("\u2028\u2029\u0085")]
    text = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)
    (tmp_path / "prompts.jsonl").write_text(text, encoding="utf-8")
    assert [prompt.narrative for prompt in read_prompts(tmp_path / "prompts.jsonl")] == [
        p["narrative"] for p in prompts
    ]
