"""Nearest neighbours of a row by one feature: cosine of the rows' vectors, exact, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sur.analysis.moments import DimensionMoments
from sur.analysis.store.vectors import row_vectors
from sur.cache import Store
from sur.support.errors import NotInStore

VECTORS_AT_ONCE = 8192  # vectors that are compared at once


@dataclass(frozen=True)
class Neighbour:
    """A row, and the cosine of its vector to that of another row."""

    slot: int
    similarity: float


class Neighbours:
    """Search for the nearest vectors of one feature (see `sur.analysis.store.vectors`).

    standardised: compare deviations from the mean vector, in standard deviations of each dimension. Otherwise the large
    common part and the massive dimensions of a language model's states decide: the cosine of any two rows is nearly 1,
    and the order is that of the prompts' lengths.

    Raises: as `row_vectors`.
    """

    def __init__(
        self, store: Store, name: str, standardised: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.name = name
        self.vectors, self.slots = row_vectors(store, name, progress)
        self._mean = self._scale = None
        if standardised and len(self.vectors):
            moments = DimensionMoments(self.vectors.shape[1])
            for block in self._blocks():
                moments.add(block)
            deviation = moments.deviation()
            self._mean = moments.mean.astype(np.float32)
            self._scale = (np.where(deviation > 0, 1, 0) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
        lengths = [np.linalg.norm(block, axis=1) for block in self._blocks()]
        self._norms = np.concatenate(lengths) if lengths else np.zeros(0, np.float32)

    def nearest(self, slot: int, k: int) -> list[Neighbour]:
        """The k rows nearest to that of a slot, without itself, the nearest first; ties by slot.

        Raises: NotInStore when the row has no value of the feature.
        """
        place = int(np.searchsorted(self.slots, slot))
        if place == len(self.slots) or self.slots[place] != slot:
            raise NotInStore(f"slot {slot} has no value of {self.name}, so it has no neighbours by it")
        query = self._prepared(self.vectors[place])
        similarity = np.concatenate([block @ query for block in self._blocks()])
        similarity /= np.maximum(self._norms * self._norms[place], np.finfo(np.float32).tiny)
        similarity[place] = -np.inf
        k = max(0, min(k, len(similarity) - 1))
        if k == 0:
            return []
        least = np.partition(similarity, len(similarity) - k)[len(similarity) - k]
        candidates = np.flatnonzero(similarity >= least)
        best = candidates[np.argsort(-similarity[candidates], kind="stable")][:k]
        return [Neighbour(int(self.slots[p]), float(np.clip(similarity[p], -1, 1))) for p in best]

    def similarity(self, slot: int, others: Sequence[int]) -> list[float | None]:
        """Cosine of a slot's vector to that of each other slot; None if one of the two has no value of the feature."""
        first, *rest = (self._vector(one) for one in (slot, *others))
        return [None if first is None or vector is None else _cosine(first, vector) for vector in rest]

    def _vector(self, slot: int) -> np.ndarray | None:
        place = int(np.searchsorted(self.slots, slot))
        if place == len(self.slots) or self.slots[place] != slot:
            return None
        return self._prepared(self.vectors[place])

    def _blocks(self) -> Iterator[np.ndarray]:
        """The vectors as they are compared, some rows at a time."""
        for start in range(0, len(self.vectors), VECTORS_AT_ONCE):
            yield self._prepared(self.vectors[start : start + VECTORS_AT_ONCE])

    def _prepared(self, vectors: np.ndarray) -> np.ndarray:
        """The vectors as they are compared: standardised, if asked for."""
        if self._mean is None or self._scale is None:
            return np.asarray(vectors)
        return (vectors - self._mean) * self._scale


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.clip(a @ b / max(lengths, np.finfo(np.float32).tiny), -1, 1))
