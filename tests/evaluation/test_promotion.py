"""Candidates, verdicts, and what is in use afterwards."""
# pyright: reportAttributeAccessIssue=false

import json
import shutil

import pytest
from tiny_run import save_config_file, save_rows

from sur.cache import RowRecord, Store, row_id
from sur.config.run import load_config
from sur.evaluation.promotion import (
    PromotionCandidate,
    Verdict,
    abandon_candidate,
    judge_candidate,
    next_candidate,
    promoted_name,
    read_verdicts,
    record_verdict,
)
from sur.evaluation.results import Evaluation, ScorerInfo, Single
from sur.support.errors import ConfigError


@pytest.fixture
def config(tmp_path):
    rows = save_rows(tmp_path / "rows")
    settings = ["evaluate.sets=[templates]", "promote.min_new_rows=3"]
    made = load_config(save_config_file(tmp_path, tmp_path / "none", rows), settings)
    add_rows(made, 5)
    return made


def add_rows(config, count):
    """Rows of the config's data set: `count` of them in all."""
    store = Store.open_or_create(config.store.path, 4)
    records = [RowRecord(row_id(f"a {i}", "b", b"c"), f"a {i}", "b", "c.png") for i in range(count)]
    store.add_rows(records)
    store.set_members(config.data.slug, [record.id for record in records])
    return records


def judged(config, candidate, promoted=True):
    """What a finished candidate leaves: its adapter, its verdict."""
    (config.run_dir / "candidates" / candidate.name / "adapter").mkdir(parents=True)
    record_verdict(config.run_dir, verdict(candidate.name, promoted))


def verdict(name, promoted):
    return Verdict(name, 5, 5, "no adapter", "oracle", 8, (0.1, 0.0, 0.2), promoted)


def singles(narrative, adapter, name="templates", scorer="oracle"):
    """One prompt for each pair of scores."""
    return [
        Single(
            set=name, id=str(i), groups=(), narrative="n", complex=None, pictures={},
            scores={scorer: {"narrative": [a], "adapter": [b]}},
        )
        for i, (a, b) in enumerate(zip(narrative, adapter, strict=True))
    ]  # fmt: skip


def evaluation(scorer="oracle", higher=True):
    about = ScorerInfo(name=scorer, meaning="", higher_is_better=higher, top=None)
    return Evaluation(
        digest="", adapter="", adapter_fingerprint="", weight=None, pictures="", sets=[], scorers=[about], rows=[],
        gaps=[], comparisons=[],
    )  # fmt: skip


def test_rows_that_no_candidate_has_seen_are_counted(config):
    first = next_candidate(config)
    assert isinstance(first, PromotionCandidate)
    assert (first.name, first.rows, first.new_rows) == ("0001", 5, 5)
    assert first.config.run_dir == config.run_dir / "candidates" / "0001"
    assert first.config.store == config.store
    judged(config, first)
    assert next_candidate(config) == 0
    add_rows(config, 7)
    assert next_candidate(config) == 2
    add_rows(config, 8)
    second = next_candidate(config)
    assert isinstance(second, PromotionCandidate)
    assert (second.name, second.rows, second.new_rows) == ("0002", 8, 3)


def test_a_candidate_without_verdict_is_gone_on_with_whatever_came_since(config):
    next_candidate(config)
    add_rows(config, 9)
    again = next_candidate(config)
    assert isinstance(again, PromotionCandidate)
    assert (again.name, again.rows, again.new_rows) == ("0001", 5, 5)  # the rows that it was made from


def test_an_abandoned_candidate_is_followed_by_another_on_the_same_rows(config):
    abandon_candidate(next_candidate(config), ConfigError("other settings"))
    assert read_verdicts(config.run_dir)[0].why == "abandoned: other settings"
    after = next_candidate(config)
    assert isinstance(after, PromotionCandidate)
    assert (after.name, after.new_rows) == ("0002", 5)


def test_other_folders_are_no_candidates_and_no_number_comes_twice(config):
    (config.run_dir / "candidates" / "0007.bak").mkdir(parents=True)
    judged(config, next_candidate(config))
    shutil.rmtree(config.run_dir / "candidates" / "0001")
    after = next_candidate(config)
    assert isinstance(after, PromotionCandidate) and after.name == "0002"


def test_what_only_a_judged_candidate_s_training_needed_is_removed(config):
    first = next_candidate(config)
    (first.config.run_dir / "checkpoints" / "step-1").mkdir(parents=True)
    judged(config, first)
    assert sorted(path.name for path in first.config.run_dir.iterdir()) == ["adapter", "made-from.safetensors"]


def test_candidates_share_their_pictures(config):
    assert next_candidate(config).config.evaluate.pictures == config.run_dir / "pictures"  # pyright: ignore


