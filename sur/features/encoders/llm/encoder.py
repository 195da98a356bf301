"""A causal language model: hidden states of chosen layers for every simple prompt, whatever engine runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from sur.cache import ArraySpec, FeatureSpec
from sur.cache.format.dtypes import stored_dtype
from sur.config.features import LLMConfig
from sur.features.encoders.base import EncodedItems, cast_to_stored, checked_names
from sur.features.encoders.llm.engine import Engine
from sur.features.encoders.llm.layers import load_body
from sur.features.encoders.llm.transformers_engine import HFEngine
from sur.features.encoders.llm.vllm_engine import VLLMEngine
from sur.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from sur.models.gguf import gguf_model, parsed_once
from sur.models.libraries import quiet_libraries
from sur.models.locate import LLM_CONFIG, LLM_TOKENIZER, LLM_WEIGHTS, Located, locate
from sur.models.prompt_tokens import Tokens, doubled_mark, tokenize
from sur.models.vllm.server import ServedModel
from sur.support.errors import ConfigError

ENCODER_VERSION = 1
_log = logging.getLogger(__name__)


class LLMEncoder:
    """Hidden states of the simple prompts, one feature a layer, all layers in one pass.

    Arrays: `states` (dim,) for pooling mean and last, (max_tokens, dim) zero-padded for tokens; `length` (),
    the number of the prompt's own tokens that were kept.
    """

    key = kind = "llm"
    consumes = "simple"

    def __init__(self, config: LLMConfig) -> None:
        self.config = config
        self._runs: Engine | None = None
        self._tokens_of: Any = None

    def shapes(self) -> dict[str, dict[str, ArraySpec]]:
        """Arrays of each layer's feature; needs the model's config.json (or GGUF header), not its weights.

        Raises: ValueError when a layer is asked for that the model lacks.
        """
        _, count, _ = self._describe(self._locate(LLM_CONFIG))
        if max(self.config.layers) > count:
            raise ValueError(
                f"llm.layers asks for layer {max(self.config.layers)}, but {self.config.model} has layers 0 "
                f"(embeddings) to {count} (last)"
            )
        codec = self.config.codec or ("zstd" if self.config.pooling == "tokens" else "raw")
        states = ArraySpec(self.config.store_dtype, self._state_shape(), codec, self.config.keep_bits)
        arrays = {"states": states, "length": ArraySpec("int32", ())}
        return {name: dict(arrays) for name in self.config.feature_names}

    def specs(self) -> list[FeatureSpec]:
        """One feature a layer, with the identity that keeps it from being mixed with any other."""
        config, located = self.config, self._locate()
        shared = {
            "model": config.name,
            "architecture": self._describe(located)[2],
            "weights": self._weights(),
            "tokenizer": "in the GGUF file" if located.gguf_file else tokenizer_fingerprint(located.folder),
            "pooling": config.pooling,
            "template": config.template,
            "add_special_tokens": config.add_special_tokens,
            "max_tokens": config.max_tokens,
            "compute_dtype": config.compute_dtype,
            "store_dtype": config.store_dtype,
            **self._engine().identity(),
            "encoder_version": ENCODER_VERSION,
        }
        return [
            FeatureSpec(config.feature_name(layer), self.kind, {**shared, "layer": layer}, arrays)
            for layer, arrays in zip(config.layers, self.shapes().values(), strict=True)
        ]

    def encode(self, items: Sequence[str], names: Collection[str] | None = None) -> EncodedItems:
        """Hidden states of the prompts; an item's values do not depend on what else is in `items`.

        stats: tokens (read by the model, templates included), padded_tokens (computed), truncated (prompts).
        """
        config, tokens = self.config, self._tokenize(items)
        chosen = checked_names(names, config.feature_names)
        layers = [layer for layer in config.layers if config.feature_name(layer) in chosen]
        bad = {i: "the prompt has no text" for i, item in enumerate(items) if not item.strip()}
        bad |= {i: "the prompt gives no token" for i, t in enumerate(tokens) if t.length == 0 and i not in bad}
        good = [i for i in range(len(items)) if i not in bad]
        lengths = np.array([0 if i in bad else t.length for i, t in enumerate(tokens)], dtype=np.int32)
        shape = self._state_shape()
        states = {layer: np.zeros((len(items), *shape), stored_dtype(config.store_dtype)) for layer in layers}
        stats = {"tokens": 0, "padded_tokens": 0, "truncated": sum(tokens[i].truncated for i in good)}
        for done in self._engine().pooled([tokens[i] for i in good], layers, self._weights()):
            rows = [good[item] for item in done.items]
            for layer, pooled in done.states.items():
                stored, faults = cast_to_stored(pooled, config.store_dtype)
                stored[list(faults)] = 0
                states[layer][rows] = stored
                bad |= {rows[item]: f"layer {layer} is {fault}" for item, fault in faults.items()}
            stats["tokens"] += sum(len(tokens[i].ids) for i in rows)
            stats["padded_tokens"] += done.computed_tokens
        values = {config.feature_name(layer): {"states": states[layer], "length": lengths.copy()} for layer in layers}
        return EncodedItems(values, bad, stats)

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Tokens that the model would read of each prompt, template included; loads no weights.

        Raises: OSError or ValueError when the model's folder has no usable tokenizer.
        """
        return [len(tokens.ids) for tokens in self._tokenize(prompts)]

    def truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Which prompts lose their end to max_tokens. Loads and raises as `count_tokens`."""
        return [tokens.truncated for tokens in self._tokenize(prompts)]

    def close(self) -> None:
        """Forget the weights and the tokenizer, or end the server."""
        if self._runs is not None:
            self._runs.close()
        self._runs = self._tokens_of = None

    def serving(self) -> ServedModel:
        """What a vLLM server for this configuration serves. Raises ConfigError for another backend."""
        engine = self._engine()
        if not isinstance(engine, VLLMEngine):
            raise ConfigError("llm.backend is not vllm; set it, and llm.vllm.endpoint or llm.vllm.launch")
        return engine.serving()

    def _engine(self) -> Engine:
        """What runs the model; no weights are loaded yet."""
        if self._runs is None:
            self._runs = HFEngine(self.config, self._body) if self.config.backend == "hf" else self._served()
        return self._runs

    def _served(self) -> VLLMEngine:
        located = self._locate()
        if located.gguf_file:
            raise ConfigError(
                f"vLLM is served from safetensors, and {self.config.model} is a GGUF file; write them once with "
                f"`sur dequantise {self.config.model} FOLDER` and set llm.model to that folder"
            )
        example = self._tokenize(["word"])[0]
        return VLLMEngine(self.config, located.folder, len(example.ids) - example.length)

    def _weights(self) -> str:
        located = self._locate()
        return weights_fingerprint(located.folder / located.gguf_file if located.gguf_file else located.folder)

    def _state_shape(self) -> tuple[int, ...]:
        dim = self._describe(self._locate(LLM_CONFIG))[0]
        return (self.config.max_tokens, dim) if self.config.pooling == "tokens" else (dim,)

    def _locate(self, needed: Sequence[str] = LLM_WEIGHTS) -> Located:
        return locate(self.config.model, self.config.revision, self.config.gguf_file, needed)

    def _describe(self, located: Located) -> tuple[int, int, str]:
        """Width of the hidden states, number of layers, architecture."""
        if located.gguf_file:
            return gguf_model(located.folder / located.gguf_file)
        from transformers import AutoConfig

        with quiet_libraries():
            config = AutoConfig.from_pretrained(located.folder, trust_remote_code=self.config.trust_remote_code)
        text = config.get_text_config()
        return text.hidden_size, text.num_hidden_layers, config.model_type

    def _tokenize(self, prompts: Sequence[str]) -> list[Tokens]:
        config = self.config
        return tokenize(self._tokenizer(), prompts, config.template, config.add_special_tokens, config.max_tokens)

    def _tokenizer(self) -> Any:
        if self._tokens_of is None:
            from transformers import AutoTokenizer

            self._tokens_of = self._read(AutoTokenizer.from_pretrained, LLM_TOKENIZER)
            if mark := doubled_mark(self._tokens_of, self.config.template, self.config.add_special_tokens):
                _log.warning(
                    "every prompt of %s is read with %s twice: llm.template has it, and the tokenizer adds it; set "
                    "llm.add_special_tokens=false, or leave it out of the template", self.config.name, mark,
                )  # fmt: skip
        return self._tokens_of

    def _body(self) -> Any:
        """The model without its head, by transformers."""
        located = self._locate()
        with parsed_once(located.gguf_file):  # the tokenizer is in the same file
            self._tokenizer()
            safe = {} if located.gguf_file else {"use_safetensors": True}
            return self._read(load_body, LLM_WEIGHTS, compute_dtype=self.config.compute_dtype, **safe)

    def _read(self, reader: Callable[..., Any], needed: Sequence[str], **options: Any) -> Any:
        """What a from_pretrained makes of the model's files, of which it needs some."""
        located = self._locate(needed)
        with parsed_once(located.gguf_file), quiet_libraries():
            return reader(
                located.folder,
                gguf_file=located.gguf_file,
                trust_remote_code=self.config.trust_remote_code,
                local_files_only=True,
                **options,
            )
