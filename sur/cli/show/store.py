"""How rows, statistics and differences look in a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.analysis.store.difference import FeatureDifference, OnlyIn, StoreDifference
    from sur.analysis.store.neighbours import Neighbour
    from sur.analysis.store.rows import RowDescription
    from sur.analysis.store.statistics import FeatureStatistics
    from sur.cache import RowRecord, Store

BAR = 40  # columns of a histogram's longest bar
LENGTH_BINS = 24
PICTURE = 48  # columns of a picture in the terminal
NAMED = 20  # dimensions that are named


def print_row(store: "Store", row: "RowDescription", near: Mapping[str, Sequence["Neighbour"]], out: Console) -> None:
    """A row's prompts, what each feature holds of it, and its nearest neighbours by each."""
    from sur.analysis.store.rows import row_records

    out.print(f"row {row.id}, slot {row.slot} (partition {row.partition})", markup=False, highlight=False)
    for name, value in (("simple", row.simple), ("complex", row.complex), ("image", row.image)):
        out.print(f"  {name:8}{value or '(none)'}", markup=False, highlight=False)
    sets = ", ".join(row.datasets) or "(none)"
    out.print(f"  {'in':8}{sets}; held back for validation above a fraction of {row.split_share:.4f}", markup=False)
    table = Table("feature", "tokens", "norm", "mean", "deviation", "largest", "token norms", box=None, pad_edge=False)
    for feature in row.features:
        if feature.missing:
            table.add_row(feature.name, "", "", "", "", "", escape(f"none: {feature.missing}"))
            continue
        norms = feature.token_norms
        spread = f"{min(norms):.4g} … {max(norms):.4g}" if norms else ""
        numbers = (f"{value:.4g}" for value in (feature.norm, feature.mean, feature.deviation, feature.largest))
        table.add_row(feature.name, "" if feature.tokens is None else str(feature.tokens), *numbers, spread)
    out.print(table)
    for name, found in near.items():
        out.print(f"nearest by {name} (cosine of standardised vectors)", markup=False, highlight=False)
        rows = row_records(store, [each.slot for each in found])
        for each, record in zip(found, rows, strict=True):
            line = f"  {each.similarity:.4f}  {each.slot:6d}  {record.simple}"
            out.print(line, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")


def print_picture(image: "Image", out: Console) -> None:
    """The picture in half blocks, in a terminal that has colours."""
    if not out.is_terminal or out.color_system is None:
        return
    small = image.resize((PICTURE, PICTURE * image.height // image.width // 2 * 2))
    pixels, text = small.load(), Text()
    assert pixels is not None
    for y in range(0, small.height, 2):
        for x in range(small.width):
            above, below = ("#{:02x}{:02x}{:02x}".format(*pixels[x, y + line]) for line in (0, 1))  # pyright: ignore
            text.append("▀", f"{above} on {below}")
        text.append("\n")
    out.print(text, end="")


def print_rows(rows: Sequence["RowRecord"], found: int, text: str, out: Console) -> None:
    """What a search found."""
    out.print(f"{found} rows hold {text!r}" + (f", the first {len(rows)}:" if found > len(rows) else ""), markup=False)
    table = Table("slot", "id", "simple", "complex", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row.slot), row.id.hex()[:8], escape(row.simple), escape(row.complex))
    if rows:
        out.print(table)


def print_statistics(found: "FeatureStatistics", out: Console) -> None:
    """A feature's numbers, dimensions and histograms."""

    def say(name: str, value: str) -> None:
        out.print(f"  {name:16}{value}", markup=False, highlight=False)

    out.print(f"{found.name}: {found.array} {list(found.shape)}, {found.kind}", markup=False, highlight=False)
    partitions = f"{found.partitions_done} of {found.partitions_total} partitions"
    say("rows", f"{found.rows:,} ({found.rows_missing:,} without a value), {partitions}, {found.vectors:,} vectors")
    unusable = f"{found.nan:,} NaN, {found.infinite:,} infinite"
    if not found.vectors:
        waiting = "; run `sur extract`" if found.partitions_done < found.partitions_total else ""
        say("values", f"none{waiting}" if not found.rows else f"no finite vector: {unusable}")
        return
    say("mean", f"{found.mean:.5g}")
    say("deviation", f"{found.deviation:.5g}")
    say("range", f"{found.smallest:.5g} … {found.largest:.5g}")
    say("not finite", unusable)
    rank = "" if found.effective_rank is None else f"{found.effective_rank:.1f} of {found.dim}"
    if rank and found.massive and found.effective_rank_ordinary is not None:
        rank += f", of vectors without massive activations {found.effective_rank_ordinary:.1f}"
    say("effective rank", f"{rank} (covariance of {found.spectrum_vectors:,} vectors)" if rank else "no spread")
    say("dead", f"{len(found.dead)} dimensions" + _named(found.dead))
    massive = [f"{each.dimension} (up to {each.largest:.4g}, {each.rows:,} rows)" for each in found.massive]
    say("massive", f"{len(massive)} dimensions" + _named(massive))
    norms = found.norms
    out.print(
        f"norms: mean {norms.mean:.4g}, median {norms.median:.4g}, {norms.smallest:.4g} … {norms.largest:.4g}"
        + (f"; {norms.zeros:,} are zero" if norms.zeros else ""),
        highlight=False,
    )
    _bars([f"{edge:.4g}" for edge in norms.edges[:-1]], norms.counts, out)
    if found.token_lengths:
        out.print("tokens a row:", highlight=False)
        _bars(*_length_bins(found.token_lengths), out)


def print_difference(found: "FeatureDifference | StoreDifference", out: Console) -> None:
    """What differs, and by how much."""
    from sur.analysis.store.difference import FeatureDifference

    if isinstance(found, FeatureDifference):
        _feature_difference(found, out)
        return
    _said(f"{found.rows:,} rows in both", out)
    _alone("rows", found.only_a, found.only_b, out)
    for what, here, there in (
        ("features", found.features_only_a, found.features_only_b),
        ("assets", found.assets_only_a, found.assets_only_b),
    ):
        for side, names in (("first", here), ("second", there)):
            if names:
                _said(f"{what} in the {side} only: {', '.join(names)}", out)
    for name, fields in found.assets_differing:
        _said(f"asset {name}: {', '.join(f'{field} {a} and {b}' for field, a, b in fields)}", out)
    for feature in found.features:
        _feature_difference(feature, out)
    _said("no difference" if found.same else "the stores differ", out)


def _feature_difference(found: "FeatureDifference", out: Console) -> None:
    name = found.name_a if found.name_a == found.name_b else f"{found.name_a} and {found.name_b}"
    how = " (by checksum)" if found.by_checksum else ""
    same = found.same and found.rows
    both = f"{found.rows:,} rows in both" if found.rows else "no row has a value in both"
    _said(f"{name}: {both}" + (f", no difference{how}" if same else ""), out)
    if same:
        return
    for field, here, there in found.identity:
        _said(f"  {field}: {here} and {there}", out)
    _alone("  rows", found.only_a, found.only_b, out)
    if not found.rows:
        return
    heads = ("array", "equal rows", "relative error", "largest", "mean cosine", "least cosine")
    table = Table(*heads, box=None, pad_edge=False)
    for array in found.arrays:
        if array.note:
            table.add_row(array.name, array.note)
            continue
        equal = f"{array.equal_rows:,} of {array.rows:,}"
        numbers = (array.relative_error, array.largest, array.mean_cosine, array.least_cosine)
        table.add_row(array.name, equal, *(f"{number:.4g}" for number in numbers))
    out.print(table)
    for row in found.worst:
        said = f"relative error {row.relative_error:.4g}, cosine {row.cosine:.4g}"
        _said(f"  row {row.id[:8]} (slots {row.slot_a} and {row.slot_b}): {said}", out)


def _alone(what: str, here: "OnlyIn", there: "OnlyIn", out: Console) -> None:
    for side, only in (("first", here), ("second", there)):
        if only.rows:
            first = ", ".join(row[:8] for row in only.first)
            _said(
                f"{what} in the {side} only: {only.rows:,} ({first}{', …' if only.rows > len(only.first) else ''})", out
            )


def _said(text: str, out: Console) -> None:
    out.print(text, markup=False, highlight=False)


def _named(items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:NAMED]))
    return f": {shown}{', …' if len(items) > NAMED else ''}" if items else ""


def _length_bins(lengths: Sequence[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """Token lengths in at most `LENGTH_BINS` bins of equal width."""
    first, last = lengths[0][0], lengths[-1][0]
    step = -(-(last - first + 1) // LENGTH_BINS)
    counts = [0] * (-(-(last - first + 1) // step))
    for length, rows in lengths:
        counts[(length - first) // step] += rows
    starts = range(first, last + 1, step)
    return [str(start) if step == 1 else f"{start}-{min(start + step - 1, last)}" for start in starts], counts


def _bars(labels: Sequence[str], counts: Sequence[int], out: Console) -> None:
    """A histogram, a line a bin."""
    most, width = max(counts, default=0), max(map(len, labels), default=0)
    for label, count in zip(labels, counts, strict=True):
        eighths = round(8 * BAR * count / most) if most else 0
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        out.print(f"  {label:>{width}} {bar or '▏' * (count > 0)} {count:,}", markup=False, highlight=False)
