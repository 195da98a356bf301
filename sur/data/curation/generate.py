"""The texts that a draft lacks: models write what the log has not, the log gives the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from PIL import Image

from sur.config.curation import BuildConfig
from sur.config.curation import Side as Prompt
from sur.data.curation.draft import Draft, ProgressMaker
from sur.data.curation.filters import PICTURE, LeftOut, Side, check_rewrite, check_text, check_written
from sur.data.curation.sources import Candidate, Source, open_source
from sur.data.curation.writers.captions import Captioner
from sur.data.curation.writers.rewriting import Rewriter, tidy
from sur.data.curation.writers.text_log import TextLog, Written, digest
from sur.support.errors import RowError
from sur.support.images import ImageError, decode
from sur.support.progress import Progress

COLUMN: dict[Prompt, Side] = {"simple": "text", "complex": "prompt"}


def caption(config: BuildConfig, draft: Draft, progress: ProgressMaker = Progress) -> Draft:
    """Every candidate that has a picture and no narrative with one, or left out where the model's text is unfit."""
    if config.captions is None:
        return draft
    captioner, source = Captioner(config.captions), open_source(config.source)
    made = captioner.identity()
    pictures = {each.sha256: each.picture for each in draft.candidates if each.picture and not each.simple}
    try:
        with TextLog(config.run_dir) as log:
            missing = [sha256 for sha256 in pictures if log.get(made, sha256) is None]
            size = config.captions.batch_size
            with progress("caption", len(pictures), "pictures") as shown:
                shown.advance(len(pictures) - len(missing))
                for start in range(0, len(missing), size):
                    batch = missing[start : start + size]
                    shots = _unchanged(source, {sha256: pictures[sha256] for sha256 in batch}, config)
                    if shots:
                        done = captioner.write(list(shots.values()), list(shots))
                        log.append(made, dict(zip(shots, done, strict=True)))
                    shown.advance(len(batch))
            texts = {sha256: log.get(made, sha256) for sha256 in pictures}
    finally:
        captioner.close()

    def captioned(candidate: Candidate) -> Candidate:
        if candidate.simple or not candidate.picture:
            return candidate
        found = texts[candidate.sha256]
        if found is None:
            raise LeftOut("changed", PICTURE, "it changed while the build ran", "run the build again")
        return _with_text(candidate, "simple", found, made, config)

    return draft.each(captioned)


def rewrite(config: BuildConfig, draft: Draft, progress: ProgressMaker = Progress) -> Draft:
    """Every candidate that has one prompt with the other, as far as `rewriting.writes` says; unfit ones left out."""
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
    config: BuildConfig, rewriter: Rewriter, side: Prompt, draft: Draft, progress: ProgressMaker
) -> Draft:
    made = rewriter.identity(side)
    inputs = list(dict.fromkeys(filter(None, (_input(each, side) for each in draft.candidates))))
    too_long: dict[str, int] = {}
    with TextLog(config.run_dir) as log:
        missing = [text for text in inputs if log.get(made, text) is None]
        tokens = dict(zip(missing, rewriter.tokens(missing, side), strict=True))
        longest = rewriter.config.max_prompt_tokens
        too_long = {text: len(ids) for text, ids in tokens.items() if len(ids) > longest}
        missing = [text for text in missing if text not in too_long]
        with progress(f"rewrite to {side}", len(inputs), "prompts") as shown:
            shown.advance(len(inputs) - len(missing))
            for places in rewriter.batches([len(tokens[text]) for text in missing]):
                batch = [missing[place] for place in places]
                done = rewriter.write([tokens[text] for text in batch], batch)
                log.append(made, dict(zip(batch, done, strict=True)))
                shown.advance(len(batch))
        texts = {text: log.get(made, text) for text in inputs}

    def rewritten(candidate: Candidate) -> Candidate:
        given = _input(candidate, side)
        if not given:
            return candidate
        found = texts[given]
        if found is None:
            reason = f"{too_long[given]} tokens with its instruction, more than {rewriter.config.max_prompt_tokens}"
            raise LeftOut("too long", COLUMN[side], reason, "raise rewriting.max_prompt_tokens, or shorten it")
        text, followed = tidy(found.text)
        ended = found._replace(text=text, finished=found.finished or followed)
        candidate = _with_text(candidate, side, ended, made, config, found.text)
        check_rewrite(given, text, COLUMN[side], config.filters)
        return candidate

    return draft.each(rewritten)


def _input(candidate: Candidate, side: Prompt) -> str:
    """The prompt that is rewritten to the one that a candidate lacks; "" when it lacks none, or both."""
    if getattr(candidate, side):
        return ""
    return candidate.complex if side == "simple" else candidate.simple


def _with_text(
    candidate: Candidate,
    side: Prompt,
    found: Written,
    made: Mapping[str, Any],
    config: BuildConfig,
    raw: str | None = None,
) -> Candidate:
    """The candidate with a model's text. Raises: LeftOut when it is unfit."""
    check_written(found.text, COLUMN[side], found.finished, config.filters)
    check_text(found.text, COLUMN[side], config.filters)
    told = {"model": digest(made), "tokens": found.tokens, "seed": found.seed}
    if raw is not None and raw != found.text:
        told["raw"] = raw
    models = {**candidate.facts.get("models", {}), digest(made): dict(made)}
    facts = {**candidate.facts, COLUMN[side]: told, "models": models}
    return replace(candidate, facts=facts, **{side: found.text})


def _unchanged(source: Source, pictures: Mapping[str, str], config: BuildConfig) -> dict[str, Image.Image]:
    """The pictures whose bytes still are those of their SHA-256, decoded."""
    found: dict[str, Image.Image] = {}
    for sha256, ref in pictures.items():
        with suppress(RowError, ImageError):
            data = source.picture_bytes(ref)
            if hashlib.sha256(data).hexdigest() == sha256:
                found[sha256] = decode(data, config.filters.max_image_pixels)
    return found
