"""Rows (simple prompt, complex prompt, image) from files, data sets or memory, each one checked."""

from sur.config.data import DataConfig
from sur.data.in_memory import ListRows
from sur.data.open import detect_format, open_rows
from sur.data.quarantine import Quarantined, read_quarantine, write_quarantine
from sur.data.scan import scan, scan_rows
from sur.data.source import Row, RowSource
from sur.support.errors import RowError

__all__ = [
    "DataConfig",
    "ListRows",
    "Quarantined",
    "Row",
    "RowError",
    "RowSource",
    "detect_format",
    "open_rows",
    "read_quarantine",
    "scan",
    "scan_rows",
    "write_quarantine",
]
