"""The authors' three losses, bug for bug (SUR_adapter_train.py of their repository at 5d97aa3).

alignment      KL(adapted || complex) of softmaxes over `dim`, summed over all tokens, divided by the rows
distillation   the same of every token's hidden state to one vector: the LLM's, through a random frozen projection
denoising      as usual, but of a copy of the states: it is a number in the log and trains nothing
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sur.adapter.base import AdapterOutput
from sur.adapter.losses import Objective, denoising_loss
from sur.adapter.losses.batch import RowBatch
from sur.adapter.losses.measures import real_tokens
from sur.config.losses import LossConfig
from sur.models.denoiser import FrozenDenoiser, Text


def reversed_divergence(
    adapted: Float[Tensor, "batch tokens dim"], target: Float[Tensor, "batch #tokens dim"]
) -> Float[Tensor, ""]:
    """KL(adapted || target), where distillation usually has KL(target || adapted); grows with the tokens."""
    return F.kl_div(target.log_softmax(-1), adapted.softmax(-1), reduction="sum") / len(adapted)


class ReleasedObjective(Objective):
    """Stands where an Objective does. Its projection is saved for an exact resume, which theirs is not."""

    def __init__(
        self, config: LossConfig, dim: int, llm_shape: tuple[int, ...] | None, denoiser: FrozenDenoiser | None = None
    ) -> None:
        super().__init__(config, dim, llm_shape, denoiser=denoiser)
        assert llm_shape is not None  # the losses need it, so it was asked for
        self.projection = nn.Linear(llm_shape[-1], dim).requires_grad_(False)  # ours maps the other way

    def forward(self, batch: RowBatch, output: AdapterOutput, step: int) -> dict[str, Tensor]:
        """Weighted losses by name. Draws from torch's global generator.

        Raises ValueError for a batch without complex prompts, LLM features or latents that a loss asks for.
        """
        config = self.config
        if batch.complex is None or batch.llm is None:
            raise ValueError("the released losses need complex prompts and LLM features of every row")
        wanted = self.projection(llm_vectors(batch))[:, None]
        losses = {
            "alignment": config.alignment.weight * reversed_divergence(output.states, batch.complex),
            "distillation": config.distillation.weight * reversed_divergence(output.hidden, wanted),
        }
        if config.denoising.weight > 0:
            if batch.latents is None or self.denoiser is None:
                raise ValueError("the released denoising loss needs latents of every row; set vae and extract")
            with torch.no_grad():
                noised = self.denoiser.noise(*batch.latents, seeds=batch.seeds)
                loss = denoising_loss(self.denoiser, noised, Text(output.states, batch.pooled))
            losses["denoising"] = config.denoising.weight * loss
        return losses


def llm_vectors(batch: RowBatch) -> Float[Tensor, "batch llm_dim"]:
    """The LLM's vector of each prompt: cached as such, or the mean of its cached token states."""
    assert batch.llm is not None and batch.llm_length is not None
    if batch.llm.ndim == 2:
        return batch.llm
    real = real_tokens(batch.llm_length, batch.llm.shape[1])[..., None].to(batch.llm.dtype)
    return (batch.llm * real).sum(1) / real.sum(1)