def test_nothing_to_judge_by_is_told_before_anything_is_trained(config):
    blind = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"sets": ()})})
    with pytest.raises(ConfigError, match="an adapter is promoted by its evaluation"):
        next_candidate(blind)


def candidate(config, **settings):
    promote = config.promote.model_copy(update=settings)
    folder = config.run_dir / "candidates" / "0002"
    return PromotionCandidate(2, config.model_copy(update={"promote": promote, "run_dir": folder}), 8, 3)


def test_the_first_has_to_beat_no_adapter(config):
    right, wrong = [0.0] * 20, [1.0] * 20
    better = judge_candidate(candidate(config), evaluation(), singles(right, wrong), None)
    assert (better.promoted, better.against, better.gain, better.prompts) == (True, "no adapter", (1.0, 1.0, 1.0), 20)
    assert not judge_candidate(candidate(config), evaluation(), singles(wrong, right), None).promoted
    assert not judge_candidate(candidate(config), evaluation(), singles(right, right), None).promoted


def test_a_gain_that_may_be_chance_is_not_enough_unless_told_so(config):
    scores = [0.0] * 10 + [1.0] * 10
    mine = [*scores[:9], 1.0, *scores[10:]]  # one prompt of twenty better
    args = evaluation(), singles(scores, mine), singles(scores, scores)
    assert not judge_candidate(candidate(config), *args).promoted
    assert judge_candidate(candidate(config, certain=False), *args).promoted
    assert not judge_candidate(candidate(config, certain=False, min_gain=0.05), *args).promoted


def test_a_judge_whose_lower_scores_are_better_is_understood(config):
    args = [0.0] * 20, [1.0] * 20
    made = judge_candidate(candidate(config), evaluation(higher=False), singles(*args), singles(*args))
    assert made.gain[0] == 0.0
    made = judge_candidate(candidate(config), evaluation(higher=False), singles(args[1], args[0]), None)
    assert made.promoted and made.gain[0] == 1.0


def test_a_prompt_that_lost_its_score_is_no_gain(config):
    mine, theirs = singles([0.0] * 30, [1.0] * 29 + [float("nan")]), singles([0.0] * 30, [0.5] * 30)
    made = judge_candidate(candidate(config), evaluation(), mine, theirs)
    assert (made.prompts, made.promoted) == (29, False)
    assert "1 prompts that were scored before have no score" in made.why


def test_few_prompts_promote_nothing(config):
    few = singles([0.0] * 19, [1.0] * 19)
    assert (
        "19 prompts are fewer than promote.min_prompts, 20"
        in judge_candidate(candidate(config), evaluation(), few, None).why
    )
    assert judge_candidate(candidate(config, min_prompts=19), evaluation(), few, None).promoted


@pytest.mark.parametrize(
    ("settings", "message"), [({"scorer": "clip"}, "promote.scorer"), ({"set": "x"}, "promote.set")]
)
def test_a_judge_or_set_that_is_not_there_is_named(config, settings, message):
    with pytest.raises(ConfigError, match=message):
        judge_candidate(candidate(config, **settings), evaluation(), singles([0.0] * 30, [1.0] * 30), None)


def test_the_link_follows_promotions_alone(config):
    assert promoted_name(config.run_dir) is None
    for number, promoted in ((1, True), (2, False), (3, True)):
        judged(config, PromotionCandidate(number, config, 5, 5), promoted)
        assert promoted_name(config.run_dir) == {1: "0001", 2: "0001", 3: "0003"}[number]
    assert (config.run_dir / "promoted").resolve() == (config.run_dir / "candidates/0003/adapter").resolve()
    assert [each.promoted for each in read_verdicts(config.run_dir)] == [True, False, True]


def test_a_promotion_that_a_kill_cut_short_is_finished_the_next_night(config, monkeypatch):
    judged(config, PromotionCandidate(1, config, 5, 5))
    monkeypatch.setattr("sur.evaluation.promotion._put_in_use", lambda run_dir: None)  # killed before it
    judged(config, PromotionCandidate(2, config, 5, 5))
    monkeypatch.undo()
    assert promoted_name(config.run_dir) == "0001"
    next_candidate(config)
    assert promoted_name(config.run_dir) == "0002"


def test_a_history_that_a_crash_cut_short_is_read_to_its_last_whole_line(config):
    config.run_dir.mkdir(parents=True, exist_ok=True)
    record_verdict(config.run_dir, verdict("0001", False))
    with (config.run_dir / "promotions.jsonl").open("a") as history:
        history.write(json.dumps({"candidate": "0002"})[:9])
    assert [each.candidate for each in read_verdicts(config.run_dir)] == ["0001"]
    record_verdict(config.run_dir, verdict("0002", False))
    assert [each.candidate for each in read_verdicts(config.run_dir)] == ["0001", "0002"]
