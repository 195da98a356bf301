"""Near-duplicates among many texts or vectors, without comparing all pairs.

Candidates share a bucket of a locality-sensitive hash, and each candidate pair is then compared exactly, so no pair
below the threshold makes a group. The docstring of each search gives the probability of missing a pair. It does not
depend on the size of a bucket: a large one is split so that no pair is lost (texts), or compared whole, by products of
matrices (vectors).
"""

from __future__ import annotations

import math
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

SMALL_BUCKET = 16  # texts of a bucket that is not split
TILE_ROWS = 1024  # vectors that are compared with as many others at once
TEXT_BANDS, TEXT_ROWS = 20, 6
VECTOR_BANDS, VECTOR_BITS = 8, 16
_BLOCK_ROWS = 8192
_PRIME = np.uint64(2**61 - 1)


def shingles(text: str) -> frozenset[str]:
    """Words and pairs of neighbouring words, in lower case, without punctuation."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset(words) | {f"{a} {b}" for a, b in zip(words, words[1:], strict=False)}


def similar_texts(texts: Sequence[str], threshold: float) -> list[list[int]]:
    """Groups of texts (their indices, ascending) linked by pairs whose shingles have a Jaccard index >= threshold.

    Candidates by MinHash (Broder 1997) in 20 bands of 6: a pair of index 0.8 is missed with probability 0.002, one of
    0.9 with less than 1e-6.
    """
    hashed = [_hashes(text) for text in texts]
    nonempty = [index for index, hashes in enumerate(hashed) if len(hashes)]
    if len(nonempty) < 2:
        return []
    hashes = np.concatenate([hashed[index] for index in nonempty])
    starts = np.cumsum([0, *(len(hashed[index]) for index in nonempty[:-1])])

    @lru_cache(maxsize=30_000)  # all of them would fill the memory
    def known(place: int) -> frozenset[str]:
        return frozenset(map(sys.intern, shingles(texts[nonempty[place]])))

    keys = np.random.Philox(key=1).random_raw(2 * TEXT_BANDS * TEXT_ROWS).reshape(2, -1) % (2**32 - 1) + 1
    bands = np.empty((TEXT_BANDS, len(nonempty)), np.uint64)
    for band in range(TEXT_BANDS):
        smallest = [
            np.minimum.reduceat((hashes * a + b) % _PRIME, starts)
            for a, b in keys[:, band * TEXT_ROWS : (band + 1) * TEXT_ROWS].T.astype(np.uint64)
        ]
        bands[band] = _mixed(smallest)
    links = _Links(len(nonempty))
    for number, band in enumerate(bands):
        for bucket in _buckets(band):
            places = bucket.tolist()
            for part in sharing_rare(places, known, threshold) if len(places) > SMALL_BUCKET else [places]:
                _link_texts(part, bands[:number], known, threshold, links)
    return [[nonempty[i] for i in group] for group in links.groups()]


def similar_vectors(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Groups of rows (their indices, ascending) of float32 (rows, dim) linked by pairs with a cosine >= threshold.

    The vectors' mean is taken off first. Candidates by the sides of random hyperplanes (Charikar 2002), in 8 bands of
    16: a pair of cosine 0.99 is missed with probability 0.02, one of 0.999 with 1e-5. The time grows with the square of
    a bucket's rows where many rows look in few directions.
    """
    if len(vectors) < 2:
        return []
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    directions = _normals(vectors.shape[1], VECTOR_BANDS * VECTOR_BITS)
    bands = np.empty((VECTOR_BANDS, len(vectors)), np.uint16)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        sides = (vectors[start : start + _BLOCK_ROWS] - mean) @ directions > 0
        bands[:, start : start + _BLOCK_ROWS] = np.packbits(sides, axis=1).view(">u2").T

    def unit(rows: np.ndarray) -> np.ndarray:
        chosen = vectors[rows] - mean
        return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    links = _Links(len(vectors))
    for number, band in enumerate(bands):
        for bucket in _buckets(band):
            _link_vectors(bucket, bands[:number], unit, threshold, links)
    return links.groups()


