"""From the settings of a data source to its rows: the format is detected, and its reader opened."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sur.config.data import DataConfig
from sur.data.source import RecordReader, RowSource
from sur.data.tables import HFDataset, ParquetFiles
from sur.data.text_files import TextFiles
from sur.support.errors import ConfigError, NotFound

PACKAGES = {"parquet": "pyarrow", "hf": "datasets"}  # that read a format and are not installed with this one
PATTERNS = {"surd": "metadata.jsonl", "parquet": "*.parquet", "csv": "*.csv", "jsonl": "*.jsonl"}


def open_rows(config: DataConfig, named: str = "data.path") -> RowSource:
    """The rows of a data source; `named` is the setting that gave the path, for messages.

    Raises: NotFound when the path does not exist or has no rows of the format; ConfigError when the package that reads
    the format is not installed.
    """
    path = config.path.expanduser()
    if not path.exists():
        raise NotFound(f"{named} is {path}, which does not exist; correct it")
    name = detect_format(path, named) if config.format == "auto" else config.format
    return RowSource(config, _reader(name, path, config, named))


def detect_format(path: Path, named: str = "data.path") -> str:
    """The format of a data source, by its file name or by what its folder holds.

    Raises: NotFound when no format fits.
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


def _reader(name: str, path: Path, config: DataConfig, named: str) -> RecordReader:
    """The reader of a format, by the format's name."""
    if package := PACKAGES.get(name):
        _require(package, path, named)
    if name == "hf":
        return HFDataset(path, config)
    files = [path] if path.is_file() else _files(path, name)
    if not files:
        raise NotFound(f"data.format is {name}, but {path} holds no {PATTERNS[name]}; correct one of them")
    root = path.parent if path.is_file() else path
    return (ParquetFiles if name == "parquet" else TextFiles)(root, files, config)


def _require(package: str, path: Path, named: str) -> None:
    """Raises: ConfigError when a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{named} is {path}, which the package {package} reads: pip install {package}")


def _files(folder: Path, name: str) -> list[Path]:
    """Files of a format in a folder; where it has none, in the folders directly in it (train, test, ...)."""
    return sorted(folder.glob(PATTERNS[name])) or sorted(folder.glob(f"*/{PATTERNS[name]}"))
