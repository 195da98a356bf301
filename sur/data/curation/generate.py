"""The texts that a draft lacks: models write those that the log does not have, the log gives the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from PIL import Image

from sur.config.curation import BuildConfig, FiltersConfig, Side
from sur.data.curation.draft import BuildDraft, ProgressMaker
from sur.data.curation.filters import PICTURE, Column, LeftOut, check_rewrite, check_text, check_written
from sur.data.curation.sources import RowCandidate, Source, open_source
from sur.data.curation.writers.captions import Captioner
from sur.data.curation.writers.rewriting import Rewriter, strip_chatter
from sur.data.curation.writers.text_log import TextLog, Written, digest
from sur.support.errors import RowError
from sur.support.images import ImageError, decode
from sur.support.progress import Progress

COLUMN: dict[Side, Column] = {"simple": "text", "complex": "prompt"}


def caption(config: BuildConfig, draft: BuildDraft, progress: ProgressMaker = Progress) -> BuildDraft:
    """The draft with a narrative for every picture that had none; candidates with an unfit caption are left out."""
    if config.captions is None:
        return draft
    captioner, source = Captioner(config.captions), open_source(config.source)
    identity = captioner.identity()
    pictures = {
        candidate.sha256: candidate.picture
        for candidate in draft.candidates
        if candidate.picture and not candidate.simple
    }
    try:
        with TextLog(config.run_dir) as log, progress("caption", len(pictures), "pictures") as bar:
            missing = [sha256 for sha256 in pictures if log.get(identity, sha256) is None]
            bar.advance(len(pictures) - len(missing))
            for start in range(0, len(missing), config.captions.batch_size):
                batch = missing[start : start + config.captions.batch_size]
                images = _unchanged(source, {sha256: pictures[sha256] for sha256 in batch}, config.filters)
                if images:
                    captions = captioner.write(list(images.values()), list(images))
                    log.append(identity, dict(zip(images, captions, strict=True)))
                bar.advance(len(batch))
            texts = {sha256: log.get(identity, sha256) for sha256 in pictures}
    finally:
        captioner.close()

    def captioned(candidate: RowCandidate) -> RowCandidate:
        if candidate.simple or not candidate.picture:
            return candidate
        written = texts[candidate.sha256]
        if written is None:
            raise LeftOut("changed", PICTURE, "it changed while the build ran", "run the build again")
        return _with_text(candidate, "simple", written, identity, config.filters)

    return draft.map(captioned)


def rewrite(config: BuildConfig, draft: BuildDraft, progress: ProgressMaker = Progress) -> BuildDraft:
    """The draft with the missing one of two prompts written from the other, as `rewriting.writes` says.

    Candidates with an unfit text are left out.
    """
    if config.rewriting is None:
        return draft
    rewriter = Rewriter(config.rewriting)
    try:
        for side in config.rewriting.writes:
            draft = _rewrite_side(config, rewriter, side, draft, progress)
    finally:
        rewriter.close()
    return draft


def _rewrite_side(
    config: BuildConfig, rewriter: Rewriter, side: Side, draft: BuildDraft, progress: ProgressMaker
) -> BuildDraft:
    """The draft with one side's missing prompts."""
    identity = rewriter.identity(side)
    inputs = list(dict.fromkeys(filter(None, (_input(candidate, side) for candidate in draft.candidates))))
    with TextLog(config.run_dir) as log:
        missing = [text for text in inputs if log.get(identity, text) is None]
        tokens = dict(zip(missing, rewriter.tokens(missing, side), strict=True))
        longest = rewriter.config.max_prompt_tokens
        too_long = {text: len(ids) for text, ids in tokens.items() if len(ids) > longest}
        missing = [text for text in missing if text not in too_long]
        with progress(f"rewrite to {side}", len(inputs), "prompts") as bar:
            bar.advance(len(inputs) - len(missing))
            for places in rewriter.batches([len(tokens[text]) for text in missing]):
                batch = [missing[place] for place in places]
                rewrites = rewriter.write([tokens[text] for text in batch], batch)
                log.append(identity, dict(zip(batch, rewrites, strict=True)))
                bar.advance(len(batch))
        texts = {text: log.get(identity, text) for text in inputs}

    def rewritten(candidate: RowCandidate) -> RowCandidate:
        original = _input(candidate, side)
        if not original:
            return candidate
        written = texts[original]
        if written is None:
            reason = f"{too_long[original]} tokens with its instruction, more than {rewriter.config.max_prompt_tokens}"
            raise LeftOut("too long", COLUMN[side], reason, "raise rewriting.max_prompt_tokens, or shorten it")
        text, has_more = strip_chatter(written.text)
        stripped = written._replace(text=text, finished=written.finished or has_more)
        candidate = _with_text(candidate, side, stripped, identity, config.filters, written.text)
        check_rewrite(original, text, COLUMN[side], config.filters)
        return candidate

    return draft.map(rewritten)


def _input(candidate: RowCandidate, side: Side) -> str:
    """The prompt from which a candidate's missing one is written; "" when it lacks none, or both."""
    if getattr(candidate, side):
        return ""
    return candidate.complex if side == "simple" else candidate.simple


def _with_text(
    candidate: RowCandidate,
    side: Side,
    written: Written,
    identity: Mapping[str, Any],
    filters: FiltersConfig,
    raw: str | None = None,
) -> RowCandidate:
    """The candidate with a model's text. Raises: LeftOut when it is unfit."""
    check_written(written.text, COLUMN[side], written.finished, filters)
    check_text(written.text, COLUMN[side], filters)
    model = digest(identity)
    text_facts = {"model": model, "tokens": written.tokens, "seed": written.seed}
    if raw is not None and raw != written.text:
        text_facts["raw"] = raw
    models = {**candidate.facts.get("models", {}), model: dict(identity)}
    facts = {**candidate.facts, COLUMN[side]: text_facts, "models": models}
    return replace(candidate, facts=facts, **{side: written.text})


def _unchanged(source: Source, pictures: Mapping[str, str], filters: FiltersConfig) -> dict[str, Image.Image]:
    """The decoded pictures whose bytes still have the SHA-256 under which they are named."""
    images: dict[str, Image.Image] = {}
    for sha256, reference in pictures.items():
        with suppress(RowError, ImageError):
            data = source.picture_bytes(reference)
            if hashlib.sha256(data).hexdigest() == sha256:
                images[sha256] = decode(data, filters.max_image_pixels)
    return images
