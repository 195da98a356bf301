"""Pages of rows: the list, one row, rows side by side, and a row's neighbours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from sur.analysis.store.rows import describe_row
from sur.analysis.store.table import State, Table
from sur.analysis.web.filters import NO_DATASET, PAGE_ROWS, RowFilter
from sur.analysis.web.pages import TheViewer, page, picture_address
from sur.analysis.web.viewer import Viewer

NEIGHBOURS = 12
MOST_COMPARED = 4
router = APIRouter()


class Piece(NamedTuple):
    """A part of a prompt. own: whether it has words that no other prompt has."""

    text: str
    own: bool


@router.get("/rows")
def rows_page(request: Request, viewer: TheViewer, filters: Annotated[RowFilter, Query()]) -> HTMLResponse:
    """A page of the rows that pass a filter."""
    table = viewer.table
    places = viewer.matches(table, filters)
    last = max(0, (len(places) - 1) // PAGE_ROWS * PAGE_ROWS)
    lines = [row_line(viewer, table, p) for p in places[filters.offset : filters.offset + PAGE_ROWS].tolist()]
    return page(
        request,
        "rows",
        filters=filters,
        lines=lines,
        incomplete=any(line["missing"] or line["pending"] for line in lines),
        total=len(places),
        page_rows=PAGE_ROWS,
        last=last,
        datasets=list(table.members),
        no_dataset=NO_DATASET,
        lengths=list(table.tokens()),
        needs_feature=filters.about_tokens and filters.feature not in table.tokens(),
    )


@router.get("/rows/{row_id}")
def row_page(request: Request, viewer: TheViewer, row_id: str) -> HTMLResponse:
    """The page of one row: prompts, picture, and its values in each feature."""
    table, place = viewer.table, _place(viewer, row_id)
    report = describe_row(viewer.store, int(table.slots[place]))
    valued = [f.name for f in report.features if not f.missing]
    return page(
        request,
        "row",
        row=report,
        place=place,
        before=table.hex_id(place - 1) if place else None,
        after=table.hex_id(place + 1) if place + 1 < table.n_rows else None,
        picture=picture_address(viewer, place, large=True),
        how=viewer.how,
        valued=valued,
    )


@router.get("/rows/{row_id}/neighbours")
def neighbours_part(request: Request, viewer: TheViewer, row_id: str, feature: str) -> HTMLResponse:
    """A part of the page of a row: its nearest rows by one feature, or the progress of the vectors."""
    table, place = viewer.table, _place(viewer, row_id)
    if feature not in table.features:
        raise HTTPException(404, f"the store holds no feature {feature}")
    job = viewer.neighbours(feature)
    lines = []
    if job.result is not None:
        for neighbour in job.result.nearest(int(table.slots[place]), NEIGHBOURS):
            if (near := table.place_of(neighbour.slot)) is not None:  # the vectors may be of rows not read yet
                lines.append(row_line(viewer, table, near) | {"similarity": neighbour.similarity})
    return page(request, "neighbours", job=job, lines=lines, feature=feature, row_id=table.hex_id(place))


@router.get("/compare")
def compare_page(
    request: Request,
    viewer: TheViewer,
    row: Annotated[list[str], Query(min_length=2, max_length=MOST_COMPARED)],
) -> HTMLResponse:
    """The page of two to four rows side by side."""
    table = viewer.table
    places = [_place(viewer, row_id) for row_id in dict.fromkeys(row)]
    reports = [describe_row(viewer.store, int(table.slots[place])) for place in places]
    names = list(dict.fromkeys(f.name for report in reports for f in report.features))
    return page(
        request,
        "compare",
        rows=reports,
        pictures=[picture_address(viewer, place, large=True) for place in places],
        simple=marked([report.simple for report in reports]),
        complex=marked([report.complex for report in reports]),
        features=[(name, [_named(report.features, name) for report in reports]) for name in names],
        similarities={name: feature_similarities(viewer, name, [report.slot for report in reports]) for name in names},
    )


def row_line(viewer: Viewer, table: Table, place: int) -> dict[str, Any]:
    """A row as a line of a list."""
    return {
        "id": table.hex_id(place),
        "place": place,
        "slot": int(table.slots[place]),
        "simple": table.simple[place],
        "complex": table.complex[place],
        "picture": picture_address(viewer, place),
        "tokens": [int(lengths[place]) if lengths[place] >= 0 else None for lengths in table.tokens().values()],
        "missing": [
            (name, column.reasons.get(place, ""))
            for name, column in table.features.items()
            if column.states[place] == State.MISSING
        ],
        "pending": [name for name, column in table.features.items() if column.states[place] == State.PENDING],
    }


def feature_similarities(viewer: Viewer, feature: str, slots: Sequence[int]) -> Sequence[float | None] | None:
    """Cosines of the rows' vectors to that of the first row; None while the vectors are computed.

    A cosine is None if one of the two rows has no vector.
    """
    job = viewer.neighbours(feature)
    return None if job.result is None else job.result.similarity(slots[0], slots)


def _named(features: Sequence[Any], name: str) -> Any:
    return next((feature for feature in features if feature.name == name), None)


def _place(viewer: Viewer, row_id: str) -> int:
    all_read, place = viewer.watch.all_read.is_set(), viewer.table.find(row_id)
    if place is None and not all_read:
        raise HTTPException(503, "the rows are being read, and this one is not yet among them; reload in a moment")
    if place is None:
        raise HTTPException(404, f"the store holds no row {row_id}, or several whose ids begin so")
    return place


def marked(prompts: Sequence[str]) -> list[list[Piece]]:
    """The pieces of each prompt; words are compared without regard to case."""
    counts = Counter(word for prompt in prompts for word in set(_words(prompt)))
    shared = {word for word, prompts_with_it in counts.items() if prompts_with_it > 1}
    return [_pieces(prompt, shared) for prompt in prompts]


def _pieces(prompt: str, shared: set[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for text in re.findall(r"\w+|\W+", prompt):
        own = bool(_words(text)) and text.lower() not in shared
        if pieces and not _words(text):
            own = pieces[-1].own and text.isspace()
        if pieces and pieces[-1].own == own:
            pieces[-1] = Piece(pieces[-1].text + text, own)
        else:
            pieces.append(Piece(text, own))
    return [part for piece in pieces for part in _trimmed(piece)]


def _trimmed(piece: Piece) -> list[Piece]:
    """The piece without the space after its last word, and that space, so that no mark covers it."""
    text = piece.text.rstrip()
    if not piece.own or text == piece.text:
        return [piece]
    return [Piece(text, True), Piece(piece.text[len(text) :], False)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
