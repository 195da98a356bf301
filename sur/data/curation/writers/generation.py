"""Generation of texts with transformers, as captions and rewrites share it: seeds, one call, the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sur.config.curation import GenerationConfig
from sur.data.curation.writers.text_log import Written, digest
from sur.models.libraries import quiet_libraries

SEED_BITS = 31


def batch_seed(config: GenerationConfig, inputs: Sequence[str]) -> int | None:
    """The seed of a batch, a function of its inputs; None for greedy decoding."""
    if config.temperature == 0:
        return None
    return int(digest([config.seed, list(inputs)]), 16) % 2**SEED_BITS


def generate_texts(
    model: Any, inputs: Mapping[str, Any], config: GenerationConfig, eos: Sequence[int], pad: int, seed: int | None
) -> list[tuple[list[int], bool]]:
    """The new token ids of each item, without the input's, and whether an end token ended them."""
    from transformers import GenerationConfig as Settings

    sampling = {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0} if seed is not None else {}
    settings = Settings(
        max_new_tokens=config.max_new_tokens,
        do_sample=seed is not None,
        num_beams=config.num_beams,
        repetition_penalty=config.repetition_penalty,
        eos_token_id=list(eos),
        pad_token_id=pad,
        bos_token_id=model.generation_config.bos_token_id,
        decoder_start_token_id=model.generation_config.decoder_start_token_id,
        **sampling,
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices), quiet_libraries():
        if seed is not None:
            torch.manual_seed(seed)
        sequences: Tensor = model.generate(**inputs, generation_config=settings)
    start = given_tokens(inputs.get("input_ids"), sequences)
    return [_until_end(row[start:], set(eos), pad) for row in sequences.tolist()]


def given_tokens(ids: Tensor | None, sequences: Tensor) -> int:
    """Number of input tokens that begin the output: the whole input for most decoders, 1 for a start token."""
    if ids is None:
        return 1
    length = ids.shape[1]
    repeated = sequences.shape[1] >= length and bool((sequences[:, :length] == ids).all())
    return length if repeated else 1


def written(
    tokenizer: Any, generated: Sequence[tuple[list[int], bool]], seed: int | None, given: str = ""
) -> list[Written]:
    """The texts of token ids. given: words that some models repeat before their own text; they are removed."""
    texts = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids, _ in generated]
    if given:
        plain = " ".join(given.lower().split())
        texts = [text[len(plain) :].strip() if text.lower().startswith(plain) else text for text in texts]
    return [Written(text, len(ids), ended, seed) for text, (ids, ended) in zip(texts, generated, strict=True)]


def _until_end(ids: list[int], eos: set[int], pad: int) -> tuple[list[int], bool]:
    """Ids before the first end token, and whether there is one; padding at the end is removed."""
    for place, token in enumerate(ids):
        if token in eos:
            return ids[:place], True
    while ids and ids[-1] == pad:
        ids = ids[:-1]
    return ids, False
