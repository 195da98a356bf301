"""Feature cache: rows and the features computed from them in one open Zarr v3 store.

Knows arrays and bytes, no models.
"""

from cache.background import Behind
from cache.codecs import Codec
from cache.compaction import compact
from cache.describe import FeatureSummary, StoreSummary
from cache.dtypes import bfloat16_to_float32, float32_to_bfloat16
from cache.errors import (
    BadValues,
    CacheError,
    CorruptStore,
    DiskFull,
    IdentityMismatch,
    IncompleteFeature,
    NewerFormat,
    NoRows,
    NotWritable,
    StoreBusy,
    UnknownFeature,
)
from cache.loader import Batch, Loader
from cache.manifest import Manifest
from cache.receipts import Receipt, ShardReceipt
from cache.records import ArraySpec, FeatureSpec, RowRecord, row_id
from cache.storage import store_location
from cache.store import Store
from cache.verify import Damage

__all__ = [
    "ArraySpec",
    "BadValues",
    "Batch",
    "Behind",
    "CacheError",
    "Codec",
    "CorruptStore",
    "Damage",
    "DiskFull",
    "FeatureSpec",
    "FeatureSummary",
    "IdentityMismatch",
    "IncompleteFeature",
    "Loader",
    "Manifest",
    "NewerFormat",
    "NoRows",
    "NotWritable",
    "Receipt",
    "RowRecord",
    "ShardReceipt",
    "Store",
    "StoreBusy",
    "StoreSummary",
    "UnknownFeature",
    "bfloat16_to_float32",
    "compact",
    "float32_to_bfloat16",
    "row_id",
    "store_location",
]
