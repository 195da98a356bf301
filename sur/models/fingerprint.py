"""Cheap fingerprints of model files, so that a feature knows which weights made it.

A file up to 256 MiB is hashed whole. Of a larger one the fingerprint covers its size, its header (for
safetensors: every tensor's name, shape, dtype and place) and 4 KiB from the start, middle and end of every
tensor (of 1,024 even stretches where the format has no such header). Training changes every block of a
tensor, so any fine-tune shows; a change of a few numbers inside one tensor of a huge file may not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from sur.support.errors import NotFound

WHOLE_BYTES = 256 * 2**20
BLOCK_BYTES = 4096
STRETCHES = 1024

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
PIPELINE_SUFFIXES = (".safetensors", ".json", ".txt", ".model")
VOLATILE_KEYS = ("transformers_version", "torch_dtype", "dtype", "name_or_path", "sha256", "weights_sha256")


def weight_files(folder: Path) -> list[Path]:
    """The files that a loader would read from a model's folder, in name order.

    Raises: NotFound when the folder holds no weights.
    """
    for stem in ("model", "diffusion_pytorch_model"):
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    if found := sorted(folder.glob("*.safetensors")):
        return found
    raise NotFound(
        f"no weights in {folder}: expected *.safetensors (nothing is unpickled); download the model, convert it, "
        "or correct its path"
    )


def weights_fingerprint(path: Path) -> str:
    """Fingerprint of a model's weights and config.json; `path` is its folder or one weight file.

    Raises: NotFound when a weight file is missing.
    """
    digest = hashlib.sha256()
    for file in weight_files(path) if path.is_dir() else [path]:
        state = file.stat()
        digest.update(f"{file.name}:{_file_fingerprint(file, state.st_size, state.st_mtime_ns)}\n".encode())
    if path.is_dir() and (path / "config.json").is_file():
        digest.update(_canonical_config(path / "config.json"))
    return digest.hexdigest()[:32]


def pipeline_fingerprint(folder: Path) -> str:
    """Fingerprint of everything in a pipeline's folder that its pictures depend on: weights, configs, tokenizers."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in PIPELINE_SUFFIXES:
            state = file.stat()
            name = file.relative_to(folder).as_posix()
            digest.update(f"{name}:{_file_fingerprint(file, state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:32]


def tokenizer_fingerprint(folder: Path) -> str:
    """Fingerprint of the tokenizer files in a folder.

    Raises: NotFound when there are none.
    """
    present = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        raise NotFound(f"no tokenizer in {folder}: expected one of {', '.join(TOKENIZER_FILES)}")
    digest = hashlib.sha256()
    for file in present:
        content = file.read_bytes()
        digest.update(f"{file.name}:{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _canonical_config(file: Path) -> bytes:
    config = json.loads(file.read_text())
    kept = {k: v for k, v in config.items() if not k.startswith("_") and k not in VOLATILE_KEYS}
    return json.dumps(kept, sort_keys=True).encode()


@lru_cache(maxsize=256)
def _file_fingerprint(file: Path, size: int, mtime_ns: int) -> str:
    """Hash of one file; size and time of change are there to outdate the memo."""
    digest = hashlib.sha256(str(size).encode())
    with open(file, "rb") as opened:
        if size <= WHOLE_BYTES:
            while block := opened.read(2**20):
                digest.update(block)
            return digest.hexdigest()
        header, data_start, stretches = _layout(opened, size, file.suffix)
        digest.update(header)
        for start, stop in stretches:
            for offset in (start, (start + stop - BLOCK_BYTES) // 2, stop - BLOCK_BYTES):
                opened.seek(data_start + max(offset, start))
                digest.update(opened.read(min(BLOCK_BYTES, stop - start)))
    return digest.hexdigest()


def _layout(opened: BinaryIO, size: int, suffix: str) -> tuple[bytes, int, Iterator[tuple[int, int]]]:
    """Header bytes, where the data starts, and the stretches of data to sample (relative to that)."""
    if suffix == ".safetensors":
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length)
        tensors = sorted(v["data_offsets"] for k, v in json.loads(header).items() if k != "__metadata__")
        return header, 8 + length, ((start, stop) for start, stop in tensors if stop > start)
    step = size // STRETCHES
    return opened.read(16 * 2**20), 0, ((i * step, (i + 1) * step) for i in range(STRETCHES))
