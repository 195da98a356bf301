"""What training minimises: a weighted sum of the losses that the config asks for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sur.adapter.base import AdapterOutput
from sur.adapter.losses.alignment import attention_alignment, token_alignment
from sur.adapter.losses.batch import RowBatch
from sur.adapter.losses.denoising import denoiser_alignment, denoising_loss
from sur.adapter.losses.distillation import HiddenProjection, Teacher
from sur.config.losses import LossConfig
from sur.models.denoiser import FrozenDenoiser, Text, keep_rows
from sur.models.readout import ReadOut


class Objective(nn.Module):
    """The losses with what they learn (projection, teacher) and what they read (read-out, denoiser).

    `projection` and `teacher` are trained and saved with the checkpoint, and not needed for inference.

    llm_shape, also_shapes: of a row's states in the LLM's features, (llm_dim,) or (llm_tokens, llm_dim). text_limit:
    most real tokens that the text encoder keeps of a prompt. start_marks: see `HiddenProjection`.
    """

    def __init__(
        self,
        config: LossConfig,
        dim: int,
        llm_shape: tuple[int, ...] | None = None,
        read_out: ReadOut | None = None,
        denoiser: FrozenDenoiser | None = None,
        start_marks: int = 1,
        also_shapes: Sequence[tuple[int, ...]] = (),
        text_limit: int | None = None,
    ) -> None:
        super().__init__()
        for name, needed, given in (
            ("LLM features", config.uses_llm, llm_shape),
            ("the denoiser's read-out", config.uses_readout, read_out),
            ("the denoiser", config.uses_denoiser, denoiser),
        ):
            if needed and given is None:
                raise ValueError(f"the losses asked for need {name}, which were not given")
        self.config = config
        self.read_out = read_out
        self.denoiser = denoiser
        distillation = config.distillation
        self.projection = self.teacher = None
        self.also = nn.ModuleList(
            HiddenProjection(dim, shape[-1], distillation, start_marks, (text_limit, _limit(shape)))
            for shape in also_shapes
        )
        if distillation.form == "teacher":
            assert llm_shape is not None  # the losses need it, so it was asked for
            self.teacher = Teacher(dim, llm_shape[-1], distillation, llm_shape[0] if len(llm_shape) == 2 else None)
        elif distillation.form != "none" and llm_shape is not None:
            limits = (text_limit, _limit(llm_shape))
            self.projection = HiddenProjection(dim, llm_shape[-1], distillation, start_marks, limits)

    def parts(self) -> dict[str, nn.Module]:
        """What is learnt beside the adapter, by name."""
        also = self.also if len(self.also) else None
        parts = {"projection": self.projection, "also": also, "teacher": self.teacher}
        return {name: part for name, part in parts.items() if part is not None}

    def learned(self) -> dict[str, Tensor]:
        """State of the parts that are learnt beside the adapter."""
        return {
            f"{name}.{key}": value
            for name, module in self.parts().items()
            for key, value in module.state_dict().items()
        }

    def load_learned(self, state: dict[str, Tensor]) -> None:
        """Undo `learned`. Raises RuntimeError for states of another configuration."""
        for name, module in self.parts().items():
            prefix = name + "."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def forward(self, batch: RowBatch, output: AdapterOutput, step: int) -> dict[str, Tensor]:
        """Weighted losses by name; their sum is to be minimised. Draws from torch's global generator."""
        losses: dict[str, Tensor] = {}
        states = output.states
        config = self.config
        everyone = torch.ones(len(states), dtype=torch.bool, device=states.device)
        paired = everyone if batch.paired is None else batch.paired
        if batch.complex is not None and config.alignment.weight > 0:
            pair = (states[paired], batch.complex[paired])
            if config.alignment.form == "tokens":
                both = None
                if batch.mask is not None and batch.complex_mask is not None:
                    both = (batch.mask & batch.complex_mask)[paired]
                losses["alignment"] = config.alignment.weight * token_alignment(config.alignment, *pair, both)
            elif config.alignment.form == "attention":
                queries = config.alignment.queries_per_step
                assert self.read_out is not None  # checked in __init__
                losses["alignment"] = config.alignment.weight * attention_alignment(self.read_out, *pair, queries)
        if config.distillation.form != "none":
            losses |= self._distillation(batch, output, paired, step)
        if self.denoiser is not None and config.uses_denoiser:
            losses |= self._denoiser(batch, states, paired, step)
        return losses

    def _distillation(self, batch: RowBatch, output: AdapterOutput, paired: Tensor, step: int) -> dict[str, Tensor]:
        config = self.config.distillation
        if batch.llm is None or batch.llm_length is None:
            raise ValueError("distillation is on, but the batch has no LLM features")
        if self.projection is not None:
            loss = self.projection(output.hidden, batch.length, batch.llm, batch.llm_length)
            factors = [config.also[name] for name in sorted(config.also)]
            further = zip(factors, self.also, batch.also, batch.also_length, strict=True)
            for factor, projection, states, length in further:
                loss = loss + factor * projection(output.hidden, batch.length, states, length)
            return {"distillation": config.weight * loss}
        assert self.teacher is not None and self.read_out is not None
        queries = self.config.alignment.queries_per_step
        learning = step < config.teacher_steps
        losses = {}
        if batch.complex is not None and (learning or not self.training):
            taught = self.teacher(batch.llm[paired], batch.llm_length[paired])
            losses["teacher"] = attention_alignment(self.read_out, taught, batch.complex[paired], queries)
        if not learning:
            rest = ~paired
            loss = output.states[rest].sum()  # zero when every row is paired
            if bool(rest.any()):
                with torch.no_grad():
                    target = self.teacher.eval()(batch.llm[rest], batch.llm_length[rest])
                loss = attention_alignment(self.read_out, output.states[rest], target, queries)
            losses["distillation"] = config.weight * loss
        return losses

    def _denoiser(self, batch: RowBatch, states: Tensor, paired: Tensor, step: int) -> dict[str, Tensor]:
        aligns = self.config.alignment.form == "denoiser" and batch.complex is not None
        denoises = self.config.denoising.weight > 0 and step >= self.config.denoising.first_step
        if not (aligns or denoises):
            return {}
        if batch.latents is None:
            raise ValueError("the denoiser's losses need latents in the cache; set vae in the config and extract")
        assert self.denoiser is not None
        keep = torch.ones_like(paired) if batch.pictured is None else batch.pictured
        if not denoises:  # alignment also needs the complex prompt, denoising does not
            keep = keep & paired
        losses: dict[str, Tensor] = {}
        if not bool(keep.any()):  # nothing to learn from these rows: zero, with a gradient to hand on
            zero = states[keep].sum()
            return {name: zero for name, active in (("alignment", aligns), ("denoising", denoises)) if active}
        mean, logvar = (part[keep] for part in batch.latents)
        settings = self.config.denoising
        seeds = None if batch.seeds is None else batch.seeds[keep]
        noised = self.denoiser.noise(mean, logvar, seeds, settings.noise_offset)
        text = keep_rows(Text(states, batch.pooled, batch.mask), keep)
        if aligns and batch.complex is not None:
            target = keep_rows(Text(batch.complex, batch.complex_pooled, batch.complex_mask), keep)
            both = paired[keep]
            pairs = (keep_rows(noised, both), keep_rows(text, both), keep_rows(target, both))
            losses["alignment"] = self.config.alignment.weight * denoiser_alignment(self.denoiser, *pairs)
        if denoises:
            loss = denoising_loss(self.denoiser, noised, text, settings.min_snr_gamma)
            losses["denoising"] = settings.weight * loss
        return losses


def _limit(shape: tuple[int, ...]) -> int | None:
    """Most tokens that a feature of token states keeps of a prompt; None for one vector a prompt."""
    return shape[0] if len(shape) == 2 else None
