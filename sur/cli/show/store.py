"""How the rows of a store, statistics and differences look in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from sur.support.terminal import PlainConsole

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.analysis.store.difference import FeatureDifference, OnlyIn, StoreDifference
    from sur.analysis.store.rows import RowReport
    from sur.analysis.store.statistics import FeatureStatistics
    from sur.cache import RowRecord

BAR_COLUMNS = 40  # of a histogram's longest bar
LENGTH_BINS = 24  # of a histogram of token lengths
PICTURE_COLUMNS = 48
MOST_NAMED = 20  # dimensions that are named


def print_row(row: "RowReport", out: PlainConsole) -> None:
    """Print a row's prompts, its values in each feature, and its nearest rows by each."""
    out.print(f"row {row.id}, slot {row.slot} (partition {row.partition})")
    for name, value in (("simple", row.simple), ("complex", row.complex), ("image", row.image)):
        out.print(f"  {name:8}{value or '(none)'}")
    sets = ", ".join(row.datasets) or "(none)"
    out.print(f"  {'in':8}{sets}; in the validation split if train.validation_fraction > {row.split_share:.4f}")
    table = Table("feature", "tokens", "norm", "mean", "deviation", "largest", "token norms", box=None, pad_edge=False)
    for feature in row.features:
        if feature.missing:
            table.add_row(feature.name, "", "", "", "", "", f"none: {feature.missing}")
            continue
        norms = feature.token_norms
        spread = f"{min(norms):.4g} … {max(norms):.4g}" if norms else ""
        numbers = (f"{value:.4g}" for value in (feature.norm, feature.mean, feature.deviation, feature.largest))
        table.add_row(feature.name, "" if feature.tokens is None else str(feature.tokens), *numbers, spread)
    out.print(table)
    for name, neighbours in row.neighbours.items():
        out.print(f"nearest by {name} (cosine of standardised vectors)")
        for near in neighbours:
            line = f"  {near.similarity:.4f}  {near.slot:6d}  {near.simple}"
            out.print(line, no_wrap=True, overflow="ellipsis")


