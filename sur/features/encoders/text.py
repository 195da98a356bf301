"""The text encoders of a diffusion pipeline: exactly the states that the pipeline gives to its denoiser."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch

from sur.cache import ArraySpec, FeatureSpec
from sur.cache.format.dtypes import stored_dtype
from sur.config.features import TextConfig
from sur.features.encoders.base import EncodedItems, cast_to_stored, checked_names
from sur.models.libraries import major_version, pick_device
from sur.models.pipeline_text import PipelineText, cleans_captions

ENCODER_VERSION = 1


class TextEncoder:
    """States of the simple or the complex prompts, as the pipeline's encode_prompt makes them.

    Arrays: `states` (tokens, dim), padding positions included as the denoiser reads them; `length` (), real
    tokens with BOS and EOS (SD 3: those of CLIP, whose states come first); where the family has them `pooled`
    (dim,), and `mask` (tokens,), 1 at tokens that the denoiser reads. The empty prompt is a prompt like any other.
    """

    kind = "text"

    def __init__(
        self,
        config: TextConfig,
        consumes: Literal["simple", "complex"] = "simple",
        pipeline: PipelineText | None = None,
    ) -> None:
        self.config = config
        self.consumes: str = consumes
        self._pipeline = pipeline or pipeline_text(config)

    @property
    def key(self) -> str:
        """text.simple or text.complex."""
        return f"{self.kind}.{self.consumes}"

    @property
    def feature_name(self) -> str:
        """Name of the one feature."""
        return self.config.feature_name(self.consumes)

    def shapes(self) -> dict[str, dict[str, ArraySpec]]:
        """Arrays of the feature; needs the pipeline's config files, not its weights."""
        tokens, dim, pooled = self._pipeline.sizes()
        dtype = self.config.store_dtype
        packing = (self.config.codec, self.config.keep_bits)
        arrays = {"states": ArraySpec(dtype, (tokens, dim), *packing), "length": ArraySpec("int32", ())}
        if pooled is not None:
            arrays["pooled"] = ArraySpec(dtype, (pooled,), *packing)
        if self._pipeline.family.mask is not None:
            arrays["mask"] = ArraySpec("uint8", (tokens,))
        return {self.feature_name: arrays}

    def specs(self) -> list[FeatureSpec]:
        """The one feature and its identity."""
        identity = {
            "model": self.config.name,
            "pipeline": self._pipeline.index()["_class_name"],
            **self._pipeline.fingerprints(),
            "consumes": self.consumes,
            "compute_dtype": self.config.compute_dtype,
            "store_dtype": self.config.store_dtype,
            "engine": "diffusers",
            "engine_version": f"{major_version('diffusers')} on transformers {major_version('transformers')}",
            "encoder_version": ENCODER_VERSION,
        }
        if self._pipeline.family.mask is not None:
            identity["clean_caption"] = cleans_captions()
        if self.config.t5_tokens is not None:
            identity["t5_tokens"] = self._pipeline.t5_tokens
        return [FeatureSpec(self.feature_name, self.kind, identity, self.shapes()[self.feature_name])]

    def encode(self, items: Sequence[str], names: Collection[str] | None = None) -> EncodedItems:
        """States of the prompts. stats: tokens (kept), padded_tokens (stored), truncated (prompts)."""
        if not checked_names(names, [self.feature_name]):
            return EncodedItems({})
        arrays = self.shapes()[self.feature_name]
        tokens, limit = arrays["states"].shape[0], self._pipeline.counted_tokens()
        values = {name: np.zeros((len(items), *spec.shape), stored_dtype(spec.dtype)) for name, spec in arrays.items()}
        bad: dict[int, str] = {}
        stats = {"tokens": 0, "padded_tokens": len(items) * tokens, "truncated": 0}
        for start in range(0, len(items), self.config.batch_size):
            prompts = items[start : start + self.config.batch_size]
            rows = slice(start, start + len(prompts))
            encoding = self._pipeline.encode(prompts)
            for name, tensor in (("states", encoding.states), ("pooled", encoding.pooled)):
                if tensor is not None:
                    values[name][rows], faults = cast_to_stored(tensor, self.config.store_dtype)
                    bad |= {start + item: f"{name} is {fault}" for item, fault in faults.items()}
            lengths = self._pipeline.lengths(prompts)
            if encoding.mask is not None:
                values["mask"][rows] = encoding.mask.cpu().numpy()
                lengths = torch.where(lengths > limit, lengths, encoding.mask.sum(1).cpu())  # of the prompt as cleaned
            values["length"][rows] = lengths.clamp(max=limit).numpy()
            stats["tokens"] += int(lengths.clamp(max=limit).sum())
            stats["truncated"] += int((lengths > limit).sum())
        for array in values.values():
            array[list(bad)] = 0
        return EncodedItems({self.feature_name: values}, bad, stats)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that are kept of each prompt, BOS and EOS included; loads no weights.

        Raises: OSError or ValueError when the pipeline has no usable tokenizer.
        """
        return self._pipeline.lengths(prompts).clamp(max=self._pipeline.counted_tokens()).tolist()

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Which prompts lose their end to the text encoder's limit. Loads and raises as `count_tokens`."""
        return (self._pipeline.lengths(prompts) > self._pipeline.counted_tokens()).tolist()

    def close(self) -> None:
        """Forget the weights; an encoder that shares them loads them again when it needs them."""
        self._pipeline.close()


def pipeline_text(config: TextConfig) -> PipelineText:
    """The pipeline of a config, to be shared by the encoders of its simple and complex prompts."""
    if config.model is None:
        raise ValueError("text has no model: set base_model or text.model")
    device = pick_device(config.device)
    return PipelineText(config.model, config.revision, config.compute_dtype, device, config.t5_tokens)
