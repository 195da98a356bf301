"""Prompts to token ids: which of them are the prompt's own, and which prompts share a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SENTINEL = "\u2042PROMPT\u2042"
DATE = "26 Jul 2024"  # for chat templates that tell the date; a feature must not depend on today


@dataclass(frozen=True)
class Tokens:
    """One prompt as the model reads it; ids[start:stop] are the prompt's own tokens."""

    ids: list[int]
    start: int
    stop: int
    truncated: bool

    @property
    def length(self) -> int:
        """Number of the prompt's own tokens."""
        return self.stop - self.start


def template_around(tokenizer: Any, template: str | None) -> tuple[str, str]:
    """The text before and after the prompt.

    Raises: ValueError for "chat" with a tokenizer that has no chat template, or one that changes the prompt.
    """
    if template is None:
        return "", ""
    text = template
    if template == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError('template is "chat", but this tokenizer has no chat template; write it out instead')
        written = str(tokenizer.chat_template)
        if "strftime_now" in written and "date_string" not in written:
            raise ValueError("this chat template holds today's date, so no two days agree; write a template out")
        message = [{"role": "user", "content": SENTINEL}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, date_string=DATE)
    before, found, after = text.partition(SENTINEL if template == "chat" else "{prompt}")
    if not found:
        raise ValueError("the chat template does not hold the user's message as it was given; write a template out")
    return before, after


def tokenize(
    tokenizer: Any,
    prompts: Sequence[str],
    template: str | None,
    add_special_tokens: bool,
    max_tokens: int,
) -> list[Tokens]:
    """Token ids of every prompt inside its template; a prompt longer than max_tokens loses its end.

    A token is the prompt's own when it covers at least one of the prompt's characters, so one that joins a
    template's character to the prompt's counts; special tokens cover none. The template is never cut.

    Raises: ValueError when the tokenizer cannot tell which characters a token covers.
    """
    if not prompts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, which tell the prompt's own tokens; "
            "use a model whose folder has a tokenizer.json"
        )
    before, after = template_around(tokenizer, template)
    encoded = tokenizer(
        [before + prompt + after for prompt in prompts],
        add_special_tokens=add_special_tokens and template != "chat",
        return_offsets_mapping=True,
        return_attention_mask=False,
        truncation=False,
        verbose=False,
    )
    return [
        _cut(ids, offsets, len(before), len(before) + len(prompt), max_tokens)
        for ids, offsets, prompt in zip(encoded["input_ids"], encoded["offset_mapping"], prompts, strict=True)
    ]


def _cut(ids: list[int], offsets: list[tuple[int, int]], first: int, last: int, max_tokens: int) -> Tokens:
    own = [i for i, (start, stop) in enumerate(offsets) if start < last and stop > first]
    if not own:
        return Tokens(ids, 0, 0, truncated=False)
    start, stop = own[0], own[-1] + 1
    kept = min(stop, start + max_tokens)
    return Tokens(ids[:kept] + ids[stop:], start, kept, truncated=kept < stop)


def doubled_mark(tokenizer: Any, template: str | None, add_special_tokens: bool) -> str | None:
    """The start or end mark that a template writes out and the tokenizer adds once more; None without one."""
    if template in (None, "chat") or not add_special_tokens:
        return None
    before, after = template_around(tokenizer, template)
    ids = tokenizer(before + "x" + after, add_special_tokens=True)["input_ids"]
    for mark, neighbour in ((ids[0], ids[1]), (ids[-1], ids[-2])):
        if mark == neighbour and mark in tokenizer.all_special_ids:
            return tokenizer.convert_ids_to_tokens(mark)
    return None


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, each with rows x longest <= tokens_per_batch.

    One prompt longer than the budget is a batch of its own. The order is a pure function of the lengths.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
