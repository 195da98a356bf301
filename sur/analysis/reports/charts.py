"""Charts of a feature's statistics, as plain numbers that templates draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sur.analysis.store.statistics import FeatureStatistics

MOST_BARS = 240


@dataclass(frozen=True)
class Chart:
    """Bars from left to right. low, high: labels at the ends of the axis."""

    title: str
    heights: Sequence[float]
    labels: Sequence[str]
    low: str
    high: str
    unit: str
    summary: str

    @property
    def highest(self) -> float:
        """The tallest bar, or 1 where all are 0."""
        return max(self.heights, default=0) or 1


@dataclass(frozen=True)
class FeatureCharts:
    """Facts and charts of a feature, as a page shows them."""

    array: str
    vectors: str
    dim: int
    facts: Sequence[tuple[str, str]]
    charts: Sequence[Chart]


def feature_charts(statistics: FeatureStatistics) -> FeatureCharts:
    """Facts and charts of a feature."""
    s = statistics
    rank = "" if s.effective_rank is None else f"{s.effective_rank:.1f} of {s.dim}"
    facts = [
        ("rows", f"{s.rows:,}" + (f" ({s.rows_missing:,} without a value)" if s.rows_missing else "")),
        ("partitions", f"{s.partitions_done:,} of {s.partitions_total:,}"),
        ("mean", f"{s.mean:.4g}"),
        ("deviation", f"{s.deviation:.4g}"),
        ("smallest, largest", f"{s.smallest:.4g}, {s.largest:.4g}"),
        ("effective rank", rank),
        ("dead dimensions", _numbers(s.dead)),
        ("massive dimensions", _numbers([massive.dimension for massive in s.massive])),
        ("NaN, infinite", f"{s.nan:,}, {s.infinite:,}"),
    ]
    return FeatureCharts(
        s.array, f"{s.vectors:,}", s.dim, facts, list(filter(None, (_norms(s), _tokens(s), *_dimensions(s))))
    )


def _norms(s: FeatureStatistics) -> Chart | None:
    norms = s.norms
    if not norms.counts:
        return None
    pairs = zip(norms.edges[:-1], norms.edges[1:], norms.counts, strict=True)
    labels = [f"{low:.4g} to {high:.4g}: {count:,} vectors" for low, high, count in pairs]
    summary = f"mean {norms.mean:.4g}, median {norms.median:.4g}, {norms.smallest:.4g} to {norms.largest:.4g}"
    if norms.zeros:
        summary += f"; {norms.zeros:,} are zero"
    ends = f"{norms.edges[0]:.4g}", f"{norms.edges[-1]:.4g}"
    return Chart("Norms of the vectors", norms.counts, labels, *ends, "Euclidean norm, log scale", summary)


def _tokens(s: FeatureStatistics) -> Chart | None:
    if not s.token_lengths:
        return None
    lengths, rows = (np.array(column) for column in zip(*s.token_lengths, strict=True))
    low, high = int(lengths[0]), int(lengths[-1])
    width = -(-(high - low + 1) // MOST_BARS)
    heights = np.bincount((lengths - low) // width, weights=rows).astype(int).tolist()
    labels = [f"{_range(low + i * width, width)} tokens: {count:,} rows" for i, count in enumerate(heights)]
    mean = float((lengths * rows).sum() / rows.sum())
    summary = f"mean {mean:.1f}, {low} to {high}; of {high}: {int(rows[-1]):,}"
    return Chart("Tokens of the prompts", heights, labels, str(low), str(high), "tokens", summary)


def _dimensions(s: FeatureStatistics) -> list[Chart]:
    last = f"{s.dim - 1}"
    deviation, largest = np.array(s.dimension_deviation), np.array(s.dimension_largest)
    if s.dim < 2 or not len(largest):
        return []

    def chart(title: str, values: np.ndarray) -> Chart:
        width = -(-len(values) // MOST_BARS)
        heights = [float(values[i : i + width].max()) for i in range(0, len(values), width)]
        labels = [f"dimension {_range(i * width, width)}: {height:.4g}" for i, height in enumerate(heights)]
        top = int(values.argmax())
        summary = (
            f"most in dimension {top}: {values[top]:.4g}, {values[top] / max(np.median(values), 1e-12):.1f} x median"
        )
        return Chart(title, heights, labels, "0", last, "dimension", summary)

    return [
        chart("Deviation of each dimension", deviation),
        chart("Largest magnitude of each dimension", largest),
    ]


def _range(first: int, width: int) -> str:
    return str(first) if width == 1 else f"{first}-{first + width - 1}"


def _numbers(dimensions: Sequence[int], most: int = 12) -> str:
    """The count of some dimensions, and the first of them."""
    if not dimensions:
        return "none"
    names = ", ".join(map(str, dimensions[:most])) + (", …" if len(dimensions) > most else "")
    return f"{len(dimensions):,}: {names}"