def print_picture(image: "Image", out: PlainConsole) -> None:
    """Print a picture in half blocks, in a terminal that has colours."""
    if not out.is_terminal or out.color_system is None:
        return
    small = image.resize((PICTURE_COLUMNS, PICTURE_COLUMNS * image.height // image.width // 2 * 2))
    pixels, text = small.load(), Text()
    assert pixels is not None
    for y in range(0, small.height, 2):
        for x in range(small.width):
            above, below = ("#{:02x}{:02x}{:02x}".format(*pixels[x, y + line]) for line in (0, 1))  # pyright: ignore
            text.append("▀", f"{above} on {below}")
        text.append("\n")
    out.print(text, end="")


def print_rows(rows: Sequence["RowRecord"], total: int, text: str, out: PlainConsole) -> None:
    """Print the rows that a search for `text` found; `total`: how many it found in all."""
    out.print(f"{total} rows hold {text!r}" + (f", the first {len(rows)}:" if total > len(rows) else ""))
    table = Table("slot", "id", "simple", "complex", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row.slot), row.id.hex()[:8], row.simple, row.complex)
    if rows:
        out.print(table)


def print_statistics(statistics: "FeatureStatistics", out: PlainConsole) -> None:
    """Print a feature's numbers, dimensions and histograms."""

    s = statistics

    def print_fact(name: str, value: str) -> None:
        out.print(f"  {name:16}{value}")

    out.print(
        f"{s.name}: {s.array} {list(s.shape)}, {s.kind}",
    )
    partitions = f"{s.partitions_done} of {s.partitions_total} partitions"
    print_fact(
        "rows",
        f"{s.rows:,} ({s.rows_missing:,} without a value), {partitions}, {s.vectors:,} vectors",
    )
    unusable = f"{s.nan:,} NaN, {s.infinite:,} infinite"
    if not s.vectors:
        waiting = "; run `sur extract`" if s.partitions_done < s.partitions_total else ""
        print_fact("values", f"none{waiting}" if not s.rows else f"no finite vector: {unusable}")
        return
    print_fact("mean", f"{s.mean:.5g}")
    print_fact("deviation", f"{s.deviation:.5g}")
    print_fact("range", f"{s.smallest:.5g} … {s.largest:.5g}")
    print_fact("not finite", unusable)
    rank = "" if s.effective_rank is None else f"{s.effective_rank:.1f} of {s.dim}"
    if rank and s.massive and s.effective_rank_ordinary is not None:
        rank += f", of vectors without massive activations {s.effective_rank_ordinary:.1f}"
    print_fact("effective rank", f"{rank} (covariance of {s.spectrum_vectors:,} vectors)" if rank else "no spread")
    print_fact("dead", f"{len(s.dead)} dimensions" + _with_names(s.dead))
    massive = [f"{m.dimension} (up to {m.largest:.4g}, {m.rows:,} rows)" for m in s.massive]
    print_fact("massive", f"{len(massive)} dimensions" + _with_names(massive))
    norms = s.norms
    out.print(
        f"norms: mean {norms.mean:.4g}, median {norms.median:.4g}, {norms.smallest:.4g} … {norms.largest:.4g}"
        + (f"; {norms.zeros:,} are zero" if norms.zeros else ""),
    )
    _print_bars([f"{edge:.4g}" for edge in norms.edges[:-1]], norms.counts, out)
    if s.token_lengths:
        out.print("tokens a row:")
        _print_bars(*_length_bins(s.token_lengths), out)


def print_difference(difference: "FeatureDifference | StoreDifference", out: PlainConsole) -> None:
    """Print the differences of two features or two stores, and how large they are."""
    from sur.analysis.store.difference import FeatureDifference

    if isinstance(difference, FeatureDifference):
        _print_feature_difference(difference, out)
        return
    _print_plain(f"{difference.rows:,} rows in both", out)
    _print_only_in("rows", difference.only_a, difference.only_b, out)
    for what, names_a, names_b in (
        ("features", difference.features_only_a, difference.features_only_b),
        ("assets", difference.assets_only_a, difference.assets_only_b),
    ):
        for side, names in (("first", names_a), ("second", names_b)):
            if names:
                _print_plain(f"{what} in the {side} only: {', '.join(names)}", out)
    for name, fields in difference.assets_differing:
        _print_plain(f"asset {name}: {', '.join(f'{field} {a} and {b}' for field, a, b in fields)}", out)
    for feature in difference.features:
        _print_feature_difference(feature, out)
    _print_plain("no difference" if difference.same else "the stores differ", out)


def _print_feature_difference(difference: "FeatureDifference", out: PlainConsole) -> None:
    names = dict.fromkeys((difference.name_a, difference.name_b))
    how = " (by checksum)" if difference.by_checksum else ""
    same = difference.same and difference.rows
    both = f"{difference.rows:,} rows in both" if difference.rows else "no row has a value in both"
    _print_plain(f"{' and '.join(names)}: {both}" + (f", no difference{how}" if same else ""), out)
    if same:
        return
    for field, value_a, value_b in difference.identity:
        _print_plain(f"  {field}: {value_a} and {value_b}", out)
    _print_only_in("  rows", difference.only_a, difference.only_b, out)
    if not difference.rows:
        return
    heads = ("array", "equal rows", "relative error", "largest", "mean cosine", "least cosine")
    table = Table(*heads, box=None, pad_edge=False)
    for array in difference.arrays:
        if array.note:
            table.add_row(array.name, array.note)
            continue
        equal = f"{array.equal_rows:,} of {array.rows:,}"
        numbers = (array.relative_error, array.largest, array.mean_cosine, array.least_cosine)
        table.add_row(array.name, equal, *(f"{number:.4g}" for number in numbers))
    out.print(table)
    for row in difference.worst:
        numbers = f"relative error {row.relative_error:.4g}, cosine {row.cosine:.4g}"
        _print_plain(f"  row {row.id[:8]} (slots {row.slot_a} and {row.slot_b}): {numbers}", out)


def _print_only_in(what: str, only_a: "OnlyIn", only_b: "OnlyIn", out: PlainConsole) -> None:
    for side, only in (("first", only_a), ("second", only_b)):
        if only.rows:
            first = ", ".join(row[:8] for row in only.first) + (", …" if only.rows > len(only.first) else "")
            _print_plain(f"{what} in the {side} only: {only.rows:,} ({first})", out)


def _print_plain(text: str, out: PlainConsole) -> None:
    out.print(text)


def _with_names(items: Sequence[object]) -> str:
    names = ", ".join(map(str, items[:MOST_NAMED]))
    return f": {names}{', …' if len(items) > MOST_NAMED else ''}" if items else ""


def _length_bins(lengths: Sequence[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """Token lengths in at most `LENGTH_BINS` bins of equal width."""
    first, last = lengths[0][0], lengths[-1][0]
    step = -(-(last - first + 1) // LENGTH_BINS)
    counts = [0] * (-(-(last - first + 1) // step))
    for length, rows in lengths:
        counts[(length - first) // step] += rows
    starts = range(first, last + 1, step)
    return [str(start) if step == 1 else f"{start}-{min(start + step - 1, last)}" for start in starts], counts


def _print_bars(labels: Sequence[str], counts: Sequence[int], out: PlainConsole) -> None:
    """Print a histogram, one line a bin."""
    most, width = max(counts, default=0), max(map(len, labels), default=0)
    for label, count in zip(labels, counts, strict=True):
        eighths = round(8 * BAR_COLUMNS * count / most) if most else 0
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        out.print(f"  {label:>{width}} {bar or '▏' * (count > 0)} {count:,}")
