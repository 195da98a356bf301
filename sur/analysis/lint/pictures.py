"""Checks of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.picture_features import PictureFeatures, pixel_spread
from sur.analysis.lint.prompts import KEEP_ONE, hex_ids, quoted, single_row_finding
from sur.analysis.lint.similar import similar_vectors
from sur.cache import RowRecord

BLANK = 0.02  # a picture is as good as blank below this deviation of its pixels
FLAT = 0.25  # a row's picture is decoded and checked below this spread of its latents, relative to most rows'


def same_pictures(features: PictureFeatures) -> list[list[int]]:
    """Groups of the indices of rows with the same picture."""
    groups: dict[bytes, list[int]] = {}
    for index, digest in zip(features.indices.tolist(), features.digests, strict=True):
        groups.setdefault(digest, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_pictures(rows: Sequence[RowRecord], features: PictureFeatures, threshold: float) -> Iterator[Finding]:
    """Findings of different pictures that look nearly the same; a picture that several rows have counts once."""
    first: dict[bytes, int] = {}
    for at, digest in enumerate(features.digests):
        first.setdefault(digest, at)
    distinct = np.array(sorted(first.values()), np.int64)
    for group in similar_vectors(features.vectors[distinct], threshold):
        members = [rows[int(features.indices[distinct[place]])] for place in group]
        ids = hex_ids(members)
        message = f"{len(members)} pictures look nearly the same ({members[0].image}, {members[1].image})"
        yield Finding("near-duplicate-picture", message, KEEP_ONE, ids, ids[1:])


def blank_pictures(
    rows: Sequence[RowRecord], features: PictureFeatures, decoded: Callable[[RowRecord], Image.Image] | None
) -> Iterator[Finding]:
    """Findings of pictures in which there is next to nothing to see.

    decoded: the function that gives a row's picture, which decides where the features are those of latents; None if no
    VAE can decode them.
    """
    files = features.how == "the picture files"
    for at in np.flatnonzero(features.spread < (BLANK if files else FLAT)).tolist():
        row = rows[features.indices[at]]
        spread = features.spread[at] if files or decoded is None else pixel_spread(decoded(row))
        if files or decoded is not None:
            if spread >= BLANK:
                continue
            message = f"the picture {row.image} is blank or nearly so (its pixels deviate by {spread:.4f})"
        else:
            message = f"the picture {row.image} seems to be blank: its latents vary {spread:.2f} as much as most rows'"
        yield single_row_finding("blank-picture", row, message, "replace the picture or leave the row out")


def unsafe_pictures(
    rows: Iterable[RowRecord],
    picture: Callable[[RowRecord], Image.Image],
    flags: Callable[[list[Image.Image]], list[bool]],
) -> Iterator[Finding]:
    """Findings of pictures that a safety checker flags; `flags` takes some pictures at a time."""
    batch: list[RowRecord] = []
    for row in [*rows, None]:
        if row is not None:
            batch.append(row)
        if batch and (row is None or len(batch) == 16):
            for member, flagged in zip(batch, flags([picture(one) for one in batch]), strict=True):
                if flagged:
                    message = f"the safety checker flags the picture {member.image} of {quoted(member.simple)}"
                    remedy = "look at it; leave it out if it is not wanted"
                    yield single_row_finding("unsafe-picture", member, message, remedy)
            batch = []
