"""Vectors of the text encoder: of the simple prompt, beside which a candidate has to gain, and of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sur.analysis.probe.candidates import pool_tokens
from sur.analysis.probe.projection import RandomProjection, random_projection, standardising_projection
from sur.analysis.probe.rows import ProbeRows, finite_numpy, probe_batches
from sur.cache import Store
from sur.config.probe import ProbeConfig
from sur.features.readout import stored_readout
from sur.models.readout import ReadOut
from sur.support.errors import ConfigError

READ_OUT_NUMBERS = 16_384  # numbers of one prompt's read-out, at most, before the projection
MOST_QUERIES = 16  # of each layer

StatesFunction = Callable[[Tensor, Tensor], Tensor]  # (states, length) -> one vector a row


@dataclass(frozen=True)
class TextVectors:
    """Vectors of all rows, float32.

    simple: the mean and the last real token of the narrative's states. target: the vector that is predicted.
    """

    simple: Float[np.ndarray, "rows p"]
    target: Float[np.ndarray, "rows q"]
    target_name: str


def text_slug(store: Store, config: ProbeConfig) -> str:
    """Slug of the text encoder whose simple and complex prompts are both cached.

    Raises: ConfigError when there is none, or several and the configuration chooses none.
    """
    features = store.features()
    slugs = [
        name.split(".", 1)[1].removesuffix(".simple")
        for name in features
        if name.startswith("text.") and name.endswith(".simple")
    ]
    slugs = [slug for slug in slugs if f"text.{slug}.complex" in features]
    if config.text is not None and config.text not in slugs:
        raise ConfigError(
            f"{store.path} has no prompts of a text encoder {config.text}; it has {', '.join(slugs) or 'none'}"
        )
    if config.text is None and len(slugs) != 1:
        cached = f"those of {', '.join(slugs)}; choose one by --text" if slugs else "none; run `sur extract`"
        raise ConfigError(f"a probe needs one text encoder's simple and complex prompts, {store.path} has {cached}")
    return config.text or slugs[0]


def read_text_vectors(
    store: Store, slug: str, rows: ProbeRows, config: ProbeConfig, on_feature: Callable[[str], None]
) -> TextVectors:
    """The vectors of both prompts, whose states are read once; a row has at most width + target_width numbers."""
    read_out = _flat_read_out(store, slug, config)

    def mean_and_last(states: Tensor, length: Tensor) -> Tensor:
        return torch.cat([pool_tokens(states, length, "mean"), pool_tokens(states, length, "last")], 1)

    def mean(states: Tensor, length: Tensor) -> Tensor:
        return pool_tokens(states, length, "mean")

    def standardising(sample: np.ndarray) -> RandomProjection:
        return standardising_projection(sample, config.width, config.seed)

    def equal_layers(sample: np.ndarray) -> RandomProjection:
        """One factor for all columns of the mean, or one for each layer of the read-out."""
        widths = [sample.shape[1]] if read_out is None else read_out.widths
        sample_mean, factor, start = sample.mean(0), np.empty(sample.shape[1]), 0
        for width in widths:
            variance = sample[:, start : start + width].var(0).sum()
            factor[start : start + width] = 1 / np.sqrt(variance * len(widths)) if variance > 0 else 0
            start += width
        return random_projection(sample_mean, factor, config.target_width, config.seed)

    simple = _projected(store, f"text.{slug}.simple", rows, config, mean_and_last, standardising)
    on_feature(f"text.{slug}.simple")
    target = _projected(store, f"text.{slug}.complex", rows, config, read_out or mean, equal_layers)
    on_feature(f"text.{slug}.complex")
    return TextVectors(simple, target, "mean of the complex prompt's states" if read_out is None else read_out.name)


@dataclass(frozen=True)
class FlatReadOut:
    """A few queries' read-outs of a prompt's states in one vector: one layer after the other, of `widths` numbers."""

    read_out: ReadOut
    picks: list[Int[Tensor, " queries"]]
    widths: list[int]
    name: str

    @torch.no_grad()
    def __call__(self, states: Float[Tensor, "batch tokens dim"], length: Tensor) -> Float[Tensor, "batch numbers"]:
        """The read-out of all states, padding included, as the denoiser reads them."""
        return torch.cat([layer.flatten(1) for layer in self.read_out(states.float(), self.picks)], 1)


def _flat_read_out(store: Store, slug: str, config: ProbeConfig) -> FlatReadOut | None:
    """The read-out that is the target; None when the mean of the states is."""
    asset = f"readout.{slug}"
    if config.target == "mean" or (config.target == "auto" and asset not in store.assets()):
        return None
    read_out = stored_readout(store, asset)
    widths = [read_out.get_buffer(f"q{i}").shape[1] for i in range(len(read_out.heads))]
    queries = min(MOST_QUERIES, max(1, READ_OUT_NUMBERS // sum(widths)))
    generator = torch.Generator().manual_seed(config.seed)
    sizes = [len(read_out.get_buffer(f"q{i}")) for i in range(len(widths))]
    picks = [torch.randperm(size, generator=generator)[:queries] for size in sizes]
    counts = [len(pick) * width for pick, width in zip(picks, widths, strict=True)]
    return FlatReadOut(read_out, picks, counts, f"read-out of the complex prompt, {queries} queries in each layer")


def _projected(
    store: Store,
    feature: str,
    rows: ProbeRows,
    config: ProbeConfig,
    vectors_of: StatesFunction,
    fit: Callable[[np.ndarray], RandomProjection],
) -> Float[np.ndarray, "rows numbers"]:
    """A vector of every row of a feature, in the rows' order; the projection is fitted to the first batch."""
    out, projection = None, None
    for places, batch in probe_batches(store, feature, rows, config):
        states, length = batch.arrays[f"{feature}/states"], batch.arrays[f"{feature}/length"]
        vectors = finite_numpy(vectors_of(states, length), feature, batch)
        projection = projection or fit(vectors)
        narrow = projection(vectors)
        out = np.empty((len(rows.slots), narrow.shape[1]), np.float32) if out is None else out
        out[places] = narrow
    assert out is not None  # probe_rows has refused a store without rows
    return out
