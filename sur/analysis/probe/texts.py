"""What the text encoder says of both prompts: of the simple one, to which a candidate has to add, and of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sur.analysis.probe.candidates import pool
from sur.analysis.probe.projection import Projection, projecting, standardising
from sur.analysis.probe.rows import ProbeRows, batches, finite
from sur.cache import Store
from sur.config.probe import ProbeConfig
from sur.features.readout import stored_readout
from sur.models.readout import ReadOut
from sur.support.errors import ConfigError

READ_OUT_NUMBERS = 16_384  # of one prompt, at most, before the projection
MOST_QUERIES = 16  # of each layer

OfStates = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Texts:
    """Of all rows, float32: `simple`, the mean and the last real token of the narrative's states, and `target`."""

    simple: Float[np.ndarray, "rows p"]
    target: Float[np.ndarray, "rows q"]
    target_name: str


def text_slug(store: Store, config: ProbeConfig) -> str:
    """The text encoder whose simple and complex prompts are both cached. Raises ConfigError unless there is one."""
    names = store.features()
    slugs = [
        n.split(".", 1)[1].removesuffix(".simple") for n in names if n.startswith("text.") and n.endswith(".simple")
    ]
    slugs = [slug for slug in slugs if f"text.{slug}.complex" in names]
    if config.text is not None and config.text not in slugs:
        raise ConfigError(
            f"{store.path} has no prompts of a text encoder {config.text}; it has {', '.join(slugs) or 'none'}"
        )
    if config.text is None and len(slugs) != 1:
        found = f"those of {', '.join(slugs)}; choose one by --text" if slugs else "none; run `sur extract`"
        raise ConfigError(f"a probe needs one text encoder's simple and complex prompts, {store.path} has {found}")
    return config.text or slugs[0]


def read_texts(
    store: Store, slug: str, rows: ProbeRows, config: ProbeConfig, on_feature: Callable[[str], None]
) -> Texts:
    """Read both prompts' states once; kept of each row are at most width + target_width numbers."""
    read_out = _read_out(store, slug, config)

    def simple_of(states: Tensor, length: Tensor) -> Tensor:
        return torch.cat([pool(states, length, "mean"), pool(states, length, "last")], 1)

    def mean_of(states: Tensor, length: Tensor) -> Tensor:
        return pool(states, length, "mean")

    def even(sample: np.ndarray) -> Projection:
        """One factor for all columns of the mean, a factor for each layer of the read-out."""
        widths = [sample.shape[1]] if read_out is None else read_out.widths
        mean, factor, start = sample.mean(0), np.empty(sample.shape[1]), 0
        for width in widths:
            variance = sample[:, start : start + width].var(0).sum()
            factor[start : start + width] = 1 / np.sqrt(variance * len(widths)) if variance > 0 else 0
            start += width
        return projecting(mean, factor, config.target_width, config.seed)

    simple = _of_all(store, f"text.{slug}.simple", rows, config, simple_of, _standard(config))
    on_feature(f"text.{slug}.simple")
    target = _of_all(store, f"text.{slug}.complex", rows, config, read_out or mean_of, even)
    on_feature(f"text.{slug}.complex")
    return Texts(simple, target, "mean of the complex prompt's states" if read_out is None else read_out.name)


@dataclass(frozen=True)
class FlatReadOut:
    """A few queries' read-outs of a prompt's states in one vector, layer after layer of these widths."""

    read_out: ReadOut
    picks: list[Int[Tensor, " queries"]]
    widths: list[int]
    name: str

    @torch.no_grad()
    def __call__(self, states: Float[Tensor, "batch tokens dim"], length: Tensor) -> Float[Tensor, "batch numbers"]:
        """All states are read, padding included, as the denoiser does."""
        return torch.cat([layer.flatten(1) for layer in self.read_out(states.float(), self.picks)], 1)


def _read_out(store: Store, slug: str, config: ProbeConfig) -> FlatReadOut | None:
    """The read-out that is the target; None: the mean is."""
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


def _standard(config: ProbeConfig) -> Callable[[np.ndarray], Projection]:
    return lambda sample: standardising(sample, config.width, config.seed)


def _of_all(
    store: Store,
    feature: str,
    rows: ProbeRows,
    config: ProbeConfig,
    of: OfStates,
    fit: Callable[[np.ndarray], Projection],
) -> Float[np.ndarray, "rows numbers"]:
    """A vector of every row of a feature, in the rows' order; the projection is fitted to the first batch."""
    out, projection = None, None
    for places, batch in batches(store, feature, rows, config):
        vectors = finite(of(batch.arrays[f"{feature}/states"], batch.arrays[f"{feature}/length"]), feature, batch)
        projection = projection or fit(vectors)
        narrow = projection(vectors)
        out = np.empty((len(rows.slots), narrow.shape[1]), np.float32) if out is None else out
        out[places] = narrow
    assert out is not None  # probe_rows has refused a store without rows
    return out
