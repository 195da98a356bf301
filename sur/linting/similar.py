"""Near-duplicates among many texts or vectors, without comparing all pairs.

Candidates share a bucket of a locality-sensitive hash, and each candidate pair is then compared exactly: no group is
made by a pair below the threshold. What may be missed is said beside each hash.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

ANCHORS = 8  # rows of a bucket that every other row of it is compared with
TEXT_BANDS, TEXT_ROWS = 20, 6
VECTOR_BANDS, VECTOR_BITS = 8, 16
BLOCK_ROWS = 8192
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
    sets = [shingles(text) for text in texts]
    kept = [index for index, each in enumerate(sets) if each]
    if len(kept) < 2:
        return []
    hashes = np.concatenate([np.fromiter((zlib.crc32(s.encode()) for s in sets[i]), np.uint64) for i in kept])
    starts = np.cumsum([0, *(len(sets[i]) for i in kept[:-1])])
    keys = np.random.Philox(key=1).random_raw(2 * TEXT_BANDS * TEXT_ROWS).reshape(2, -1) % (2**32 - 1) + 1
    bands = []
    for band in range(TEXT_BANDS):
        smallest = [
            np.minimum.reduceat((hashes * a + b) % _PRIME, starts)
            for a, b in keys[:, band * TEXT_ROWS : (band + 1) * TEXT_ROWS].T.astype(np.uint64)
        ]
        bands.append(_mixed(smallest))

    def alike(one: int, others: np.ndarray) -> np.ndarray:
        first = sets[kept[one]]
        return np.array([_jaccard(first, sets[kept[other]]) >= threshold for other in others.tolist()], bool)

    return [[kept[i] for i in group] for group in _groups(bands, len(kept), alike)]


def similar_vectors(vectors: np.ndarray, threshold: float) -> list[list[int]]:
    """Groups of rows (their indices, ascending) of float32 (rows, dim) linked by pairs with a cosine >= threshold.

    The vectors' mean is taken off first. Candidates by the sides of random hyperplanes (Charikar 2002), in 8 bands of
    16: a pair of cosine 0.99 is missed with probability 0.02, one of 0.999 with 1e-5.
    """
    if len(vectors) < 2:
        return []
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    directions = _normals(vectors.shape[1], VECTOR_BANDS * VECTOR_BITS)
    bands = np.empty((VECTOR_BANDS, len(vectors)), np.uint16)
    for start in range(0, len(vectors), BLOCK_ROWS):
        sides = (vectors[start : start + BLOCK_ROWS] - mean) @ directions > 0
        bands[:, start : start + BLOCK_ROWS] = np.packbits(sides, axis=1).view(">u2").T

    def alike(one: int, others: np.ndarray) -> np.ndarray:
        first, rest = vectors[one] - mean, vectors[others] - mean
        norms = np.linalg.norm(rest, axis=1) * np.linalg.norm(first)
        return rest @ first >= threshold * norms

    return _groups(list(bands), len(vectors), alike)


def _groups(bands: Iterable[np.ndarray], n: int, alike: Callable[[int, np.ndarray], np.ndarray]) -> list[list[int]]:
    """Indices linked by pairs that share a band's value and are alike."""
    parent = np.arange(n)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    for band in bands:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, edges):
            for place in range(min(ANCHORS, len(bucket) - 1)):
                one = int(bucket[place])
                others = np.array([o for o in bucket[place + 1 :].tolist() if root(o) != root(one)], np.int64)
                for other in others[alike(one, others)].tolist() if len(others) else ():
                    low, high = sorted((root(one), root(other)))
                    parent[high] = low
    members: dict[int, list[int]] = {}
    for index in range(n):
        members.setdefault(root(index), []).append(index)
    return [group for group in members.values() if len(group) > 1]


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One number of each row of several columns; rows that differ get, but for chance, other numbers."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def _normals(rows: int, columns: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=2)).standard_normal((rows, columns), dtype=np.float32)
