"""Distillation: the adapter learns what the LLM knows of the simple prompt. Three forms.

`pooled`   a learned projection of the adapter's hidden states' mean meets the LLM's pooled vector (the paper).
`tokens`   each real text token's hidden state meets the LLM's states interpolated onto its place in the prompt
           (both models read the same characters in the same order, split into tokens differently). A prompt that
           fills a model's limit of tokens, and so may have lost its end, has no such places: it is left out.
`teacher`  a decoder reads the LLM's states and learns to predict the complex prompt's read-out; then, on rows
           without a complex prompt, its prediction stands in for it. Words that only the LLM knows reach the
           adapter so.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sur.adapter.losses.measures import mean_distance, real_tokens
from sur.config.losses import DistillationConfig
from sur.support.errors import ConfigError


class HiddenProjection(nn.Module):
    """Maps hidden states (dim) to the LLM's width: one linear layer, always in the checkpoint.

    start_marks: tokens of the text encoder's before the prompt's first (CLIP one, T5 none). limits: most real tokens
    that the text encoder and the LLM keep of a prompt, None where they are not known.
    """

    def __init__(
        self,
        dim: int,
        llm_dim: int,
        config: DistillationConfig,
        start_marks: int = 1,
        limits: tuple[int | None, int | None] = (None, None),
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, llm_dim)
        self.config, self.start_marks, self.limits = config, start_marks, limits
        self.requires_grad_(config.projection == "learned")

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens dim"],
        length: Int[Tensor, " batch"],
        target: Float[Tensor, "batch ..."],
        target_length: Int[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        """The loss. `target`: (batch, llm_dim) pooled, or (batch, llm_tokens, llm_dim) token states."""
        real = real_tokens(length, hidden.shape[1])
        config = self.config
        if config.form == "pooled":
            if target.ndim == 3:
                weights = real_tokens(target_length, target.shape[1]).to(target.dtype)
                target = (target * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
            pooled = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True)
            return mean_distance(config.measure, self.linear(pooled), target, config.temperature)
        if target.ndim != 3:
            raise ConfigError(
                "distillation form `tokens` needs LLM features with pooling `tokens`; set llm.pooling=tokens"
            )
        onto = interpolate_tokens(target, target_length, length, hidden.shape[1], self.start_marks)
        real &= self._whole(length, target_length)[:, None]
        return mean_distance(config.measure, self.linear(hidden[real]), onto[real], config.temperature)

    def _whole(self, length: Int[Tensor, " batch"], target_length: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Prompts of which both models certainly read all."""
        whole = torch.ones_like(length, dtype=torch.bool)
        for tokens, limit in ((length, self.limits[0]), (target_length, self.limits[1])):
            if limit is not None:
                whole &= tokens < limit
        return whole


def interpolate_tokens(
    target: Float[Tensor, "batch llm_tokens llm_dim"],
    target_length: Int[Tensor, " batch"],
    length: Int[Tensor, " batch"],
    tokens: int,
    start_marks: int = 1,
) -> Float[Tensor, "batch tokens llm_dim"]:
    """LLM states at the relative place of each text token, linearly between the two nearest LLM tokens.

    Of `length` text tokens the first `start_marks` and the last are marks: with one start mark token i lies at
    (i - 1) / (length - 3) of the prompt, clamped to 0..1.
    """
    index = torch.arange(tokens, device=target.device)[None]
    place = ((index - start_marks) / (length[:, None] - 2 - start_marks).clamp_min(1)).clamp(0, 1) * (
        target_length[:, None] - 1
    )
    low = place.floor().long()
    high = torch.minimum(low + 1, (target_length[:, None] - 1).long())
    share = (place - low)[..., None].to(target.dtype)
    rows = torch.arange(len(target), device=target.device)[:, None]
    return target[rows, low] * (1 - share) + target[rows, high] * share


class Teacher(nn.Module):
    """LLM states in, states that read out like the complex prompt's out; used in training only.

    It sees the LLM's states and nothing else, so that it must rely on what the LLM knows of a word. A pooled feature's
    vector (`llm_tokens` None) is standardised and read as a prompt of one token.
    """

    mean: Tensor  # (llm_dim,) of pooled vectors
    factor: Tensor  # (llm_dim,) 1 / their standard deviation

    def __init__(self, dim: int, llm_dim: int, config: DistillationConfig, llm_tokens: int | None) -> None:
        super().__init__()
        width, layers, dropout = config.teacher_width, config.teacher_layers, config.teacher_dropout
        self.pooled = llm_tokens is None
        if self.pooled:
            self.register_buffer("mean", torch.zeros(llm_dim))
            self.register_buffer("factor", torch.ones(llm_dim))
        self.normalise = nn.LayerNorm(llm_dim)
        self.input = nn.Sequential(nn.Dropout(dropout), nn.Linear(llm_dim, width))
        self.place = nn.Parameter(0.02 * torch.randn(llm_tokens or 1, width))
        self.queries = nn.Parameter(torch.randn(config.teacher_tokens, width))
        options = {"dropout": dropout, "batch_first": True, "norm_first": True}
        encoder = nn.TransformerEncoderLayer(width, 4, 4 * width, **options)
        decoder = nn.TransformerDecoderLayer(width, 4, 4 * width, **options)
        self.encoder = nn.TransformerEncoder(encoder, layers, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, layers, nn.LayerNorm(width))
        self.output = nn.Linear(width, dim)

    @torch.no_grad()
    def standardise(self, vectors: Float[Tensor, "n llm_dim"]) -> None:
        """Read pooled vectors in standard deviations from the mean of a sample; dimensions that never vary become 0.

        One massive dimension, alike in all prompts, would leave next to nothing of the others after the layer norm.
        """
        deviation = vectors.std(0)
        self.mean.copy_(vectors.mean(0))
        self.factor.copy_(torch.where(deviation > 0, 1 / deviation, 0.0))

    def forward(
        self, states: Float[Tensor, "batch *llm_tokens llm_dim"], length: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch teacher_tokens dim"]:
        """Predicted states for each prompt. `states`: (batch, llm_tokens, llm_dim), or pooled (batch, llm_dim)."""
        if self.pooled:
            states = ((states - self.mean) * self.factor)[:, None]
        padding = ~real_tokens(length, states.shape[1])
        memory = self.input(self.normalise(states)) + self.place[: states.shape[1]]
        memory = self.encoder(memory, src_key_padding_mask=padding)
        queries = self.queries.expand(len(states), -1, -1)
        return self.output(self.decoder(queries, memory, memory_key_padding_mask=padding))
