"""Rows whose prompts hold some words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

from sur.cache import Store


def search_rows(store: Store, text: str, limit: int | None = None) -> list[int]:
    """Slots, ascending, of rows whose prompts hold every word of `text`, in any case and anywhere, at most `limit`.

    The simple and the complex prompt are searched together. The first search of a `Store` reads its rows, later ones
    only those that were added since.
    """
    index = _indices.setdefault(store, _Prompts())
    index.grow(store)
    return index.find(text.casefold().split())[:limit]


def holding(texts: Sequence[str], places: Iterable[int], words: Sequence[str]) -> Iterable[int]:
    """Those of the places whose texts hold every word; the longest word, which leaves fewest, is looked for first."""
    for word in sorted(words, key=len, reverse=True):
        places = [place for place in places if word in texts[place]]
    return places


class _Prompts:
    """The folded prompts of a store's rows, by partition; rows never change in theirs."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._slots: list[int] = []
        self._partitions = 0

    def grow(self, store: Store) -> None:
        """Read the partitions that are new."""
        for partition in range(self._partitions, store.n_partitions):
            rows = store.rows(partition)
            self._texts += [f"{row.simple}\n{row.complex}".casefold() for row in rows]
            self._slots += [row.slot for row in rows]
            self._partitions = partition + 1

    def find(self, words: list[str]) -> list[int]:
        """Slots of texts that hold all words; of no words none."""
        return [self._slots[place] for place in holding(self._texts, range(len(self._texts)), words)] if words else []


_indices: WeakKeyDictionary[Store, _Prompts] = WeakKeyDictionary()
