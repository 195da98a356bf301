"""The base of all variants of the adapter: what they return, how they are saved, loaded and attached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sur.adapter.adapter_files import WEIGHTS_DIGEST, built, read_weights, saved_settings, write_adapter
from sur.adapter.attach import attach, detach
from sur.adapter.hub import adapter_folder
from sur.support.errors import ConfigError

CORRECTED = "corrected"  # the variant of a config.json that names none


class AdapterOutput(NamedTuple):
    """States for the denoiser, and the hidden states that distillation looks at; both (batch, tokens, dim)."""

    states: Tensor
    hidden: Tensor


class BaseAdapter(nn.Module, ABC):
    """Maps text-encoder states of a narrative prompt to states that the denoiser understands.

    A variant is a subclass with its name in `variant`, its settings' class in `config_class`, and a `forward` as
    declared here. Once it is defined, `from_pretrained` loads it from the folders that name it.
    """

    variant: ClassVar[str]
    config_class: ClassVar[type[BaseModel]]
    variants: ClassVar[dict[str, type[BaseAdapter]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Register the subclass, when it names a variant of its own."""
        super().__init_subclass__(**options)
        if "variant" in vars(cls):
            BaseAdapter.variants[cls.variant] = cls

    def __init__(self, config: Any, weight: float = 1.0, trained_on: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.weight = weight
        self.trained_on = trained_on or {}

    @abstractmethod
    def forward(self, x: Tensor, weight: float | None = None, mask: Tensor | None = None) -> AdapterOutput:
        """Adapted states of `x` (batch, tokens, dim), which has the adapter's own dtype.

        weight: stands in for the adapter's own. mask (batch, tokens): True where the denoiser reads the token; None
        where it reads them all. Raises ValueError for states of another width.
        """

    @property
    def dim(self) -> int:
        """Width of the states that the adapter reads and returns."""
        return self.config.dim

    @property
    def t5_tokens(self) -> int | None:
        """States that T5 made of a prompt in training; None where that is the pipeline's own number, or no T5."""
        return self.trained_on.get("text", {}).get("t5_tokens")

    def check_width(self, states: Tensor) -> None:
        """Raises ValueError when states are not of the width that the adapter was built for."""
        if states.shape[-1] != self.dim:
            raise ValueError(
                f"the adapter is built for states {self.dim} wide, got {states.shape[-1]}; "
                "it belongs to another text encoder"
            )

    @torch.no_grad()
    def adapt(self, states: Tensor, weight: float | None = None, mask: Tensor | None = None) -> Tensor:
        """Adapted states in the dtype and on the device of `states`; the adapter moves to that device."""
        parameter = next(self.parameters())
        if parameter.device != states.device:
            self.to(states.device)
        output = self(states.to(parameter.dtype), weight, None if mask is None else mask.bool())
        return output.states.to(states.dtype)

    def attach(self, pipe: Any, weight: float | None = None) -> Any:
        """The pipeline, with this adapter on it; see `sur.adapter.attach.attach`."""
        return attach(self, pipe, weight)

    def detach(self, pipe: Any) -> Any:
        """The pipeline, as it was before the adapter was attached."""
        return detach(pipe)

    def save_pretrained(self, folder: str | Path) -> Path:
        """The folder, with config.json and adapter.safetensors written into it."""
        content = {"adapter": self.config.model_dump(), "weight": self.weight, "trained_on": self.trained_on}
        if self.variant != CORRECTED:  # files of corrected adapters are as they were before there were variants
            content["variant"] = self.variant
        return write_adapter(Path(folder), content, self.state_dict())

    @staticmethod
    def from_pretrained(name: str | Path, revision: str | None = None) -> BaseAdapter:
        """The adapter in a folder or hub repository, of the variant that its files name, ready for inference.

        It is in evaluation mode and has no gradients. Raises NotFound when there is none, ConfigError when it is from a
        newer version or of a variant that is not known, DamagedFile when its files are not as they were written.
        """
        folder = adapter_folder(name, revision)
        content = saved_settings(folder)
        variant = content.get("variant", CORRECTED)
        if variant not in BaseAdapter.variants:
            raise ConfigError(
                f"{folder} holds an adapter of variant {variant!r}, this version knows "
                f"{', '.join(BaseAdapter.variants)}; upgrade the package"
            )
        kind = BaseAdapter.variants[variant]
        adapter: BaseAdapter = built(kind, kind.config_class, content["adapter"], folder)
        weights = read_weights(folder, content.get(WEIGHTS_DIGEST), adapter.state_dict())
        adapter.load_state_dict(weights, assign=True)
        adapter.weight, adapter.trained_on = content["weight"], content["trained_on"]
        return adapter.eval().requires_grad_(False)
