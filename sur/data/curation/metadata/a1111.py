"""AUTOMATIC1111's generation parameters (also Forge, SD.Next and what imitates them).

    <prompt, one or more lines>
    Negative prompt: <negative prompt, one or more lines>
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 1f, b: 2e", Version: v1.10.1
    <lines that extensions add, such as Template: ...>

In PNG it is the text chunk `parameters`, in JPEG, WebP and AVIF the EXIF field UserComment. Some tools write all of it
into one line, with blanks or dots for the ends of lines, or leave the settings out.
"""

from __future__ import annotations

import json
import re

from sur.data.curation.metadata.generator_metadata import GeneratorMetadata

NEGATIVE = "Negative prompt:"
FEWEST_FIELDS = 3  # fewer "Key: value" in the last line are taken for words of the prompt
_KEY = re.compile(r"\s*([A-Za-z0-9][\w /.+-]*):\s*")
# Keys that SD.Next writes in front of Steps; other words there belong to the prompt.
_BEFORE_STEPS = frozenset(("Version", "Pipeline", "App", "Backend", "Seed", "Size", "Sampler", "Model", "CFG scale"))
_STEPS_INSIDE = re.compile(r"(?:\.|(?<!\w))Steps: ?\d")  # the dot: what exiftool shows for the end of a line
_NEGATIVE_INSIDE = re.compile(r"(?:\.|(?<!\w))Negative prompt:")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def read_a1111(text: str) -> GeneratorMetadata | None:
    """Prompt, negative prompt and settings; None for a text without settings."""
    lines = _lines(text)
    if (place := _settings_line(lines)) is not None:
        before, settings, after = lines[:place], lines[place], lines[place + 1 :]
    elif (cut := _steps_inside(lines)) is not None:
        place, start = cut
        before = [*lines[:place], lines[place][:start]]
        settings, after = lines[place][start:].removeprefix("."), lines[place + 1 :]
    elif len(read_settings(lines[-1])) >= FEWEST_FIELDS:
        before, settings, after = lines[:-1], lines[-1], []
    else:
        return None
    fields: dict[str, str] = read_settings(settings)
    if rest := "\n".join(after).strip():
        fields["(lines after the settings)"] = rest
    positive, negative = _sides(before)
    return GeneratorMetadata("a1111", "a1111", positive, negative, fields)


def read_a1111_prompts(text: str, sure: bool) -> GeneratorMetadata | None:
    """Prompt and negative prompt of a text without settings.

    sure: the text is known to be a prompt; else a negative prompt has to show it. None where it does not.
    """
    positive, negative = _sides(_lines(text))
    if not (sure or negative) or text.lstrip().startswith(("{", "[{")):  # JSON of a tool that is not known
        return None
    return GeneratorMetadata("a1111", "a1111", positive, negative)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").strip("\0 \n").split("\n")


def _sides(lines: list[str]) -> tuple[str, str]:
    """The prompt, and the negative prompt behind its head: at the beginning of a line, else wherever it is."""
    for i, line in enumerate(lines):
        if line.strip().startswith(NEGATIVE):
            negative = [line.strip().removeprefix(NEGATIVE), *lines[i + 1 :]]
            return "\n".join(lines[:i]).strip(), "\n".join(negative).strip()
    text = "\n".join(lines)
    if (head := _NEGATIVE_INSIDE.search(text)) is not None:
        return text[: head.start()].strip(), text[head.end() :].strip()
    return text.strip(), ""


def read_settings(line: str) -> dict[str, str]:
    """`Key: value` pairs, separated by commas; a value that holds commas or colons is a JSON string."""
    fields: dict[str, str] = {}
    place = 0
    while place < len(line) and (key := _KEY.match(line, place)):
        start = key.end()
        if quoted := _QUOTED.match(line, start):
            value, place = _unquoted(quoted.group()), quoted.end()
        else:
            stop = line.find(",", start)
            place = len(line) if stop < 0 else stop
            value = line[start:place].strip()
        fields[key.group(1).strip()] = value
        comma = line.find(",", place)
        if comma < 0 or line[place:comma].strip():
            break
        place = comma + 1
    return fields


def _settings_line(lines: list[str]) -> int | None:
    """Place of the last line that is settings and nothing else."""
    for i in range(len(lines) - 1, -1, -1):
        fields = list(read_settings(lines[i])) if "Steps: " in lines[i] else []
        if (
            len(fields) >= FEWEST_FIELDS
            and "Steps" in fields
            and _BEFORE_STEPS.issuperset(fields[: fields.index("Steps")])
        ):
            return i
    return None


def _steps_inside(lines: list[str]) -> tuple[int, int] | None:
    """Line and column where settings begin behind other words; None where no settings do."""
    for i in range(len(lines) - 1, -1, -1):
        for found in reversed(list(_STEPS_INSIDE.finditer(lines[i]))):
            if len(read_settings(lines[i][found.start() :].removeprefix("."))) >= FEWEST_FIELDS:
                return i, found.start()
    return None


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value.strip('"')
