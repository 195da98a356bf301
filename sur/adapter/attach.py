"""One call puts an adapter onto any stock diffusers pipeline that has `encode_prompt`.

Only the positive prompt's states change; the negative prompt's, pooled states (SDXL, SD 3, Flux) and embeddings that
the caller made himself pass through. The pipeline's class and its modules stay untouched. One exception: Flux encodes a
negative prompt (with `true_cfg_scale`) by the same call as the other, so it is adapted too, unless given as embeddings.

A deep copy of a pipeline has a copy of the adapter. A pipeline that diffusers makes of the parts of another
(`from_pipe`, or a class called with `**pipe.components`) has none: attach it there too.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any, Protocol

from sur.models.families import STABLE_DIFFUSION_3, Family, family_of
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class AdaptsStates(Protocol):
    """Anything that can be attached: it maps text states to text states of the same width."""

    trained_on: dict[str, Any]  # `text`: identity of the feature it was trained on, with its `pipeline`

    @property
    def dim(self) -> int:
        """Width of the states."""
        ...

    def eval(self) -> Any:
        """Switch dropout off."""
        ...

    def adapt(self, states: Tensor, weight: float | None = None, mask: Tensor | None = None) -> Tensor:
        """Adapted states in the dtype and on the device of `states` (batch, tokens, dim)."""
        ...


class AdaptedEncodePrompt:
    """A pipeline's `encode_prompt` with an adapter behind it.

    original: the pipeline's own bound method. A deep copy of the pipeline rebinds it to the copy, so that the copy is
    encoded by its own text encoders. was_set: whether `original` was an attribute of the pipeline itself, not of its
    class. weight: see `attach`.
    """

    def __init__(self, pipe: Any, family: Family, adapter: AdaptsStates, weight: float | None) -> None:
        self.original, self.was_set = pipe.encode_prompt, "encode_prompt" in vars(pipe)
        self.family, self.adapter, self.weight = family, adapter, weight
        self._t5_tokens_told: set[int] = set()
        functools.update_wrapper(self, self.original, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> tuple:
        """As the pipeline's own, the first states adapted. Raises ValueError when `clip_skip` is given."""
        signature = inspect.signature(self.original)
        given = signature.bind_partial(*args, **kwargs)
        given.apply_defaults()
        if given.arguments.get("prompt_embeds") is not None:
            return self.original(*args, **kwargs)
        if given.arguments.get("clip_skip") is not None:
            raise ValueError("the adapter was trained on the last layer's states; leave clip_skip unset, or detach it")
        self._compare_t5_tokens(given.arguments.get("max_sequence_length"))
        encoded = self.original(*args, **kwargs)
        mask = None if self.family.mask is None else encoded[self.family.mask]
        return (self.adapter.adapt(encoded[0], self.weight, mask), *encoded[1:])

    def _compare_t5_tokens(self, tokens: int | None) -> None:
        """Warn, once a number, when T5 makes another number of states than in training."""
        text = self.adapter.trained_on.get("text", {})
        trained = text.get("t5_tokens") or self.family.t5_tokens
        if not text or not tokens or not trained or tokens == trained or tokens in self._t5_tokens_told:
            return
        self._t5_tokens_told.add(tokens)
        warnings.warn(
            f"the adapter was trained on {trained} states of T5, this call makes {tokens}; "
            f"pass max_sequence_length={trained} for the states that it knows",
            stacklevel=3,
        )


def attach(adapter: AdaptsStates, pipe: Any, weight: float | None = None) -> Any:
    """The pipeline, with `pipe.encode_prompt` wrapped.

    weight: stands in for the adapter's own while attached (0 = off, 1 = as trained).

    The adapter computes in its own dtype (float32) and hands back the pipeline's, so fp16, bf16 and fp32 pipelines
    work. Raises TypeError for a pipeline without `encode_prompt`, ConfigError for an unknown family or text states of
    another width, RuntimeError when another adapter is attached; the same one is attached anew.
    """
    if not callable(getattr(pipe, "encode_prompt", None)):
        raise TypeError(f"{type(pipe).__name__} has no encode_prompt; attach a text-to-image pipeline of diffusers")
    attached = pipe.encode_prompt if isinstance(pipe.encode_prompt, AdaptedEncodePrompt) else None
    if attached is not None and attached.adapter is not adapter:
        raise RuntimeError("this pipeline has another adapter already; call detach first")
    family = family_of(type(pipe).__name__)
    denoiser = getattr(pipe, family.denoiser, None)
    width = adapter.dim if denoiser is None else denoiser.config[family.width]
    if width != adapter.dim:
        raise ConfigError(
            f"the adapter was trained on states {adapter.dim} wide, {type(pipe).__name__} makes {width}; "
            "train one for this pipeline's text encoder"
        )
    trained = adapter.trained_on.get("text", {}).get("pipeline")
    if trained is not None and family_of(trained) is not family:
        raise ConfigError(
            f"the adapter was trained for {family_of(trained).name}, this is {family.name}; train another"
        )
    if family is STABLE_DIFFUSION_3 and getattr(pipe, "text_encoder_3", None) is None:
        raise ConfigError("this Stable Diffusion 3 has no T5 (text_encoder_3), which the adapter was trained with")
    if attached is not None:
        detach(pipe)
    adapter.eval()
    pipe.encode_prompt = AdaptedEncodePrompt(pipe, family, adapter, weight)
    return pipe


def detach(pipe: Any) -> Any:
    """Take the adapter off. Raises RuntimeError when none is attached."""
    attached = getattr(pipe, "encode_prompt", None)
    if not isinstance(attached, AdaptedEncodePrompt):
        raise RuntimeError("this pipeline has no adapter attached")
    del pipe.encode_prompt
    if attached.was_set:
        pipe.encode_prompt = attached.original
    return pipe
