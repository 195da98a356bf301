"""Checksums of files that training writes: a changed bit is found when the file is read.

A JSON file carries a checksum of its own content, its seal, and those of the files that lie beside it. Files of older
versions have none, and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sur.support.errors import DamagedFile

SEAL = "sha256"  # key of the seal
LARGEST_BYTES = 2**26  # of a JSON file of ours


def damaged(path: Path, problem: str, remedy: str) -> DamagedFile:
    """The error of a damaged file, in the words of all such errors."""
    return DamagedFile(f"{path} is damaged: {problem}; {remedy}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, digest: str, remedy: str) -> None:
    """Raise DamagedFile when the file is missing, or has another SHA-256."""
    if not path.is_file():
        raise damaged(path, "it is missing", remedy)
    if file_digest(path) != digest:
        raise damaged(path, "its bytes are not those that were written (SHA-256 differs)", remedy)


def sealed(content: Mapping[str, Any]) -> str:
    """A JSON object as text, with its seal."""
    return json.dumps({**content, SEAL: _seal(content)}, indent=2, sort_keys=True) + "\n"


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises DamagedFile for a file that holds none."""
    if path.stat().st_size > LARGEST_BYTES:
        raise damaged(path, f"it has {path.stat().st_size:,} bytes, more than {LARGEST_BYTES:,}", remedy)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested too deeply
        raise damaged(path, f"it is not JSON ({error})", remedy) from None
    if not isinstance(content, dict):
        raise damaged(path, f"it holds no JSON object but {type(content).__name__}", remedy)
    return content


def check_seal(path: Path, content: Mapping[str, Any], remedy: str) -> None:
    """Raise DamagedFile when the content of a file is not that of its seal; one without a seal passes."""
    if SEAL in content and content[SEAL] != _seal({key: value for key, value in content.items() if key != SEAL}):
        raise damaged(
            path,
            "it is not as it was written (SHA-256 differs)",
            f"{remedy}, or remove the key {SEAL} if the change is yours",
        )


def _seal(content: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))  # keys become text, tuples lists
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
