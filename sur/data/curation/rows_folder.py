"""The SURD folder of a finished draft: metadata.jsonl, the pictures' original bytes, and where everything came from.

    data/metadata.jsonl    file_name, text, prompt, negative_prompt
    data/provenance.jsonl  one line for each of its rows, in their order, with the row's key
    data/models.json       the models that wrote texts, by the digest that the provenance names
    data/images/           pictures under the SHA-256 of their bytes
    quarantine.jsonl       rows left out, as an extraction writes it
    summary.json           how many, and why

Each file is replaced whole, metadata.jsonl last. A kill between two of them leaves the old rows beside the new
provenance: then places do not tell which line is a row's, but keys do (a row that is to go may have no line any more),
and the same command writes the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sur.config.curation import BuildConfig
from sur.data import write_quarantine
from sur.data.curation.collect import once
from sur.data.curation.draft import Draft, ProgressMaker
from sur.data.curation.filters import PICTURE, LeftOut
from sur.data.curation.sources import Candidate, open_source
from sur.support.files import write_bytes
from sur.support.progress import Progress

METADATA, PROVENANCE, MODELS = "metadata.jsonl", "provenance.jsonl", "models.json"
QUARANTINE, SUMMARY = "quarantine.jsonl", "summary.json"


class BuildSummary(BaseModel):
    """What a build came to: candidates = rows + all that is left out."""

    model_config = ConfigDict(frozen=True)

    candidates: int
    rows: int
    pictures: int
    paired: int
    left_out: dict[str, int]


def write_rows(config: BuildConfig, draft: Draft, progress: ProgressMaker = Progress) -> BuildSummary:
    """Write the folder of a draft; what it lacks still is left out. Returns the summary, which is written too."""
    source = open_source(config.source)
    seen: dict[Any, str] = {}
    data = config.data_dir
    data.mkdir(parents=True, exist_ok=True)
    with progress("write", len(draft.candidates), "rows") as shown:

        def finished(candidate: Candidate) -> Candidate:
            try:
                candidate = once(complete(candidate, config), config, seen)
                if candidate.picture and not picture_path(data, candidate).is_file():
                    content = source.picture_bytes(candidate.picture)
                    if hashlib.sha256(content).hexdigest() != candidate.sha256:
                        raise LeftOut("changed", PICTURE, "it changed while the build ran", "run the build again")
                    write_bytes(picture_path(data, candidate), content, durable=True)
                return candidate
            finally:
                shown.advance()

        draft = draft.each(finished)
    models = {name: made for each in draft.candidates for name, made in each.facts.get("models", {}).items()}
    write_bytes(data / PROVENANCE, _lines(provenance(each) for each in draft.candidates), durable=True)
    write_bytes(data / MODELS, _json(dict(sorted(models.items()))), durable=True)
    left = sorted(draft.left, key=lambda each: each.row.position)
    write_quarantine(config.run_dir / QUARANTINE, (each.row for each in left))
    summary = BuildSummary(
        candidates=draft.given,
        rows=len(draft.candidates),
        pictures=sum(bool(each.picture) for each in draft.candidates),
        paired=sum(bool(each.complex) for each in draft.candidates),
        left_out=dict(sorted(Counter(each.filter for each in left).items())),
    )
    write_bytes(config.run_dir / SUMMARY, _json(summary.model_dump()), durable=True)
    write_bytes(data / METADATA, _lines(columns(each) for each in draft.candidates), durable=True)
    return summary


def complete(candidate: Candidate, config: BuildConfig) -> Candidate:
    """The candidate itself. Raises: LeftOut when it has no narrative, or no complex prompt although it must."""
    if not candidate.simple:
        raise LeftOut("no narrative", "text", "nothing wrote a narrative", "add `captions`, or `rewriting`")
    if not candidate.complex and not config.keep_unpaired:
        remedy = "add `rewriting` with writes: [complex], or set keep_unpaired"
        raise LeftOut("no complex prompt", "prompt", "nothing gave a complex prompt", remedy)
    return candidate


def columns(candidate: Candidate) -> dict[str, str]:
    """A row as SURD has it; what it lacks has no column."""
    row = {"file_name": _file_name(candidate), "text": candidate.simple, "prompt": candidate.complex}
    return {name: value for name, value in {**row, "negative_prompt": candidate.negative}.items() if value}


def row_key(row: dict[str, str]) -> str:
    """128 bits of the SHA-256 of a row's line in metadata.jsonl, without the line's end."""
    return hashlib.sha256(_line(row).rstrip(b"\n")).hexdigest()[:32]


def provenance(candidate: Candidate) -> dict[str, Any]:
    """Where a row came from, and what was done to it."""
    facts = {name: value for name, value in candidate.facts.items() if name != "models"}
    name = _file_name(candidate)
    return {"row": row_key(columns(candidate)), **({"file_name": name} if name else {}), **facts}


def picture_path(data: Path, candidate: Candidate) -> Path:
    """Where a candidate's picture goes."""
    return data / _file_name(candidate)


def _file_name(candidate: Candidate) -> str:
    digest = candidate.sha256
    return f"images/{digest[:2]}/{digest}{candidate.extension}" if digest else ""


def _lines(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(map(_line, records))


def _line(record: dict[str, Any]) -> bytes:
    """One line of JSON; escaped where a tool's own fields are not valid Unicode."""
    try:
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(record)}\n".encode()


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
