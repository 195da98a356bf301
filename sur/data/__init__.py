"""Rows (simple prompt, complex prompt, image) from files, data sets or memory, each one checked."""

from sur.config.data import DataConfig
from sur.data.in_memory import ListRows
from sur.data.open import detect_format, open_rows
from sur.data.scan import scan, scan_rows, write_quarantine
from sur.data.source import Quarantined, Row, RowSource
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
    "scan",
    "scan_rows",
    "write_quarantine",
]
