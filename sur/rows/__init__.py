"""Rows: (simple prompt, complex prompt, image) from any of five kinds of source, each one checked."""

from sur.rows.config import DataConfig
from sur.rows.open import detect_format, open_rows
from sur.rows.plain import ListRows
from sur.rows.scan import scan, write_quarantine
from sur.rows.source import Quarantined, Row, RowError, RowSource

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
    "write_quarantine",
]
