"""Read every row and image once: good rows become records, bad rows go into quarantine."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.progress import track

from sur.cache import RowRecord, row_id
from sur.config.data import DataConfig
from sur.data.exclude import read_exclude
from sur.data.open import open_rows
from sur.data.quarantine import Quarantined
from sur.data.source import Row, RowSource
from sur.support.errors import RowError
from sur.support.images import ImageError, decode, open_checked

logger = logging.getLogger(__name__)

EXCLUDED = "data.exclude"  # field of a row that was left out on purpose


def scan_rows(config: DataConfig, need_image: bool) -> tuple[list[RowRecord], list[Quarantined]]:
    """The valid rows of a data source, and the rows left out with their reasons; see `scan`."""
    logger.info("reading and checking the rows of %s", config.path)
    return scan(open_rows(config), need_image)


def scan(source: RowSource, need_image: bool) -> tuple[list[RowRecord], list[Quarantined]]:
    """Check all rows, images included; exact duplicates are kept once and reported (field "duplicate").

    A row that names an image must have a good one, needed or not, because its id covers the image's bytes;
    set data.image_column to null to leave images out. An unpaired narrative prompt (no complex prompt, with
    data.allow_unpaired) has no image by nature, and passes even when images are needed.
    """
    records: list[RowRecord] = []
    quarantined: list[Quarantined] = []
    first_seen: dict[bytes, str] = {}
    left_out = read_exclude(source.config.exclude)
    for row in track(source, "rows", console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()):
        if isinstance(row, Row):
            origin, row = row, _checked(source, row, need_image, first_seen)
            if isinstance(row, RowRecord) and row.id in left_out:
                reason = f"left out: its id {row.id.hex()} is in {source.config.exclude}"
                remedy = "take it from the file to have it back"
                row = Quarantined(origin.position, origin.location, EXCLUDED, reason, remedy)
        if isinstance(row, RowRecord):
            records.append(row)
        else:
            quarantined.append(row)
    return records, quarantined


def _checked(source: RowSource, row: Row, need_image: bool, first_seen: dict[bytes, str]) -> RowRecord | Quarantined:
    config = source.config
    column = config.image_column or "image"
    image: bytes | None = None
    try:
        if row.image:
            image = source.image_bytes(row.image)
            if len(image) > config.max_image_bytes:
                reason = f"{len(image)} bytes, more than the limit of {config.max_image_bytes}"
                raise RowError(column, reason, "shrink the image or raise data.max_image_bytes")
            (decode if config.check_images == "decode" else open_checked)(image, config.max_image_pixels)
        elif need_image and row.complex:
            remedy = "name one in data.image_column, or leave the VAE out of the config"
            raise RowError(column, "the row has no image, but an image feature is asked for", remedy)
    except ImageError as error:
        return Quarantined(row.position, row.location, column, error.reason, error.remedy)
    except RowError as error:
        return Quarantined(row.position, row.location, error.field, error.reason, error.remedy)
    identifier = row_id(row.simple, row.complex, image)
    if identifier in first_seen:
        reason = f"same prompts and image as {first_seen[identifier]}"
        return Quarantined(row.position, row.location, "duplicate", reason, "nothing to do: it is kept once")
    first_seen[identifier] = row.location
    return RowRecord(identifier, row.simple, row.complex, row.image)
