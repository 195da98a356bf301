"""Pictures of rows as files for a page: decoded when they are asked for, the latest kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from sur.support.images import EncodedImage, encode

BUDGET_BYTES = 64 * 2**20


class Thumbnails:
    """`picture` gives the decoded picture of a slot; it is called by one thread at a time."""

    def __init__(self, picture: Callable[[int], Image.Image], budget_bytes: int = BUDGET_BYTES) -> None:
        self._picture = picture
        self._budget = budget_bytes
        self._kept: OrderedDict[tuple[str, int], EncodedImage] = OrderedDict()
        self._bytes = 0
        self._keeping, self._decoding = Lock(), Lock()

    def get(self, row_id: str, slot: int, side: int) -> EncodedImage:
        """The picture of a row, at most `side` pixels wide and high; smaller ones stay as they are.

        Raises: what `picture` does, for a row without one.
        """
        key = (row_id, side)
        if (kept := self._lookup(key)) is not None:
            return kept
        with self._decoding:
            if (kept := self._lookup(key)) is not None:  # another request has asked for it meanwhile
                return kept
            made = encode(self._picture(slot), side)
            self._keep(key, made)
            return made

    def _lookup(self, key: tuple[str, int]) -> EncodedImage | None:
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, int], made: EncodedImage) -> None:
        with self._keeping:
            if (replaced := self._kept.pop(key, None)) is not None:
                self._bytes -= len(replaced.content)
            self._kept[key] = made
            self._bytes += len(made.content)
            while self._bytes > self._budget and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].content)
