"""Checks of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.picture_features import Looks, pixel_spread
from sur.analysis.lint.prompts import KEEP_ONE, hex_ids, quoted, single
from sur.analysis.lint.similar import similar_vectors
from sur.cache import RowRecord

BLANK = 0.02  # deviation of pixels, below which a picture is as good as blank
FLAT = 0.25  # spread of latents, relative to most rows', below which a row's picture is decoded and looked at


def same_pictures(looks: Looks) -> list[list[int]]:
    """Groups of rows' indices with the same picture."""
    groups: dict[bytes, list[int]] = {}
    for index, digest in zip(looks.indices.tolist(), looks.digests, strict=True):
        groups.setdefault(digest, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pictures(rows: Sequence[RowRecord], looks: Looks, threshold: float) -> Iterator[Finding]:
    """Different pictures that look nearly the same; a picture that several rows have counts once."""
    first: dict[bytes, int] = {}
    for at, digest in enumerate(looks.digests):
        first.setdefault(digest, at)
    distinct = np.array(sorted(first.values()), np.int64)
    for group in similar_vectors(looks.vectors[distinct], threshold):
        members = [rows[int(looks.indices[distinct[each]])] for each in group]
        ids = hex_ids(members)
        said = f"{len(members)} pictures look nearly the same ({members[0].image}, {members[1].image})"
        yield Finding("near-duplicate-picture", said, KEEP_ONE, ids, ids[1:])


def blank_pictures(
    rows: Sequence[RowRecord], looks: Looks, decoded: Callable[[RowRecord], Image.Image] | None
) -> Iterator[Finding]:
    """Pictures in which there is next to nothing to see.

    decoded: where the looks are of latents, gives the row's picture, which decides; None where nothing can decode it.
    """
    files = looks.how == "the picture files"
    for at in np.flatnonzero(looks.spread < (BLANK if files else FLAT)).tolist():
        row = rows[looks.indices[at]]
        spread = looks.spread[at] if files or decoded is None else pixel_spread(decoded(row))
        if files or decoded is not None:
            if spread >= BLANK:
                continue
            said = f"the picture {row.image} is blank or nearly so (its pixels deviate by {spread:.4f})"
        else:
            said = f"the picture {row.image} seems to be blank: its latents vary {spread:.2f} as much as most rows'"
        yield single("blank-picture", row, said, "replace the picture or leave the row out")


def unsafe_pictures(
    rows: Iterable[RowRecord],
    picture: Callable[[RowRecord], Image.Image],
    flags: Callable[[list[Image.Image]], list[bool]],
) -> Iterator[Finding]:
    """Pictures that a safety checker flags; `flags` judges some at a time."""
    batch: list[RowRecord] = []
    for row in [*rows, None]:
        if row is not None:
            batch.append(row)
        if batch and (row is None or len(batch) == 16):
            for each, flagged in zip(batch, flags([picture(one) for one in batch]), strict=True):
                if flagged:
                    said = f"the safety checker flags the picture {each.image} of {quoted(each.simple)}"
                    yield single("unsafe-picture", each, said, "look at it; leave it out if it is not wanted")
            batch = []
