"""Probes: streamed sums against whole matrices, and synthetic stores in which the answer is known."""

import dataclasses
import json
import os
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ortho_group
from typer.testing import CliRunner

from sur.analysis.moments import Covariance
from sur.analysis.probe import ProbeConfig, probe
from sur.analysis.probe.candidates import candidates_of, names_of, pool_tokens
from sur.analysis.probe.cka import cka, hsic_1, hsic_triple
from sur.analysis.probe.folds import folds_by_rows, folds_by_words, prompt_groups
from sur.analysis.probe.plots import write_plots
from sur.analysis.probe.projection import standardising_projection
from sur.analysis.probe.results import ProbeResult, recommended, rivals, write_probe_result
from sur.analysis.probe.ridge import RidgeInput, ridge_path
from sur.analysis.probe.rows import finite_numpy, probe_rows
from sur.analysis.probe.score_layers import _common_error, score_held_out
from sur.analysis.probe.stream import accumulate
from sur.analysis.probe.texts import read_text_vectors
from sur.cache import ArraySpec, FeatureSpec, IncompleteFeature, RowRecord, Store, row_id
from sur.cli.app import app
from sur.support.errors import ConfigError

CONFIG = ProbeConfig(folds=4, resamples=200, batch_rows=50)
TOKENS, DIM, WIDTH = 5, 8, 12
IDEAS = 40  # rare words, each of 8 rows, of which an LLM knows the direction and the text encoder none


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@dataclasses.dataclass
class World:
    """Rows "word<i> thing<j>": the target is a vector of the thing plus one of the word."""

    store: Store
    simple: list[str]
    complexes: list[str]

    @property
    def features(self) -> list[str]:
        return list(self.store.features())


def fill(store: Store, name: str, kind: str, values: np.ndarray, missing: set[int] = frozenset(), **identity) -> None:
    """Write a feature's `states` (slots, ...) with full lengths."""
    arrays = {"states": ArraySpec("float32", values.shape[1:]), "length": ArraySpec("int32", ())}
    store.ensure_feature(FeatureSpec(name, kind, identity, arrays))
    size = store.rows_per_partition
    for partition in range(store.n_partitions):
        part = values[partition * size : (partition + 1) * size].astype(np.float32)
        lengths = np.full(len(part), TOKENS if values.ndim == 3 else 1, dtype=np.int32)
        lacking = {
            s - partition * size: "none" for s in missing if partition * size <= s < partition * size + len(part)
        }
        store.write_partition(name, partition, {"states": part, "length": lengths}, lacking)


def fill_llm(store: Store, layer: int, values: np.ndarray, pooling: str = "mean", missing: set[int] = frozenset()):
    name = f"llm.big.l{layer:02d}.{pooling}"
    fill(store, name, "llm", values, missing, model="big", layer=layer, pooling=pooling)


def make_world(path, rows: int = 320, ideas: int = IDEAS) -> World:
    """Layer 1 is noise, layer 2 a copy of the text encoder's, layer 3 knows the words."""
    rng = np.random.default_rng(1)
    word, thing = np.arange(rows) % ideas, rng.integers(4, size=rows)
    simple = [f"word{w} thing{t} number {i % 9}" for i, (w, t) in enumerate(zip(word, thing, strict=True))]
    complexes = [f"complex {w} {t}, {i}" for i, (w, t) in enumerate(zip(word, thing, strict=True))]
    store = Store.create(path, rows_per_partition=64)
    store.add_rows(RowRecord(row_id(s, c, None), s, c) for s, c in zip(simple, complexes, strict=True))
    simple = [row.simple for row in store.rows()]
    word, thing = (np.array([int(s.split()[i].strip("wordthing")) for s in simple]) for i in (0, 1))
    of_word, of_thing = rng.normal(size=(ideas, DIM)), 2 * rng.normal(size=(4, DIM))
    target = of_word[word] + of_thing[thing] + 0.1 * rng.normal(size=(rows, DIM))
    told = np.concatenate([of_thing[thing], rng.normal(size=(ideas, IDEAS))[word]], 1)  # words: random embeddings
    knows = of_word[word] @ rng.normal(size=(DIM, WIDTH))
    fill(store, "text.enc.simple", "text", np.repeat(told[:, None], TOKENS, 1))
    fill(store, "text.enc.complex", "text", np.repeat(target[:, None], TOKENS, 1))
    fill_llm(store, 1, rng.normal(size=(rows, WIDTH)))
    fill_llm(store, 2, told @ rng.normal(size=(told.shape[1], WIDTH)) / 4)
    fill_llm(store, 3, knows + 0.1 * rng.normal(size=(rows, WIDTH)))
    return World(store, simple, [row.complex for row in store.rows()])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("probe") / "run" / "store.zarr")


