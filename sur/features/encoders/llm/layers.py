"""A causal language model's body, cut off above the highest layer that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def load_body(folder: Path, compute_dtype: str, **options: Any) -> Any:
    """The model without its head, evaluating, in CPU memory; options go to from_pretrained.

    Raises: ValueError when the files do not hold all the body's weights.
    """
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        folder,
        dtype=getattr(torch, compute_dtype),
        output_loading_info=True,
        **options,
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}, which would "
            "then be random; the download is incomplete, or this is no causal language model"
        )
    return model.eval().requires_grad_(False)


def decoder_layers(model: Any) -> tuple[nn.Module, str]:
    """The module that owns the stack of decoder layers, and the stack's name in it.

    Raises: ValueError when there is no stack of the length that the config gives.
    """
    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    for owner in (decoder, *decoder.modules()):
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return owner, name
    raise ValueError(f"{type(model).__name__} has no list of {count} layers, as its config says; it is not supported")


class LayeredModel:
    """Hidden states of chosen layers, numbered as transformers' output_hidden_states: 0 embeddings, L last.

    State k < L is what layer k reads and layer k - 1 wrote; state L has passed the final norm. Layers above
    the highest asked are dropped at construction, and with them their memory.
    """

    def __init__(self, model: Any, layers: Sequence[int], device: torch.device) -> None:
        owner, name = decoder_layers(model)
        stack = getattr(owner, name)
        self.count = len(stack)
        if max(layers) > self.count:
            raise ValueError(f"layer {max(layers)} was asked for, but this model has layers 0 to {self.count}")
        self.layers = tuple(layers)
        depth = max(1, min(max(layers), self.count))
        setattr(owner, name, stack[:depth])
        self.model = model.to(device)  # only now: the dropped layers never reach the device
        self.stack = getattr(owner, name)

    @torch.inference_mode()
    def states(
        self, ids: Int[Tensor, "batch tokens"], mask: Int[Tensor, "batch tokens"], layers: Sequence[int]
    ) -> dict[int, Float[Tensor, "batch tokens dim"]]:
        """The asked layers' states of right-padded ids; those at padding mean nothing.

        Right padding leaves every token its true position, which is the models' own default.
        """
        if not set(layers) <= set(self.layers):
            raise ValueError(f"layers {sorted(layers)} asked, but the model was kept for {list(self.layers)}")
        states: dict[int, Tensor] = {}
        with self._watch(layers, states):
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False)
        if self.count in layers:
            states[self.count] = output.last_hidden_state
        return states

    @contextlib.contextmanager
    def _watch(self, layers: Sequence[int], states: dict[int, Tensor]) -> Iterator[None]:
        def reads(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            states[0] = (args[0] if args else kwargs["hidden_states"]).clone()

        def writes(layer: int):
            def hook(_module: nn.Module, _args: tuple, output: Any) -> None:
                states[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        with contextlib.ExitStack() as hooks:
            for layer in layers:
                if layer == 0:
                    handle = self.stack[0].register_forward_pre_hook(reads, with_kwargs=True)
                elif layer < self.count:
                    handle = self.stack[layer - 1].register_forward_hook(writes(layer))
                else:
                    continue
                hooks.callback(handle.remove)
            yield
