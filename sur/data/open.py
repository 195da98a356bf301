"""From a data config to rows: which format it is, and who reads it."""

from __future__ import annotations

from pathlib import Path

from sur.config.data import DataConfig
from sur.data.source import Reader, RowSource
from sur.data.tables import HFDataset, ParquetFiles
from sur.data.text_files import TextFiles
from sur.support.errors import NotFound

PATTERNS = {"surd": "metadata.jsonl", "parquet": "*.parquet", "csv": "*.csv", "jsonl": "*.jsonl"}


def open_rows(config: DataConfig, named: str = "data.path") -> RowSource:
    """The rows of a data source; `named` is what its user calls the path, for messages.

    Raises: NotFound when the path does not exist or holds no rows of the format.
    """
    path = config.path.expanduser()
    if not path.exists():
        raise NotFound(f"{named} is {path}, which does not exist; correct it")
    found = detect_format(path, named) if config.format == "auto" else config.format
    return RowSource(config, _reader(found, path, config, named))


def detect_format(path: Path, named: str = "data.path") -> str:
    """The format of a data source, by its file name or by what its folder holds.

    Raises: NotFound when it is none of the five.
    """
    if path.is_file():
        by_suffix = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}
        if path.suffix in by_suffix:
            return by_suffix[path.suffix]
    elif (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return "hf"
    else:
        for name in PATTERNS:
            if _files(path, name):
                return name
    raise NotFound(
        f"{path} is no SURD folder (metadata.jsonl), no dataset folder and holds no .parquet, .csv or .jsonl "
        f"file; correct {named}" + " or set data.format" * (named == "data.path")
    )


def _reader(found: str, path: Path, config: DataConfig, named: str) -> Reader:
    if found == "hf":
        return HFDataset(path, config)
    files = [path] if path.is_file() else _files(path, found)
    if not files:
        raise NotFound(f"data.format is {found}, but {path} holds no {PATTERNS[found]}; correct one of them")
    root = path.parent if path.is_file() else path
    return (ParquetFiles if found == "parquet" else TextFiles)(root, files, config)


def _files(folder: Path, name: str) -> list[Path]:
    """Files of a format in a folder; where it has none, in the folders directly in it (train, test, ...)."""
    return sorted(folder.glob(PATTERNS[name])) or sorted(folder.glob(f"*/{PATTERNS[name]}"))
