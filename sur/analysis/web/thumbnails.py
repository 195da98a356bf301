"""Pictures of rows as files for a page: decoded on request, the latest kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from sur.support.images import EncodedImage, encode

BUDGET_BYTES = 64 * 2**20


class Thumbnails:
    """A cache of picture files. picture: gives the decoded picture of a slot; one thread at a time calls it."""

    def __init__(self, picture: Callable[[int], Image.Image], budget_bytes: int = BUDGET_BYTES) -> None:
        self._picture = picture
        self._budget = budget_bytes
        self._cached: OrderedDict[tuple[str, int], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._cache_lock, self._decode_lock = Lock(), Lock()

    def get(self, row_id: str, slot: int, side: int) -> EncodedImage:
        """The picture of a row, at most `side` pixels wide and high; a smaller one keeps its size.

        Raises: for a row without a picture, as `picture` does.
        """
        key = (row_id, side)
        if (cached := self._lookup(key)) is not None:
            return cached
        with self._decode_lock:
            if (cached := self._lookup(key)) is not None:  # another request has decoded it meanwhile
                return cached
            encoded = encode(self._picture(slot), side)
            self._store(key, encoded)
            return encoded

    def _lookup(self, key: tuple[str, int]) -> EncodedImage | None:
        with self._cache_lock:
            if key in self._cached:
                self._cached.move_to_end(key)
            return self._cached.get(key)

    def _store(self, key: tuple[str, int], encoded: EncodedImage) -> None:
        with self._cache_lock:
            if (replaced := self._cached.pop(key, None)) is not None:
                self._bytes -= len(replaced.content)
            self._cached[key] = encoded
            self._bytes += len(encoded.content)
            while self._bytes > self._budget and len(self._cached) > 1:
                self._bytes -= len(self._cached.popitem(last=False)[1].content)
