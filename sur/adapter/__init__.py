"""The method: the adapter, its losses, and attaching it to a pipeline.

Both variants of the adapter are imported here, so that `from_pretrained` knows them.
"""

from sur.adapter.adapter import Adapter
from sur.adapter.base import AdapterOutput, BaseAdapter
from sur.adapter.released.adapter import ReleasedAdapter

__all__ = ["Adapter", "AdapterOutput", "BaseAdapter", "ReleasedAdapter"]