@pytest.fixture(scope="module")
def findings(world) -> ProbeResult:
    return probe(world.store, CONFIG)


def by_layer(findings: ProbeResult, split: str) -> dict:
    return {each.layer: each.held[split] for each in findings.candidates}


def test_the_layer_that_knows_the_words_is_found(findings):
    words = by_layer(findings, "words")
    assert words[3].known["both"].low > 0.75 and words[3].first == 1
    assert words[3].gain.low > 0.2
    assert all(words[layer].known["both"].value < 0.05 for layer in (1, 2))
    assert all(words[layer].gain.value < 0.05 for layer in (1, 2))
    assert words[3].r2["both"].value > 0.9 > words[3].r2["text"].value
    assert words[3].retrieval["both"].low > words[3].retrieval["text"].high
    assert findings.ranked()[0].layer == 3 and rivals(findings) == []
    assert recommended(findings) == [
        "llm.slug=big", "llm.layers=[3]", "llm.pooling=mean", "loss.distillation.layer=3",
    ]  # fmt: skip


def test_words_that_were_seen_hide_what_the_llm_knows(findings):
    """A text encoder's random embedding of a word is as good as an LLM's state, once the word was seen."""
    seen, unseen = (by_layer(findings, split)[3].gain.value for split in ("rows", "words"))
    assert seen < unseen / 2


def test_knowing_a_word_is_more_than_not_guessing_at_it(findings):
    """Noise says nothing of a new word, and so errs less than the text encoder, whose random embedding misleads it."""
    noise = by_layer(findings, "words")[1].known
    assert noise["llm"].low > 0.1 and noise["both"].value < 0.05


def test_candidates_are_ranked_by_their_gain_over_words_never_seen(findings):
    gains = [each.held["words"].gain.value for each in findings.ranked()]
    assert findings.ranked_on == "words" and gains == sorted(gains, reverse=True) and len(set(gains)) == 3
    assert sum(each.held["words"].first for each in findings.candidates) == 1


def test_noise_and_a_copy_are_not_recommended(tmp_path):
    store = make_world(tmp_path / "store.zarr").store
    store.drop_feature("llm.big.l03.mean")
    found = probe(store, CONFIG)
    assert found.best is None
    assert recommended(found) == ["loss.distillation.form=none"]


def test_the_copy_is_as_like_the_target_as_the_text_encoder_and_noise_is_not(findings):
    similar = {each.layer: each.cka for each in findings.candidates}
    assert abs(similar[1].value) < 0.05
    assert similar[3].low > 0.05 and similar[2].low > 0.05
    assert findings.text_cka.low > 0.2


def test_a_probe_repeats_itself(world, findings):
    assert probe(world.store, CONFIG) == findings


def test_streamed_sums_are_those_of_whole_matrices(world):
    rows = probe_rows(world.store, world.features, CONFIG)
    texts = read_text_vectors(world.store, "enc", rows, CONFIG, lambda name: None)
    (seen,) = accumulate(world.store, [c for c in candidates_of(world.store) if c.layer == 3], rows, texts, CONFIG)
    raw = world.store.read("llm.big.l03.mean")["states"]
    vectors = np.empty((len(raw), WIDTH))
    for split, folds in rows.folds.items():
        for fold, held in zip(folds, seen.judged[split], strict=True):
            vectors[fold.judged] = held
    for column in range(WIDTH):  # the vectors are the stored ones but for a shift and a factor
        assert np.corrcoef(raw[:, column], vectors[:, column])[0, 1] == pytest.approx(1, abs=1e-6)
    joined = np.concatenate([texts.simple, vectors, texts.target], 1)
    for split, folds in rows.folds.items():
        for fold, hidden in zip(folds, seen.hidden[split], strict=True):
            left, kept = seen.total - hidden, joined[~fold.hidden]
            assert left.count == len(kept)
            np.testing.assert_allclose(left.mean, kept.mean(0), atol=1e-6)
            covariance = np.cov(kept.T, bias=True)
            np.testing.assert_allclose(left.comoment / left.count, covariance, rtol=1e-6, atol=1e-6)


