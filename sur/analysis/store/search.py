"""Rows whose prompts hold some words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sur.cache import Store


class PromptSearch:
    """Search in the prompts of a store; its rows are read by the first search, later ones read only what was added."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._texts: list[str] = []  # both prompts of each row, case folded
        self._slots: list[int] = []
        self._partitions = 0

    def find(self, text: str, limit: int | None = None) -> list[int]:
        """Slots, ascending, of rows whose prompts hold every word of `text`, in any case and order, at most `limit`.

        The simple and the complex prompt are searched together. No words find no rows.
        """
        self._read_new()
        words = text.casefold().split()
        places = holding(self._texts, range(len(self._texts)), words) if words else []
        return [self._slots[place] for place in places][:limit]

    def _read_new(self) -> None:
        """Read the partitions that are new; rows never change in theirs."""
        for partition in range(self._partitions, self._store.n_partitions):
            rows = self._store.rows(partition)
            self._texts += [f"{row.simple}\n{row.complex}".casefold() for row in rows]
            self._slots += [row.slot for row in rows]
            self._partitions = partition + 1


def holding(texts: Sequence[str], places: Iterable[int], words: Sequence[str]) -> Iterable[int]:
    """The places whose texts hold every word; the longest word is looked for first, since it leaves fewest places."""
    for word in sorted(words, key=len, reverse=True):
        places = [place for place in places if word in texts[place]]
    return places
