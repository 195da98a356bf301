"""Rows whose prompts hold some words."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from cache import Store


def search_rows(store: Store, text: str, limit: int | None = None) -> list[int]:
    """Slots, ascending, of rows whose prompts hold every word of `text`, in any case and anywhere, at most `limit`.

    The simple and the complex prompt are searched together. The first search of a `Store` reads its rows, later ones
    only those that were added since.
    """
    index = _indices.setdefault(store, _Prompts())
    index.grow(store)
    return index.find(text.casefold().split(), limit)


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

    def find(self, words: list[str], limit: int | None) -> list[int]:
        """Slots of texts that hold all words."""
        found = []
        if not words or (limit is not None and limit < 1):
            return found
        first, *others = sorted(words, key=len, reverse=True)
        for place, text in enumerate(self._texts):
            if first in text and all(word in text for word in others):
                found.append(self._slots[place])
                if len(found) == limit:
                    break
        return found


_indices: WeakKeyDictionary[Store, _Prompts] = WeakKeyDictionary()