def test_a_fold_s_numbers_are_those_of_a_regression_written_out(world):
    """Everything in memory, normal equations, one penalty for each fold as the others' held-back rows choose it."""
    config = CONFIG.model_copy(update={"seed": 3})
    rows = probe_rows(world.store, world.features, config)
    texts = read_text_vectors(world.store, "enc", rows, config, lambda name: None)
    (seen,) = accumulate(world.store, [c for c in candidates_of(world.store) if c.layer == 3], rows, texts, config)
    folds = rows.folds["words"]
    held = score_held_out(seen, "words", folds, texts, rows.complexes, config).held
    penalties = np.logspace(-5, 0.5, 12)
    errors, spread = np.zeros((len(folds), len(penalties))), []
    sums = []
    for number, fold in enumerate(folds):
        x, y = (each[~fold.hidden].astype(np.float64) for each in (texts.simple, texts.target))
        deviation = np.sqrt(x.var(0) * x.shape[1])
        z = (x - x.mean(0)) / deviation
        ahead = (texts.simple[fold.judged] - x.mean(0)) / deviation
        for place, penalty in enumerate(penalties):
            weights = np.linalg.solve(z.T @ z + penalty * len(z) * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
            wrong = np.square(ahead @ weights + y.mean(0) - texts.target[fold.judged]).sum(1)
            errors[number, place] = wrong.mean()
        spread.append(np.square(texts.target[fold.judged] - y.mean(0)).sum())
        sums.append(errors[number] * len(fold.judged))
    chosen = [np.delete(errors, number, 0).mean(0).argmin() for number in range(len(folds))]
    expected = 1 - sum(each[place] for each, place in zip(sums, chosen, strict=True)) / sum(spread)
    assert held.r2["text"].value == pytest.approx(expected, abs=1e-6)
    assert held.r2["text"].low < expected < held.r2["text"].high


def test_moments_are_joined_and_taken_apart(rng):
    rows = rng.normal(size=(90, 6)) + 1e4
    whole = Covariance.of(rows)
    joined = Covariance.of(rows[:20]) + Covariance.empty(6) + Covariance.of(rows[20:90])
    for found in (joined, whole - Covariance.empty(6)):
        assert found.count == 90
        np.testing.assert_allclose(
            found.comoment, (rows - rows.mean(0)).T @ (rows - rows.mean(0)), rtol=1e-6, atol=1e-6
        )
    rest = whole - Covariance.of(rows[30:])
    np.testing.assert_allclose(rest.mean, rows[:30].mean(0))
    np.testing.assert_allclose(rest.comoment / 30, np.cov(rows[:30].T, bias=True), atol=1e-6)
    assert (whole - whole).count == 0


def test_hsic_is_the_mean_over_quadruples_of_different_rows(rng):
    """HSIC_1 is a U-statistic: the mean of h over all (i, j, k, l), none twice (Song et al. 2012)."""
    from itertools import permutations

    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    k, other = x @ x.T, y @ y.T
    terms = [k[i, j] * (other[i, j] + other[a, b] - 2 * other[i, a]) for i, j, a, b in permutations(range(7), 4)]
    assert hsic_1(x, y) == pytest.approx(np.mean(terms))


def test_cka_is_one_for_a_rotation_and_zero_for_independent_features_of_many_columns(rng):
    x = rng.normal(size=(400, 30))
    parts = [slice(start, start + 50) for start in range(0, 400, 50)]
    same = cka(np.array([hsic_triple(x[p], 3 * x[p] @ ortho_group.rvs(30, random_state=0)) for p in parts]), 100, 0)
    assert same.value == pytest.approx(1)
    y = rng.normal(size=(400, 200))
    apart = cka(np.array([hsic_triple(x[p], y[p]) for p in parts]), 200, 0)
    assert apart.low < 0 < apart.high and abs(apart.value) < 0.03  # the index without correction is 0.5 here
    still = cka(np.array([hsic_triple(x[p], np.zeros((50, 2))) for p in parts]), 100, 0)
    assert np.isnan(still.value)


def test_three_rows_are_too_few_for_hsic():
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        hsic_1(np.ones((3, 2)), np.ones((3, 2)))


def test_ridge_is_that_of_the_normal_equations_with_blocks(rng):
    rows = np.concatenate([rng.normal(size=(60, 4)), 50 + 9 * rng.normal(size=(60, 3)), rng.normal(size=(60, 2))], 1)
    rows[:, 5] = 7.0  # does not vary
    path = ridge_path(Covariance.of(rows), [RidgeInput(slice(0, 4), 1), RidgeInput(slice(4, 7), 3)], slice(7, None))
    z = rows[:, [0, 1, 2, 3, 4, 6]] - rows[:, [0, 1, 2, 3, 4, 6]].mean(0)
    z *= np.array([1, 1, 1, 1, 3, 3]) / np.sqrt([4, 4, 4, 4, 2, 2]) / z.std(0) / np.sqrt(10)
    y = rows[:, 7:] - rows[:, 7:].mean(0)
    for penalty in (1e-3, 0.3):
        weights = np.linalg.solve(z.T @ z + penalty * 60 * np.eye(6), z.T @ y)
        np.testing.assert_allclose(path.predict(rows[:, :7], penalty), z @ weights + rows[:, 7:].mean(0), atol=1e-9)
    errors = path.squared_errors(rows[:, :7], rows[:, 7:], [1e-3, 0.3])
    np.testing.assert_allclose(errors[1], np.square(z @ weights - y).sum(1), rtol=1e-5)


def test_a_wide_feature_keeps_its_inner_products_when_it_is_projected(rng):
    wide = rng.normal(size=(40, 3000)) * np.logspace(-2, 3, 3000)
    narrow = standardising_projection(wide, 1024, seed=0)(wide)
    whole = standardising_projection(wide, 4000, seed=0)(wide)
    assert narrow.shape == (40, 1024) and whole.shape == (40, 3000)
    relative = (narrow @ narrow.T - whole @ whole.T) / 3000
    assert np.abs(relative).max() < 0.15


def test_what_is_common_to_a_words_rows_is_estimated_without_bias():
    """The mean over many words of few rows is |E e|^2, to which the rows' noise adds nothing."""
    rng = np.random.default_rng(5)
    units = np.repeat(np.arange(2000), 4)
    common = rng.normal(size=(2000, 3))
    noise = 3 * rng.normal(size=(8000, 3))
    assert _common_error(common[units] + noise, units).mean() == pytest.approx(np.square(common).sum(1).mean(), abs=0.3)
    assert abs(_common_error(noise, units).mean()) < 0.3
    assert _common_error(noise[:1], units[:1]) == [0]


def test_pooling_sees_real_tokens_only():
    states = torch.arange(24.0).reshape(2, 4, 3).square()
    length = torch.tensor([2, 4])
    normed = (states - states.mean(-1, keepdim=True)) / states.std(-1, correction=0, keepdim=True)
    np.testing.assert_allclose(pool_tokens(states, length, "mean")[0], normed[0, :2].mean(0), atol=1e-4)
    np.testing.assert_allclose(
        pool_tokens(states, length, "last"), torch.stack([normed[0, 1], normed[1, 3]]), atol=1e-4
    )
    for pooling in ("mean", "last"):
        assert torch.equal(pool_tokens(states[:, 0], length, pooling), states[:, 0])


def test_groups_are_rows_with_an_equal_simple_or_an_equal_complex_prompt():
    groups = prompt_groups(["a", "a", "b", "c", "d"], ["1", "2", "2", "3", "4"])
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3


@pytest.mark.parametrize("split", ["rows", "words"])
def test_duplicates_never_straddle(split):
    rng = np.random.default_rng(0)
    simple = [f"word{rng.integers(30)} of {rng.integers(9)}" for _ in range(200)]
    groups = prompt_groups(simple, [f"c{i if i % 9 else i // 2}" for i in range(200)])
    config = ProbeConfig(folds=4, rare_share=0.05)
    folds = folds_by_rows(groups, config) if split == "rows" else folds_by_words(simple, groups, config)
    assert len(folds) == 4
    for fold in folds:
        assert not set(groups[fold.hidden]) & set(groups[~fold.hidden])
        assert fold.hidden[fold.judged].all() and len(fold.judged)


def test_a_held_back_word_is_in_no_row_that_is_fitted_to(world):
    groups = prompt_groups(world.simple, world.complexes)
    folds = folds_by_words(world.simple, groups, CONFIG)
    words = [
        {text.split()[0] for text, hidden in zip(world.simple, fold.hidden, strict=True) if hidden} for fold in folds
    ]
    for fold, held in zip(folds, words, strict=True):
        fitted = {text.split()[0] for text, hidden in zip(world.simple, fold.hidden, strict=True) if not hidden}
        assert len(held) >= 2 and not held & fitted
        assert fold.hidden.mean() <= CONFIG.held_share
        for place, unit in zip(fold.judged, fold.unit, strict=True):
            assert {
                fold.unit[i]
                for i, p in enumerate(fold.judged)
                if world.simple[p].split()[0] == world.simple[place].split()[0]
            } == {unit}
    assert not set.intersection(*words)


def test_words_that_cannot_be_told_apart_are_not_held_back():
    simple = [f"word{i % 20} of {i}" for i in range(200)]
    assert folds_by_words(simple, prompt_groups(simple, ["the same"] * 200), CONFIG) == []
    assert folds_by_words(["two words"] * 200, np.arange(200), CONFIG) == []


def test_without_rare_words_rows_decide(tmp_path):
    found = probe(make_world(tmp_path / "store.zarr", ideas=2).store, CONFIG)
    assert found.ranked_on == "rows" and set(found.candidates[0].held) == {"rows"}


def test_rows_without_a_value_and_rows_that_were_removed_take_no_part(tmp_path, rng):
    world = make_world(tmp_path / "store.zarr")
    fill_llm(world.store, 7, rng.normal(size=(320, WIDTH)), missing={3, 70})
    rows = world.store.rows()
    world.store.set_members("data", [row.id for row in rows if row.slot not in (5, 200)])
    kept = probe_rows(world.store, world.features, CONFIG).slots
    assert set(range(320)) - set(kept.tolist()) == {3, 70, 5, 200}
    assert probe(world.store, CONFIG).rows == 316


def test_more_rows_than_asked_for_are_drawn(world):
    config = CONFIG.model_copy(update={"max_rows": 100})
    rows = probe_rows(world.store, world.features, config)
    assert len(rows.slots) == 100 and rows.slots.max() > 200
    assert (np.diff(rows.slots) > 0).all()


def test_token_states_are_two_candidates(tmp_path, rng):
    world = make_world(tmp_path / "store.zarr")
    knows = world.store.read("llm.big.l03.mean")["states"]
    states = rng.normal(size=(320, TOKENS, WIDTH)) * 0.1
    states[:, -1] += knows
    fill_llm(world.store, 9, states, "tokens")
    found = probe(world.store, CONFIG)
    nine = {each.pooling: each.held["words"].r2["llm"].value for each in found.candidates if each.layer == 9}
    assert set(nine) == {"mean", "last"} and nine["last"] > nine["mean"]


def test_a_layer_that_was_cached_in_two_ways_is_recommended_as_the_better_one(tmp_path, rng):
    """Its cached mean is noise, its token states know the words: both are "big layer 3 mean"."""
    world = make_world(tmp_path / "store.zarr")
    knows = world.store.read("llm.big.l03.mean")["states"]
    world.store.drop_feature("llm.big.l03.mean")
    fill_llm(world.store, 3, rng.normal(size=(320, WIDTH)))
    states = np.repeat(knows[:, None], TOKENS, 1) + 0.3 * rng.normal(size=(320, TOKENS, WIDTH))
    fill_llm(world.store, 3, states, "tokens")
    done: list[str] = []
    found = probe(world.store, CONFIG, done.append)
    assert len(done) == len(set(done)) == 6  # the text encoder's two, and each feature once
    assert found.best == ("llm.big.l03.tokens", "mean")
    assert "llm.pooling=tokens" in recommended(found)
    winner = found.winner()
    assert winner is not None and winner.name == "big layer 3 mean of llm.big.l03.tokens"
    assert len({each.name for each in found.candidates}) == len(found.candidates)
    assert winner.name not in rivals(found) and not any("l03.mean" in name for name in rivals(found))
    command = ["probe", str(world.store.path), "--folds", "4"]
    plain, settings = (CliRunner().invoke(app, [*command, *more]) for more in ([], ["--recommend"]))
    assert all("a teacher reads every token" in said for said in (plain.stdout, settings.stderr))
    assert settings.stdout.splitlines() == recommended(found)


def test_features_of_one_layer_are_read_once_each(tmp_path):
    """Sorted by pooling alone, two features of one layer and pooling would take turns."""
    world = make_world(tmp_path / "store.zarr")
    arrays = {"states": ArraySpec("float32", (TOKENS, WIDTH)), "length": ArraySpec("int32", ())}
    for template in ("chat", "none"):
        identity = {"model": "big", "layer": 3, "pooling": "tokens", "template": template}
        world.store.ensure_feature(FeatureSpec(f"llm.{template}.l03.tokens", "llm", identity, arrays))
    features = [each.feature for each in candidates_of(world.store)]
    assert len([1 for before, after in pairwise(features) if before != after]) + 1 == len(set(features)) == 5
    names = names_of(candidates_of(world.store))
    assert len(set(names)) == len(names)


def test_too_few_rows_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"31 rows .* needs 32 groups. Extract more rows"):
        probe(make_world(tmp_path / "store.zarr", rows=31).store, CONFIG)


