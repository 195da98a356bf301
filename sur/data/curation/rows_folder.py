"""The SURD folder of a finished draft: metadata.jsonl, the pictures' original bytes, and where everything came from.

    data/metadata.jsonl    file_name, text, prompt, negative_prompt
    data/provenance.jsonl  one line for each of its rows, in their order, with the row's key
    data/models.json       the models that wrote texts, by the digest that the provenance names
    data/images/           pictures under the SHA-256 of their bytes
    quarantine.jsonl       rows left out, as an extraction writes it
    summary.json           number of rows, and of rows left out by each filter

Each file is replaced whole, metadata.jsonl last. A kill between two of them leaves the old rows beside the new
provenance. Then the keys, not the places, tell which line belongs to a row (an old row may have no line any more), and
the same command writes the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sur.config.build_folder import BuildFolder
from sur.config.curation import BuildConfig
from sur.data import write_quarantine
from sur.data.curation.collect import refuse_duplicate
from sur.data.curation.draft import BuildDraft, ProgressMaker
from sur.data.curation.filters import PICTURE, LeftOut
from sur.data.curation.sources import RowCandidate, Source, open_source
from sur.support.errors import ConfigError
from sur.support.files import clear_partials, write_bytes
from sur.support.progress import Progress


class BuildSummary(BaseModel):
    """Counts of a build: candidates = rows + the sum of left_out, which counts by filter.

    passed_over: number of files of the source that are no pictures, by their ending.
    """

    model_config = ConfigDict(frozen=True)

    candidates: int
    rows: int
    pictures: int
    paired: int
    left_out: dict[str, int]
    passed_over: dict[str, int] = {}


def write_rows(config: BuildConfig, draft: BuildDraft, progress: ProgressMaker = Progress) -> BuildSummary:
    """Write the rows of a draft into the build's folder, leaving out the incomplete ones; returns the summary.

    The summary is written too. What a killed build left half written is removed.
    Raises: ConfigError when another build is writing there.
    """
    folder = BuildFolder(config.run_dir)
    folder.data.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        clear_partials(folder.path)
        clear_partials(folder.data, inner=True)
        return _write(config, draft, folder, progress)


@contextmanager
def _only_writer(folder: BuildFolder) -> Iterator[None]:
    """Keep other builds from the folder inside the block. Raises: ConfigError when one is writing its rows."""
    descriptor = os.open(folder.data, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConfigError(f"another `sur build` is at work in {folder.path}; wait for it, or stop it") from None
    finally:
        os.close(descriptor)


def _write(config: BuildConfig, draft: BuildDraft, folder: BuildFolder, progress: ProgressMaker) -> BuildSummary:
    source = open_source(config.source)
    seen: dict[Any, str] = {}
    with progress("write", len(draft.candidates), "rows") as bar:

        def finished(candidate: RowCandidate) -> RowCandidate:
            try:
                check_complete(candidate, config.keep_unpaired)
                refuse_duplicate(candidate, config.filters, seen)
                if candidate.picture and not picture_path(folder.data, candidate).is_file():
                    _copy_picture(source, candidate, folder.data)
                return candidate
            finally:
                bar.advance()

        draft = draft.map(finished)
    candidates = draft.candidates
    models = {key: model for candidate in candidates for key, model in candidate.facts.get("models", {}).items()}
    write_bytes(folder.provenance, _lines(map(provenance, candidates)), durable=True)
    write_bytes(folder.models, _json(dict(sorted(models.items()))), durable=True)
    left = sorted(draft.left, key=lambda entry: entry.row.position)
    write_quarantine(folder.quarantine, (entry.row for entry in left))
    summary = BuildSummary(
        candidates=draft.given,
        rows=len(candidates),
        pictures=sum(bool(candidate.picture) for candidate in candidates),
        paired=sum(bool(candidate.complex) for candidate in candidates),
        left_out=dict(sorted(Counter(entry.filter for entry in left).items())),
        passed_over=draft.passed_over,
    )
    write_bytes(folder.summary, _json(summary.model_dump()), durable=True)
    write_bytes(folder.metadata, _lines(map(columns, candidates)), durable=True)
    return summary


def check_complete(candidate: RowCandidate, keep_unpaired: bool) -> None:
    """Raises: LeftOut for a candidate without a narrative, or without a complex prompt unless `keep_unpaired`."""
    if not candidate.simple:
        raise LeftOut("no narrative", "text", "nothing wrote a narrative", "add `captions`, or `rewriting`")
    if not candidate.complex and not keep_unpaired:
        remedy = "add `rewriting` with writes: [complex], or set keep_unpaired"
        raise LeftOut("no complex prompt", "prompt", "nothing gave a complex prompt", remedy)


def columns(candidate: RowCandidate) -> dict[str, str]:
    """The row of a candidate by SURD's columns; empty ones are left out."""
    row = {"file_name": _file_name(candidate), "text": candidate.simple, "prompt": candidate.complex}
    return {name: value for name, value in {**row, "negative_prompt": candidate.negative}.items() if value}


def row_key(row: dict[str, str]) -> str:
    """128 bits of the SHA-256 of a row's line in metadata.jsonl, without the line's end."""
    return hashlib.sha256(_line(row).rstrip(b"\n")).hexdigest()[:32]


def provenance(candidate: RowCandidate) -> dict[str, Any]:
    """The provenance of a row: its key, its origin, and the facts of every step."""
    facts = {name: value for name, value in candidate.facts.items() if name != "models"}
    name = _file_name(candidate)
    return {"row": row_key(columns(candidate)), **({"file_name": name} if name else {}), **facts}


def picture_path(data: Path, candidate: RowCandidate) -> Path:
    """Path of a candidate's picture in the SURD folder."""
    return data / _file_name(candidate)


def _copy_picture(source: Source, candidate: RowCandidate, data: Path) -> None:
    """Write a candidate's picture into the SURD folder. Raises: LeftOut when it is not the one that was read before."""
    content = source.picture_bytes(candidate.picture)
    if hashlib.sha256(content).hexdigest() != candidate.sha256:
        raise LeftOut("changed", PICTURE, "it changed while the build ran", "run the build again")
    write_bytes(picture_path(data, candidate), content, durable=True)


def _file_name(candidate: RowCandidate) -> str:
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
