"""From a source to a draft: pictures checked and their metadata read, prompts cleaned, unfit candidates left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from PIL import Image

from sur.config.curation import BuildConfig, CleaningConfig, Dialect, FiltersConfig, SourceConfig
from sur.config.data import DataConfig
from sur.data import Quarantined
from sur.data.curation.cleaning import clean, without_control_tokens
from sur.data.curation.content_words import words
from sur.data.curation.draft import UNREADABLE, BuildDraft, LeftOutRow, ProgressMaker
from sur.data.curation.filters import PICTURE, LeftOut, check_picture, check_text
from sur.data.curation.metadata.generator_metadata import GeneratorMetadata, texts_in_picture
from sur.data.curation.metadata.read import read_generator_metadata
from sur.data.curation.sources import RowCandidate, Source, open_source
from sur.support.errors import RowError
from sur.support.images import ImageError, decode, open_checked
from sur.support.progress import Progress

LONGEST_PROMPT = DataConfig.model_fields["max_prompt_chars"].default  # characters; extraction would not take more
EXTENSIONS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}


def collect(config: BuildConfig, progress: ProgressMaker = Progress) -> BuildDraft:
    """The candidates of the source with everything that their files say; nothing is written.

    Raises: NotFound, ConfigError when the source is not usable.
    """
    source = open_source(config.source)
    entries = list(source.candidates())
    left = [LeftOutRow(UNREADABLE, entry) for entry in entries if isinstance(entry, Quarantined)]
    draft = BuildDraft(
        [entry for entry in entries if isinstance(entry, RowCandidate)], left, len(entries), source.passed_over
    )
    seen: dict[Any, str] = {}
    with progress("read", len(draft.candidates), "candidates") as bar:

        def examined(candidate: RowCandidate) -> RowCandidate:
            try:
                candidate = with_picture(candidate, source, config.source, config.filters)
                candidate = with_clean_prompt(candidate, config.cleaning)
                check_candidate(candidate, config.filters, can_caption=config.captions is not None)
                refuse_duplicate(candidate, config.filters, seen)
                return candidate
            finally:
                bar.advance()

        return draft.map(examined)


def with_picture(candidate: RowCandidate, source: Source, config: SourceConfig, filters: FiltersConfig) -> RowCandidate:
    """The candidate with its picture's hash, and with the prompts of its metadata where it brings no prompt itself.

    Raises: RowError for a picture that cannot be used, or that has no prompt although it must.
    """
    if not candidate.picture:
        facts = {"source": {"file": config.path.name, "location": candidate.location}}
        return replace(candidate, facts=facts)
    data = source.picture_bytes(candidate.picture)
    image = _checked_picture(data, filters)
    sha256 = hashlib.sha256(data).hexdigest()
    picture_facts = {
        "file": candidate.picture,
        "location": candidate.location,
        "sha256": sha256,
        "bytes": len(data),
        "format": image.format,
        "width": image.width,
        "height": image.height,
    }
    extension = EXTENSIONS.get(str(image.format), f".{str(image.format).lower()}")
    candidate = replace(
        candidate, sha256=sha256, extension=extension, facts={**candidate.facts, "source": picture_facts}
    )
    if config.metadata == "ignored" or candidate.complex:
        return candidate
    return _with_metadata(candidate, image, required=config.metadata == "required")


def with_clean_prompt(candidate: RowCandidate, config: CleaningConfig) -> RowCandidate:
    """The candidate with its complex prompt cleaned; the prompt as written and the removed parts are in the facts.

    Of its narrative, tokens that would steer a text encoder are taken out.
    """
    simple, tokens = without_control_tokens(candidate.simple)
    if tokens:
        facts = {**candidate.facts, "removed_from_text": [list(removal) for removal in tokens]}
        candidate = replace(candidate, simple=" ".join(simple.split()).strip(" ,"), facts=facts)
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
    metadata = candidate.facts.get("metadata", {})
    dialect: Dialect | None = metadata.get("dialect")
    cleaned = clean(candidate.complex, config, dialect, _sampler_steps(metadata.get("fields", {})))
    negative = clean(candidate.negative, config, dialect).text if candidate.negative else ""
    facts = {**candidate.facts, "original": candidate.complex}
    if cleaned.removed:
        facts["removed"] = [list(removal) for removal in cleaned.removed]
    parts = [part for part in (negative, cleaned.negative) if part]
    return replace(candidate, complex=cleaned.text, negative=", ".join(dict.fromkeys(parts)), facts=facts)


def with_short_negative(candidate: RowCandidate) -> RowCandidate:
    """The candidate with a negative prompt that is too long cut at the last comma that fits; the facts say so."""
    length = len(candidate.negative)
    if length <= LONGEST_PROMPT:
        return candidate
    cut = candidate.negative[:LONGEST_PROMPT]
    cut = cut[: cut.rfind(",")] if "," in cut else cut
    facts = {**candidate.facts, "negative_cut": f"{length} characters, more than {LONGEST_PROMPT}: cut to {len(cut)}"}
    if "metadata" in facts:
        facts["metadata"] = {**facts["metadata"], "negative": cut}
    return replace(candidate, negative=cut, facts=facts)


def check_candidate(candidate: RowCandidate, filters: FiltersConfig, can_caption: bool) -> None:
    """Raises: LeftOut when one of the candidate's texts is unfit, or when it has no text and no way to get one.

    can_caption: whether the build has a model that describes pictures.
    """
    if "original" in candidate.facts:
        check_text(candidate.complex, "prompt", filters)
    if candidate.simple:
        check_text(candidate.simple, "text", filters)
    if not candidate.simple and not candidate.complex and not (candidate.picture and can_caption):
        raise LeftOut("no metadata", PICTURE, "the picture has no prompt, and nothing describes it", "add `captions`")


def refuse_duplicate(candidate: RowCandidate, filters: FiltersConfig, seen: dict[Any, str]) -> None:
    """Note the candidate in `seen` (content -> location). Raises: LeftOut when an equal one was noted before."""
    if not filters.duplicates:
        return
    key = (candidate.sha256, tuple(words(candidate.simple)), tuple(words(candidate.complex)))
    if key in seen:
        raise LeftOut("duplicate", "duplicate", f"same as {seen[key]}", "nothing to do: it is kept once")
    seen[key] = candidate.location


def _checked_picture(data: bytes, filters: FiltersConfig) -> Image.Image:
    """The picture, opened and not yet loaded. Raises: LeftOut when it is damaged, too large, tiny or blank."""
    try:
        image = open_checked(data, filters.max_image_pixels)
        check_picture(decode(data, filters.max_image_pixels), filters)
    except ImageError as error:
        remedy = error.remedy.replace("data.max_image_pixels", "filters.max_image_pixels")
        kind = "large picture" if "more than the limit" in error.reason else UNREADABLE
        raise LeftOut(kind, PICTURE, error.reason, remedy) from error
    return image


def _with_metadata(candidate: RowCandidate, image: Image.Image, required: bool) -> RowCandidate:
    """The candidate with the prompts that a generator left in its picture; unreadable metadata are noted as a fact."""
    try:
        image.load()
        metadata: GeneratorMetadata | None = read_generator_metadata(texts_in_picture(image))
    except Exception as error:  # MetadataError, and whatever Pillow raises for damaged chunks and EXIF
        if required:
            raise LeftOut("metadata", PICTURE, str(error), "set source.metadata to read, and caption it") from error
        return replace(candidate, facts={**candidate.facts, "metadata_error": str(error)})
    if metadata is None or not metadata.prompt.strip():
        if required:
            tool = None if metadata is None else metadata.tool
            reason = "no prompt in its metadata" if tool is None else f"{tool} wrote an empty prompt into it"
            raise LeftOut("no metadata", PICTURE, reason, "set source.metadata to read, and caption it")
        return candidate
    facts = {**candidate.facts, "metadata": asdict(metadata)}
    return replace(candidate, complex=metadata.prompt, negative=metadata.negative, facts=facts)


def _sampler_steps(fields: Any) -> int | None:
    """The sampler's number of steps among a tool's own fields; None where it is absent or unreadable."""
    steps = fields.get("Steps", fields.get("steps")) if isinstance(fields, Mapping) else None
    try:
        return int(steps) if steps is not None else None
    except (TypeError, ValueError):
        return None