def test_what_a_probe_cannot_do_without_is_named(tmp_path, rng):
    world = make_world(tmp_path / "store.zarr")
    with pytest.raises(ConfigError, match="no prompts of a text encoder other; it has enc"):
        probe(world.store, CONFIG.model_copy(update={"text": "other"}))
    world.store.discard("llm.big.l01.mean", 2)
    with pytest.raises(IncompleteFeature, match="Finish the extraction"):
        probe(world.store, CONFIG)
    for layer in (1, 2, 3):
        world.store.drop_feature(f"llm.big.l0{layer}.mean")
    with pytest.raises(ConfigError, match="no features of an LLM .* run `sur extract`"):
        probe(world.store, CONFIG)
    world.store.drop_feature("text.enc.complex")
    fill_llm(world.store, 1, rng.normal(size=(320, WIDTH)))
    with pytest.raises(ConfigError, match="has none; run `sur extract`"):
        probe(world.store, CONFIG)


def test_values_that_are_not_finite_are_named(world):
    rows = probe_rows(world.store, world.features, CONFIG)
    from sur.analysis.probe.rows import probe_batches

    _, batch = next(probe_batches(world.store, "llm.big.l01.mean", rows, CONFIG))
    values = batch.arrays["llm.big.l01.mean/states"].clone()
    values[7, 2] = float("nan")
    with pytest.raises(ConfigError, match=f"llm.big.l01.mean: the row in slot {batch.slots[7]} .*not finite"):
        finite_numpy(values, "llm.big.l01.mean", batch)


