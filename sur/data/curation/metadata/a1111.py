"""AUTOMATIC1111's generation parameters (also Forge, SD.Next and what imitates them).

    <prompt, one or more lines>
    Negative prompt: <negative prompt, one or more lines>
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 1f, b: 2e", Version: v1.10.1
    <lines that extensions add, such as Template: ...>

In PNG it is the text chunk `parameters`, in JPEG, WebP and AVIF the EXIF field UserComment.
"""

from __future__ import annotations

import json
import re

from sur.data.curation.metadata.generator_metadata import GeneratorMetadata

NEGATIVE = "Negative prompt:"
FEWEST_FIELDS = 3  # fewer "Key: value" in the last line are taken for words of the prompt
_KEY = re.compile(r"\s*([A-Za-z0-9][\w /.+-]*):\s*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def read_a1111(text: str) -> GeneratorMetadata | None:
    """Prompt, negative prompt and settings; None for a text that is not in this form."""
    lines = text.replace("\r\n", "\n").strip("\0 \n").split("\n")
    place = _settings_line(lines)
    if place is None:
        return None
    fields: dict[str, str] = read_settings(lines[place])
    if after := "\n".join(lines[place + 1 :]).strip():
        fields["(lines after the settings)"] = after
    positive, negative = lines[:place], []
    for i, line in enumerate(positive):
        if line.strip().startswith(NEGATIVE):
            negative = [line.strip().removeprefix(NEGATIVE), *positive[i + 1 :]]
            positive = positive[:i]
            break
    return GeneratorMetadata("a1111", "a1111", "\n".join(positive).strip(), "\n".join(negative).strip(), fields)


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
    """Place of the settings: the last line that starts with "Steps:", else the last one if it looks like settings."""
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].startswith("Steps: ") and len(read_settings(lines[i])) >= FEWEST_FIELDS:
            return i
    return len(lines) - 1 if len(read_settings(lines[-1])) >= FEWEST_FIELDS else None


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value.strip('"')
