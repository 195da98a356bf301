"""Prompts rewritten by an LLM: a complex one into a plain narrative, or a narrative into a complex one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from sur.config.curation import GenerationConfig, RewriteConfig, Side
from sur.config.features import slug
from sur.data.curation.writers.text_log import Written
from sur.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from sur.models.gguf import parsed_once
from sur.models.libraries import quiet_libraries
from sur.models.locate import Located, locate
from sur.models.prompt_tokens import batches_by_length, template_around
from sur.support.errors import ConfigError

REWRITER_VERSION = 1
VLLM_BATCH = 64  # prompts that are logged together
_YES = r"(?:sure|certainly|absolutely|of course|okay|ok)\b"
_ANSWER = (  # what a model calls its answer: "the rewritten sentence"
    r"(?:(?:the|a|an|my|your|one|some|plain|simple|short|single|english|new|final|revised|rewritten|complex|possible|"
    r"comma-separated|text-to-image|list of|set of)\s+){0,5}"
    r"(?:sentence|narrative|rewrit(?:e|ing)|version|prompt|description|caption|keyword|tag|answer|output|result)s?\b"
)
_END = r":(?=[\s\"“'`]|$)"  # what follows is no time of day
_LEAD_IN = re.compile(
    rf"^(?:{_YES}[,.!]*\s+)?"
    rf"(?:here(?:['’]s| is| are)\s+{_ANSWER}[^\n:]{{0,80}}{_END}"  # Here is the sentence that you asked for:
    rf"|{_ANSWER}(?:\s*\d|\s*\([^\n()]{{0,40}}\))?:(?!\d)"  # Rewritten prompt (short):
    rf"|(?<=[,!.]\s)[^\n:]{{0,80}}{_END})\s*",  # Sure, as you like:
    re.I,
)


class Generator(Protocol):
    """The engine that runs the LLM; the first call of `write` loads the weights or connects to the server."""

    def identity(self) -> dict[str, str]:
        """The engine's name and version, as far as a text depends on them."""
        ...

    def write(self, prompts: Sequence[list[int]], inputs: Sequence[str], tokenizer: Any) -> list[Written]:
        """A text for each prompt of token ids; `inputs` name them, for the seed."""
        ...

    def close(self) -> None:
        """Forget the weights, or end the server."""
        ...


class Rewriter:
    """One LLM with one configuration."""

    def __init__(self, config: RewriteConfig) -> None:
        self.config = config
        self._found = locate(config.model, config.revision, config.gguf_file)
        self._tokens_of: Any = None
        self._runs: Generator | None = None

    def identity(self, side: Side) -> dict[str, Any]:
        """Everything besides the prompt that a rewrite depends on; loads no weights."""
        config, located = self.config, self._found
        weights = located.folder / located.gguf_file if located.gguf_file else located.folder
        return {
            "task": f"rewrite to {side}",
            "model": slug(config.model),
            "weights": weights_fingerprint(weights),
            "tokenizer": "in the GGUF file" if located.gguf_file else tokenizer_fingerprint(located.folder),
            "instruction": self._instruction(side),
            "template": config.template,
            "generation": GenerationConfig.model_validate(
                config.model_dump(include=set(GenerationConfig.model_fields))
            ).model_dump(),
            "compute_dtype": config.compute_dtype,
            **self._generator().identity(),
            "version": REWRITER_VERSION,
        }

    def tokens(self, prompts: Sequence[str], side: Side) -> list[list[int]]:
        """Token ids of what the model is told of each prompt."""
        if not prompts:
            return []
        tokenizer = self._tokenizer()
        before, after = template_around(tokenizer, self.config.template)
        instruction = self._instruction(side)
        texts = [before + instruction.replace("{prompt}", prompt) + after for prompt in prompts]
        options = {"add_special_tokens": self.config.template != "chat", "verbose": False}
        return tokenizer(texts, **options)["input_ids"]

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Places of prompts that go together, a pure function of their order and lengths in tokens.

        A run that was killed after some of these batches makes the rest of them again, the same.
        """
        if self.config.backend == "vllm":
            return [list(range(i, min(i + VLLM_BATCH, len(lengths)))) for i in range(0, len(lengths), VLLM_BATCH)]
        longest = [length + self.config.max_new_tokens for length in lengths]
        return list(batches_by_length(longest, self.config.tokens_per_batch))

    def write(self, tokens: Sequence[list[int]], inputs: Sequence[str]) -> list[Written]:
        """The model's raw text for each prompt."""
        return self._generator().write(tokens, inputs, self._tokenizer())

    def close(self) -> None:
        """Forget the model, or end its server."""
        if self._runs is not None:
            self._runs.close()
        self._runs = self._tokens_of = None

    def _instruction(self, side: Side) -> str:
        return self.config.to_simple if side == "simple" else self.config.to_complex

    def _generator(self) -> Generator:
        if self._runs is None:
            from sur.data.curation.writers.rewriting_hf import HFGenerator
            from sur.data.curation.writers.rewriting_vllm import VLLMGenerator

            if self.config.backend == "vllm" and self._found.gguf_file:
                raise ConfigError(
                    f"vLLM is served from safetensors, and {self.config.model} is a GGUF file; write them once with "
                    f"`sur dequantise {self.config.model} FOLDER` and set rewriting.model to that folder"
                )
            kind = HFGenerator if self.config.backend == "hf" else VLLMGenerator
            self._runs = kind(self.config, self._found)
        return self._runs

    def _tokenizer(self) -> Any:
        if self._tokens_of is None:
            self._tokens_of = load_tokenizer(self._found, self.config.trust_remote_code)
        return self._tokens_of


def load_tokenizer(located: Located, trust_remote_code: bool) -> Any:
    """A model's tokenizer, padding on the left as generation wants it."""
    from transformers import AutoTokenizer

    with parsed_once(located.gguf_file), quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(
            located.folder, gguf_file=located.gguf_file, trust_remote_code=trust_remote_code, local_files_only=True
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def strip_chatter(text: str) -> tuple[str, bool]:
    """The first paragraph of a model's answer without lead-in and quotes, and whether other paragraphs follow it."""
    text = text.strip()
    without_lead_in = _LEAD_IN.sub("", text).strip()
    first, *more = (without_lead_in or text).split("\n\n", 1)
    first = " ".join(first.split())
    for left, right in ('""', "''", "“”", "``"):
        if len(first) > 1 and first[0] == left and first[-1] == right and left not in first[1:-1]:
            first = first[1:-1].strip()
    return first, bool(more)
