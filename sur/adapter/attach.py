"""One call puts an adapter onto any stock diffusers pipeline that has `encode_prompt`.

Only the positive prompt's states change; the negative prompt's, pooled states (SDXL, SD 3, Flux) and embeddings that
the caller made himself pass through. The pipeline's class and its modules stay untouched. One exception: Flux encodes a
negative prompt (with `true_cfg_scale`) by the same call as the other, so it is adapted too, unless given as embeddings.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from sur.models.families import STABLE_DIFFUSION_3, family_of

if TYPE_CHECKING:
    from torch import Tensor

_ORIGINAL, _ATTACHED = "_encode_prompt_without_adapter", "_attached_adapter"


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


def attach(adapter: AdaptsStates, pipe: Any, weight: float | None = None) -> Any:
    """Wrap `pipe.encode_prompt`; `weight` stands in for the adapter's own while attached (0 = off, 1 = as trained).

    The adapter computes in its own dtype (float32) and hands back the pipeline's, so fp16, bf16 and fp32
    pipelines work. Raises TypeError for a pipeline without `encode_prompt`, ValueError for an unknown family or text
    states of another width, RuntimeError when another adapter is attached; the same one is attached anew.
    """
    if not callable(getattr(pipe, "encode_prompt", None)):
        raise TypeError(f"{type(pipe).__name__} has no encode_prompt; attach a text-to-image pipeline of diffusers")
    if getattr(pipe, _ATTACHED, adapter) is not adapter:
        raise RuntimeError("this pipeline has another adapter already; call detach first")
    family = family_of(type(pipe).__name__)
    denoiser = getattr(pipe, family.denoiser, None)
    width = adapter.dim if denoiser is None else denoiser.config[family.width]
    if width != adapter.dim:
        raise ValueError(
            f"the adapter was trained on states {adapter.dim} wide, {type(pipe).__name__} makes {width}; "
            "train one for this pipeline's text encoder"
        )
    trained = adapter.trained_on.get("text", {}).get("pipeline")
    if trained is not None and family_of(trained) is not family:
        raise ValueError(f"the adapter was trained for {family_of(trained).name}, this is {family.name}; train another")
    if family is STABLE_DIFFUSION_3 and getattr(pipe, "text_encoder_3", None) is None:
        raise ValueError("this Stable Diffusion 3 has no T5 (text_encoder_3), which the adapter was trained with")
    if hasattr(pipe, _ORIGINAL):
        detach(pipe)
    adapter.eval()
    original = pipe.encode_prompt
    signature = inspect.signature(original)

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple:
        given = signature.bind_partial(*args, **kwargs).arguments
        if given.get("prompt_embeds") is not None:
            return original(*args, **kwargs)
        if given.get("clip_skip") is not None:
            raise ValueError("the adapter was trained on the last layer's states; leave clip_skip unset, or detach it")
        encoded = original(*args, **kwargs)
        mask = None if family.mask is None else encoded[family.mask]
        return (adapter.adapt(encoded[0], weight, mask), *encoded[1:])

    setattr(pipe, _ORIGINAL, original)
    setattr(pipe, _ATTACHED, adapter)
    pipe.encode_prompt = encode_prompt
    return pipe


def detach(pipe: Any) -> Any:
    """Take the adapter off. Raises RuntimeError when none is attached."""
    if not hasattr(pipe, _ORIGINAL):
        raise RuntimeError("this pipeline has no adapter attached")
    del pipe.encode_prompt
    delattr(pipe, _ORIGINAL)
    delattr(pipe, _ATTACHED)
    return pipe
