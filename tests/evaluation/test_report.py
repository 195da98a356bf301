"""The report and its picture: right and wrong marked, one order everywhere, every name explained."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
from made_up_evaluation import ORACLE, SET_NAMES, WRONG
from PIL import Image

from sur.evaluation import EvaluateConfig, Subject
from sur.evaluation.judges.oracle import Oracle
from sur.evaluation.prompts.prompts import CONDITIONS
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.report.examples import read_examples
from sur.evaluation.report.grid import write_grid
from sur.evaluation.report.report import write_report
from sur.evaluation.results import Comparison, ScorerInfo
from sur.evaluation.scoring import summarise_scores
from sur.evaluation.statistics import Interval
from sur.shapes.questions import QUESTION_GROUPS, SET_MEANINGS
from sur.shapes.scenes import render_scene

QUALITY = ScorerInfo(name="brisque", meaning="picture quality", higher_is_better=False, top=None)


def report(run, evaluation):
    return write_report(Subject.of_run(run, run.run_dir / "adapter"), evaluation, run)


def test_every_picture_says_by_a_sign_whether_the_oracle_found_it_right(run, evaluation):
    page = report(run, evaluation).read_text()
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    expected = [(s, i, c) not in WRONG for s in SET_NAMES for i in range(2) for c in CONDITIONS]
    assert ["✓" in each for each in figures] == expected
    assert ["✗" not in each for each in figures] == expected
    assert ["wrong:" not in each for each in figures] == expected


def test_pictures_bars_and_table_have_one_order_of_conditions(run, evaluation):
    page = report(run, evaluation).read_text()
    titles = ("narrative", "narrative + adapter", "complex prompt")
    for places in (
        r'alt="picture under: ([^"]+)"',
        r'<td class="whole">(narrative|narrative \+ adapter|complex prompt)<',
    ):
        found = re.findall(places, page)
        assert found and found == list(titles) * (len(found) // 3)
    bars = re.findall(r'<span class="bar (\w+)"', page)
    assert bars and bars == list(CONDITIONS) * (len(bars) // 3)


def test_groups_have_one_order_in_every_set(run, evaluation):
    page = report(run, evaluation).read_text()
    groups = re.findall(r'<td>(\w+)</td><td class="whole">([^<]+)</td>', page)
    assert list(dict.fromkeys(groups)) == [(s, g) for s in SET_NAMES for g in ("all", *QUESTION_GROUPS)]


def test_a_set_s_scores_come_in_the_order_of_the_page():
    settings = EvaluateConfig(sets=SET_NAMES, prompts=16, resamples=100)
    for asked in prompt_sets(settings):
        pictures = [render_scene(p.scene, np.random.default_rng(0)) for p in asked.prompts]
        values = np.array(Oracle().score(pictures, asked.prompts), dtype=float)[:, None]
        rows, gaps, comparisons = summarise_scores(asked, Oracle(), dict.fromkeys(CONDITIONS, values), settings)
        present = ["all", *(g for g in QUESTION_GROUPS if any(g in p.groups for p in asked.prompts))]
        assert [gap.group for gap in gaps] == [each.group for each in comparisons] == present
        assert [(row.group, row.condition) for row in rows] == [(g, c) for g in present for c in CONDITIONS]
        assert {row.score.value for row in rows} == {1.0}


def test_a_scorer_of_which_lower_is_better_says_so_with_its_test(run, evaluation):
    against = Comparison(
        set="templates", group="all", scorer="brisque", difference=Interval(value=-3.5, low=-5, high=-2), wins=6,
        losses=1, ties=1, p=0.0123,
    )  # fmt: skip
    rows = [
        row.model_copy(
            update={"scorer": "brisque", "fit": None, "frechet": None, "score": Interval(value=40, low=30, high=50)}
        )
        for row in evaluation.rows
        if (row.set, row.group) == ("templates", "all")
    ]
    both = {"scorers": [ORACLE, QUALITY], "rows": [*evaluation.rows, *rows], "comparisons": [against]}
    page = report(run, evaluation.model_copy(update=both)).read_text()
    assert "-3.500 [-5.000, -2.000] (lower is better): 6 prompts better, 1 worse, 1 the same, p = 0.012" in page
    assert page.count('class="big"') == 3  # a card for each set and judge
    card = page[page.index("-3.500 brisque") : page.index("-3.500 [")]
    assert re.findall(r'<i style="width:([\d.]+)%"></i>', card) == ["80.00"] * 3  # of the highest end of an interval


def test_sets_groups_and_measures_are_explained_where_they_first_appear(run, evaluation):
    page = html.unescape(report(run, evaluation).read_text())
    for name in SET_NAMES:
        assert page.index(SET_MEANINGS[name]) - page.index(f"<code>{name}</code>") < 100
    for name, meaning in QUESTION_GROUPS.items():
        assert 0 < page.index(meaning) - page.index(f"<b>{name}</b>") < 100
    assert page.index("<b>Gap closed</b>") < page.index("% of the gap closed")
    assert page.index("<b>Fréchet distance</b>") < page.index(">Fréchet<")
    assert page.index(ORACLE.meaning) < page.index("<h2>Before and after")


def test_every_group_of_a_question_has_its_meaning():
    assert {
        group for s in prompt_sets(EvaluateConfig(sets=tuple(SET_MEANINGS))) for p in s.prompts for group in p.groups
    } == set(QUESTION_GROUPS)


def test_places_are_shown_as_seen_from_the_working_directory(run, evaluation, tmp_path):
    page = report(run, evaluation).read_text()
    assert "<code>runs/one/store.zarr</code>" in page
    assert "<code>runs/one/adapter</code>" in page
    assert str(tmp_path) not in page


def test_the_page_asks_nothing_of_a_network(run, evaluation):
    page = report(run, evaluation).read_text()
    assert set(re.findall(r'(?:src|href)="([^:"]*):', page)) == {"data"}
    assert "http" not in page and "@import" not in page


def test_a_set_without_a_gap_says_so(run, evaluation):
    none = Interval(value=np.nan, low=np.nan, high=np.nan)
    flat = evaluation.model_copy(update={"gaps": [g.model_copy(update={"closed": none}) for g in evaluation.gaps]})
    page = report(run, flat).read_text()
    assert page.count("no gap to close") == 2 * (1 + len(QUESTION_GROUPS)) and "nan" not in page


def test_the_picture_beside_the_page_shows_both_sets_and_their_marks(run, evaluation):
    page = report(run, evaluation)
    with Image.open(page.with_name("before-after.png")) as made:
        pixels = np.asarray(made.convert("RGB")).astype(int)
    examples = read_examples(Subject.of_run(run, run.run_dir / "adapter"), evaluation)
    for name in SET_NAMES:
        for example in examples[name]:
            for condition in CONDITIONS:
                y, x = place_of(example.pictures[condition], pixels)
                red, green, _ = pixels[y - 14 : y + 16, x + 178 : x + 200].reshape(-1, 3).mean(0)
                assert (red > green) == bool(example.wrong[condition]), (name, condition)


def test_a_wrong_picture_differs_from_a_right_one_in_grey_too(run, evaluation, tmp_path):
    examples = read_examples(Subject.of_run(run, run.run_dir / "adapter"), evaluation)
    right = examples["templates"][1]
    wrong = replace(right, wrong=dict.fromkeys(CONDITIONS, ("count",)))
    grey = [
        np.asarray(
            Image.open(write_grid(tmp_path / f"{i}.png", {"templates": [e]}, SET_MEANINGS)).convert("L"), dtype=int
        )
        for i, e in enumerate((right, wrong))
    ]
    assert (np.abs(grey[0] - grey[1]) > 100).sum() > 100


def place_of(picture, pixels):
    """Row and column at which a picture stands, three times as large and unsmeared; its upper right is under a mark."""
    with Image.open(picture) as opened:
        large = np.asarray(opened.convert("RGB").resize((192, 192), Image.Resampling.NEAREST)).astype(int)
    shown = np.lib.stride_tricks.sliding_window_view(pixels[..., 0], (1, 192))[:, :, 0]
    for y, x in np.argwhere((shown == large[96, :, 0]).all(-1)):
        found = pixels[y - 96 : y + 96, x : x + 192]
        if found.shape == large.shape and (found[:, :160] == large[:, :160]).all():
            return y - 96, x
    raise AssertionError(f"{picture} is not in the grid")


def test_a_broken_picture_does_not_end_the_report(run, evaluation, caplog):
    subject = Subject.of_run(run, run.run_dir / "adapter")
    for each in read_examples(subject, evaluation).values():
        for path in each[0].pictures.values():
            path.write_bytes(path.read_bytes()[:40])
    page = write_report(subject, evaluation).read_text()
    assert "a picture that cannot be read" in page and 'src=""' not in page and "is left out" in caplog.text