def test_findings_are_written_and_read_back(findings, tmp_path):
    target = write_probe_result(tmp_path / "out", findings)
    assert ProbeResult.model_validate_json(target.read_text()) == findings
    png, svg = write_plots(tmp_path / "out", findings)
    assert svg.read_text().startswith("<?xml")
    with Image.open(png) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_the_command_shows_recommends_and_writes(world, tmp_path):
    path = str(world.store.path)
    done = CliRunner().invoke(app, ["probe", path, "--folds", "4"])
    assert done.exit_code == 0, done.output
    assert "best: big layer 3 mean" in done.output and "token states" not in done.output
    assert "loss.distillation.layer=3" in done.output
    folder = world.store.path.parent / "probe"
    assert {each.name for each in folder.iterdir()} == {"probe.json", "probe.png", "probe.svg"}
    out = ["--output", str(tmp_path / "out"), "--folds", "4"]
    lines = CliRunner().invoke(app, ["probe", path, "--recommend", *out]).stdout.splitlines()
    assert lines == ["llm.slug=big", "llm.layers=[3]", "llm.pooling=mean", "loss.distillation.layer=3"]
    printed = json.loads(CliRunner().invoke(app, ["probe", path, "--json", *out]).stdout)
    assert printed["best"] == ["llm.big.l03.mean", "mean"] and (tmp_path / "out" / "probe.json").is_file()
    refused = CliRunner().invoke(app, ["probe", path, "--target", "sum"])
    assert "must be auto, readout or mean" in str(refused.exception)


def test_the_target_is_what_the_denoiser_reads_out_where_the_store_has_it(shapes_config):
    store = Store.open(shapes_config.store.path)
    found, mean = (probe(store, ProbeConfig(target=target)) for target in ("auto", "mean"))
    assert found.target == "read-out of the complex prompt, 16 queries in each layer"
    assert mean.target == "mean of the complex prompt's states"
    assert found.rows == mean.rows == 64
    assert {each.pooling for each in found.candidates} == {"mean", "last"}
    assert recommended(found)[0] in ("llm.slug=smollm2-135m", "loss.distillation.form=none")
