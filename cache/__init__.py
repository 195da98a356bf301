"""Feature cache: rows, and the features computed from them, in one open Zarr v3 store.

It knows arrays and bytes, no models. Importing it loads neither torch nor a client of object storage.
"""

from sur.cache.compact import compact
from sur.cache.errors import (
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
from sur.cache.format.codecs import Codec
from sur.cache.format.dtypes import bfloat16_to_float32, float32_to_bfloat16, to_float32
from sur.cache.format.receipts import Receipt, ShardReceipt
from sur.cache.format.spec import ArraySpec, FeatureSpec, RowRecord, row_id
from sur.cache.loader import Batch, Loader
from sur.cache.manifest import Manifest
from sur.cache.readers import Resident, RowWise, Windowed
from sur.cache.sampling import Order, in_split
from sur.cache.selection import Selection
from sur.cache.storage.base import store_location
from sur.cache.store import Store
from sur.cache.threads import WriteBehind
from sur.cache.upkeep.describe import FeatureSummary, StoreSummary
from sur.cache.upkeep.verify import Damage

__all__ = [
    "ArraySpec",
    "BadValues",
    "Batch",
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
    "Order",
    "Receipt",
    "Resident",
    "RowRecord",
    "RowWise",
    "Selection",
    "ShardReceipt",
    "Store",
    "StoreBusy",
    "StoreSummary",
    "UnknownFeature",
    "Windowed",
    "WriteBehind",
    "bfloat16_to_float32",
    "compact",
    "float32_to_bfloat16",
    "in_split",
    "row_id",
    "store_location",
    "to_float32",
]