def sharing_rare(
    bucket: Sequence[int], known: Callable[[int], frozenset[str]], threshold: float
) -> Iterator[list[int]]:
    """Lists of texts that share a shingle which is rare among the texts.

    Any two of a Jaccard index >= threshold share a list: they have threshold * n of one's n shingles in common, so
    that one of its n - threshold * n + 1 rarest is among those (prefix filtering: Chaudhuri, Ganti and Kaushik 2006).
    """
    counts = Counter(shingle for place in bucket for shingle in known(place))
    sharing: dict[str, list[int]] = defaultdict(list)
    for place in bucket:
        ordered = sorted(known(place), key=lambda shingle: (counts[shingle], shingle))
        for shingle in ordered[: len(ordered) - math.ceil(threshold * len(ordered) - 1e-9) + 1]:
            sharing[shingle].append(place)
    return (places for places in sharing.values() if len(places) > 1)


def _link_texts(
    among: list[int], earlier: np.ndarray, known: Callable[[int], frozenset[str]], threshold: float, links: _Links
) -> None:
    """Link all similar pairs, except those that share one of the earlier bands (bands, n): they were compared there."""
    for first, one in enumerate(among[:-1]):
        others = [other for other in among[first + 1 :] if links.root(other) != links.root(one)]
        if not others:  # all that are left are linked
            return
        if len(others) > SMALL_BUCKET and len(earlier):
            fresh = ~(earlier[:, others] == earlier[:, [one]]).any(axis=0)
            others = [other for other, new in zip(others, fresh.tolist(), strict=True) if new]
        mine = known(one)
        for other in others:
            if _jaccard(mine, known(other)) >= threshold:
                links.join(one, other)


def _link_vectors(
    bucket: np.ndarray,
    earlier: np.ndarray,
    unit: Callable[[np.ndarray], np.ndarray],
    threshold: float,
    links: _Links,
) -> None:
    """As `_link_texts`, for vectors; `unit` gives the vectors of some rows at length 1."""
    if len(earlier) and len(bucket) > TILE_ROWS:  # so that rows of one earlier bucket are in one tile
        bucket = bucket[np.lexsort(earlier[:, bucket])]
    tiles = [bucket[start : start + TILE_ROWS] for start in range(0, len(bucket), TILE_ROWS)]
    for first, rows in enumerate(tiles):
        left = unit(rows)
        for columns in tiles[first:]:
            shared = earlier[:, rows[:1]]
            if (shared == earlier[:, rows]).all(axis=1)[(shared == earlier[:, columns]).all(axis=1)].any():
                continue
            if len({links.root(row) for row in (*rows.tolist(), *columns.tolist())}) == 1:
                continue
            alike = left @ (left if columns is rows else unit(columns)).T >= threshold - 1e-6  # of rounding
            for one, other in _forest(np.triu(alike, 1) if columns is rows else alike):
                links.join(int(rows[one]), int(columns[other]))


def _forest(alike: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (row, column) that link the same as all true elements of a matrix; few, even if those are many."""
    rows, columns = np.nonzero(alike)
    if len(rows) > alike.shape[0]:
        graph = coo_array(
            (np.ones(len(rows), np.int8), (rows, columns + alike.shape[0])), shape=(sum(alike.shape),) * 2
        )
        rows, columns = minimum_spanning_tree(graph).nonzero()
        columns = columns - alike.shape[0]
    return zip(rows.tolist(), columns.tolist(), strict=True)


class _Links:
    """Links between n indices (union-find)."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, index: int) -> int:
        """The least index of the group of an index, which names the group."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    def join(self, one: int, other: int) -> None:
        """Make one group of two indices' groups."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low

    def groups(self) -> list[list[int]]:
        """Groups of two or more indices, ascending."""
        members: dict[int, list[int]] = {}
        for index in range(len(self._parent)):
            members.setdefault(self.root(index), []).append(index)
        return [group for group in members.values() if len(group) > 1]


def _buckets(band: np.ndarray) -> Iterator[np.ndarray]:
    """Groups of two or more indices that share a value."""
    order = np.argsort(band, kind="stable")
    edges = [0, *(np.flatnonzero(np.diff(band[order])) + 1).tolist(), len(order)]
    return (order[start:end] for start, end in zip(edges, edges[1:], strict=False) if end - start > 1)


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One number for each row of several columns; different rows get different numbers, except by chance."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _hashes(text: str) -> np.ndarray:
    return np.array([zlib.crc32(shingle.encode()) for shingle in shingles(text)], np.uint64)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    both = len(a & b)
    return both / (len(a) + len(b) - both)


def _normals(rows: int, columns: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=2)).standard_normal((rows, columns), dtype=np.float32)
