"""From a source to a draft: pictures checked and their metadata read, prompts cleaned, what is unfit left out."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from typing import Any

from sur.config.curation import BuildConfig, Dialect
from sur.config.data import DataConfig
from sur.data import Quarantined
from sur.data.curation.cleaning import clean
from sur.data.curation.content_words import words
from sur.data.curation.draft import UNREADABLE, Draft, Left, ProgressMaker
from sur.data.curation.filters import PICTURE, LeftOut, check_picture, check_text
from sur.data.curation.metadata.embedded import embedded_texts
from sur.data.curation.metadata.read import read_embedded
from sur.data.curation.sources import Candidate, Source, open_source
from sur.support.errors import RowError
from sur.support.images import ImageError, decode, open_checked
from sur.support.progress import Progress

LONGEST_PROMPT = DataConfig.model_fields["max_prompt_chars"].default  # characters; extraction would not take more
EXTENSIONS = {"JPEG": ".jpg", "TIFF": ".tif"}


def collect(config: BuildConfig, progress: ProgressMaker = Progress) -> Draft:
    """Candidates of the source with everything that their files say; nothing is written.

    Raises: FileNotFoundError, ConfigError when the source is not usable.
    """
    source = open_source(config.source)
    found = list(source.candidates())
    left = [Left(UNREADABLE, each) for each in found if isinstance(each, Quarantined)]
    draft = Draft([each for each in found if isinstance(each, Candidate)], left, len(found))
    seen: dict[Any, str] = {}
    with progress("read", len(draft.candidates), "candidates") as shown:

        def examined(candidate: Candidate) -> Candidate:
            try:
                return once(checked(cleaned(with_picture(candidate, source, config), config), config), config, seen)
            finally:
                shown.advance()

        return draft.each(examined)


def with_picture(candidate: Candidate, source: Source, config: BuildConfig) -> Candidate:
    """The candidate with its picture's hash, and the prompts of its metadata where it brings none itself.

    Raises: RowError for a picture that cannot be used, or has no prompt although it must.
    """
    if not candidate.picture:
        facts = {"source": {"file": config.source.path.name, "location": candidate.location}}
        return replace(candidate, facts=facts)
    data = source.picture_bytes(candidate.picture)
    try:
        image = open_checked(data, config.filters.max_image_pixels)
        check_picture(decode(data, config.filters.max_image_pixels), config.filters)
    except ImageError as error:
        reason = error.remedy.replace("data.max_image_pixels", "filters.max_image_pixels")
        kind = "large picture" if "more than the limit" in error.reason else UNREADABLE
        raise LeftOut(kind, PICTURE, error.reason, reason) from error
    sha256 = hashlib.sha256(data).hexdigest()
    about = {
        "file": candidate.picture,
        "location": candidate.location,
        "sha256": sha256,
        "bytes": len(data),
        "format": image.format,
        "width": image.width,
        "height": image.height,
    }
    extension = EXTENSIONS.get(str(image.format), f".{str(image.format).lower()}")
    candidate = replace(candidate, sha256=sha256, extension=extension, facts={"source": about})
    if config.source.metadata == "ignored" or candidate.complex:
        return candidate
    try:
        image.load()
        found = read_embedded(embedded_texts(image))
    except Exception as error:  # MetadataError, and whatever Pillow raises for damaged chunks and EXIF
        if config.source.metadata == "required":
            raise LeftOut("metadata", PICTURE, str(error), "set source.metadata to read, and caption it") from error
        return replace(candidate, facts={**candidate.facts, "metadata_error": str(error)})
    if found is None or not found.prompt.strip():
        if config.source.metadata == "required":
            reason = "no prompt in its metadata" if found is None else f"{found.tool} wrote an empty prompt into it"
            raise LeftOut("no metadata", PICTURE, reason, "set source.metadata to read, and caption it")
        return candidate
    return replace(
        candidate, complex=found.prompt, negative=found.negative, facts={**candidate.facts, "metadata": asdict(found)}
    )


def cleaned(candidate: Candidate, config: BuildConfig) -> Candidate:
    """The candidate with its complex prompt cleaned; the prompt as written and what was left out are in the facts."""
    if not candidate.complex:
        return candidate
    if len(candidate.complex) > LONGEST_PROMPT:
        reason = f"{len(candidate.complex)} characters, more than {LONGEST_PROMPT}"
        raise LeftOut("too long", "prompt", reason, "shorten it")
    try:
        (candidate.complex + candidate.negative).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError("prompt", f"not valid Unicode ({error.reason})", "repair the file's encoding") from error
    candidate = with_short_negative(candidate)
    told = candidate.facts.get("metadata", {})
    dialect: Dialect | None = told.get("dialect")
    made = clean(candidate.complex, config.cleaning, dialect, _steps(told.get("fields", {})))
    negative = clean(candidate.negative, config.cleaning, dialect).text if candidate.negative else ""
    facts = {**candidate.facts, "original": candidate.complex}
    if made.removed:
        facts["removed"] = [list(removal) for removal in made.removed]
    parts = [part for part in (negative, made.negative) if part]
    return replace(candidate, complex=made.text, negative=", ".join(dict.fromkeys(parts)), facts=facts)


def with_short_negative(candidate: Candidate) -> Candidate:
    """The candidate with a negative prompt that is too long cut at its last comma in time, and that in the facts."""
    length = len(candidate.negative)
    if length <= LONGEST_PROMPT:
        return candidate
    cut = candidate.negative[:LONGEST_PROMPT]
    cut = cut[: cut.rfind(",")] if "," in cut else cut
    facts = {**candidate.facts, "negative_cut": f"{length} characters, more than {LONGEST_PROMPT}: cut to {len(cut)}"}
    if "metadata" in facts:
        facts["metadata"] = {**facts["metadata"], "negative": cut}
    return replace(candidate, negative=cut, facts=facts)


def checked(candidate: Candidate, config: BuildConfig) -> Candidate:
    """The candidate itself. Raises: LeftOut when one of the texts that it has is unfit."""
    if "original" in candidate.facts:
        check_text(candidate.complex, "prompt", config.filters)
    if candidate.simple:
        check_text(candidate.simple, "text", config.filters)
    if not candidate.simple and not candidate.complex and not (candidate.picture and config.captions):
        raise LeftOut("no metadata", PICTURE, "the picture has no prompt, and nothing describes it", "add `captions`")
    return candidate


def once(candidate: Candidate, config: BuildConfig, seen: dict[Any, str]) -> Candidate:
    """The candidate itself, noted. Raises: LeftOut when the same was there before."""
    if not config.filters.duplicates:
        return candidate
    key = (candidate.sha256, tuple(words(candidate.simple)), tuple(words(candidate.complex)))
    if key in seen:
        raise LeftOut("duplicate", "duplicate", f"same as {seen[key]}", "nothing to do: it is kept once")
    seen[key] = candidate.location
    return candidate


def _steps(fields: Any) -> int | None:
    """The sampler's steps, as a tool wrote them."""
    found = fields.get("Steps", fields.get("steps")) if isinstance(fields, dict) else None
    try:
        return int(found) if found is not None else None
    except (TypeError, ValueError):
        return None
