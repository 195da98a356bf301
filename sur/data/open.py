"""From the settings of a data source to its rows: the format is detected, and its reader opened."""

from __future__ import annotations

import importlib.util
import logging
from fnmatch import fnmatch
from pathlib import Path

from sur.config.data import DataConfig
from sur.data.source import RecordReader, RowSource
from sur.data.tables import HFDataset, ParquetFiles
from sur.data.text_files import TextFiles
from sur.support.errors import ConfigError, NotFound, UserError

PACKAGES = {"parquet": "pyarrow", "hf": "datasets"}  # that read a format and are not installed with this one
PATTERNS = {"surd": "metadata.jsonl", "parquet": "*.parquet", "csv": "*.csv", "jsonl": "*.jsonl"}
HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval")  # usual names of parts that are not trained on
logger = logging.getLogger(__name__)


def open_rows(config: DataConfig, named: str = "data.path") -> RowSource:
    """The rows of a data source; `named` is the setting that gave the path, for messages.

    Raises: NotFound when the path does not exist or has no rows of the format or the split; ConfigError when it may not
    be read, or the package that reads the format is not installed.
    """
    try:
        path = config.path.expanduser()
        if not path.exists():
            raise NotFound(f"{named} is {path}, which does not exist; correct it")
        name = detect_format(path, named) if config.format == "auto" else config.format
        return RowSource(config, _reader(name, path, config, named))
    except (UserError, ImportError):
        raise
    except (OSError, RuntimeError, ValueError) as error:  # no permission, a name too long; no such home; a NUL
        why = getattr(error, "strerror", None) or error
        place = getattr(error, "filename", None) or config.path
        raise ConfigError(f"{named} is {config.path}, but {place} cannot be read ({why}); correct it") from error


def detect_format(path: Path, named: str = "data.path") -> str:
    """The format of a data source, by its file name or by what its folder holds.

    Raises: NotFound when no format fits.
    """
    if path.is_file():
        by_suffix = {".jsonl": "jsonl", ".parquet": "parquet", ".csv": "csv"}
        if path.suffix.lower() in by_suffix:
            return by_suffix[path.suffix.lower()]
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
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else _files(path, name, config.split)
    if not files:
        raise NotFound(f"data.format is {name}, but {path} holds no {PATTERNS[name]}; correct one of them")
    files = _of_split(files, root, config.split)
    if name == "parquet":
        return ParquetFiles(root, files, config)
    return TextFiles(root, files, config, "csv" if name == "csv" else "jsonl")


def _require(package: str, path: Path, named: str) -> None:
    """Raises: ConfigError when a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{named} is {path}, which the package {package} reads: pip install {package}")


def _files(folder: Path, name: str, split: str | None = None) -> list[Path]:
    """Files of a format in a folder; where it has none, or for a split, in the folders in it too (train, test, ...)."""
    entries = sorted(folder.iterdir())
    files = [entry for entry in entries if fnmatch(entry.name.lower(), PATTERNS[name])]
    if files and split is None:
        return files
    inner = (file for entry in entries if entry.is_dir() for file in sorted(entry.iterdir()))
    return files + [file for file in inner if fnmatch(file.name.lower(), PATTERNS[name])]


def _of_split(files: list[Path], root: Path, split: str | None) -> list[Path]:
    """The files of a split, by their folder's name or by how their own begins (train.csv, train-00000-of-00002).

    Raises: NotFound when none is of the split.
    """
    if split is None:
        held_out = [file for file in files if any(_is_of(file, root, part) for part in HELD_OUT)]
        if held_out and len(held_out) < len(files):
            names = ", ".join(file.relative_to(root).as_posix() for file in held_out[:3])
            logger.warning("%s is read too, with all of %s; data.split takes one part, such as train", names, root)
        return files
    chosen = [file for file in files if _is_of(file, root, split)]
    if not chosen:
        names = ", ".join(file.relative_to(root).as_posix() for file in files[:10])
        raise NotFound(
            f"data.split is {split!r}, but {root} has no such part: no folder of that name and no file whose name "
            f"begins with it; it has {names}. Correct data.split, or leave it out to read all"
        )
    return chosen


def _is_of(file: Path, root: Path, split: str) -> bool:
    """Whether a file belongs to a split."""
    folder, stem = file.parent.relative_to(root).as_posix(), file.stem
    return split in (folder, stem) or (stem.startswith(split) and stem[len(split) : len(split) + 1] in tuple("-_."))
