"""The shapes world: pictures, the oracle that reads them, and the split of sentences and words."""

import json

import numpy as np
import pytest

from sur.shapes.dataset import write_dataset
from sur.shapes.oracle import detect_objects, facts, shows
from sur.shapes.prompts import DEV, HELD_OUT, TRAIN, complex_prompt, narrative_prompt
from sur.shapes.questions import questions
from sur.shapes.scenes import Scene, Thing, render_scene, sample_scene
from sur.shapes.words import COLOUR_WORDS, COUNT_WORDS, KINDS, RELATION_WORDS, SHAPE_WORDS
from sur.support.errors import ConfigError

ALL_WORDS = [
    *COLOUR_WORDS.values(),
    *SHAPE_WORDS.values(),
    *COUNT_WORDS.values(),
    *(words for pair in RELATION_WORDS.values() for words in pair),
]


def test_oracle_reads_every_rendered_picture_right():
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(1500)]
    wrong = [scene for scene in scenes if not shows(scene, detect_objects(render_scene(scene, rng)))]
    assert wrong == []


@pytest.mark.parametrize(
    ("asked", "drawn", "broken"),
    [
        (Scene(Thing("red", "circle"), 2), Scene(Thing("red", "circle"), 3), "count"),
        (Scene(Thing("red", "circle"), 2), Scene(Thing("blue", "circle"), 2), "colour"),
        (Scene(Thing("red", "circle"), 2), Scene(Thing("red", "cross"), 2), "shape"),
        (
            Scene(Thing("red", "circle"), relation="above", second=Thing("blue", "square")),
            Scene(Thing("blue", "square"), relation="above", second=Thing("red", "circle")),
            "relation",
        ),
    ],
)
def test_oracle_names_the_fact_that_does_not_hold(asked, drawn, broken):
    held = facts(asked, detect_objects(render_scene(drawn, np.random.default_rng(0))))
    assert [name for name, holds in held.items() if not holds] == [broken]


def test_scene_refuses_a_relation_without_second_thing():
    with pytest.raises(ValueError, match="second thing"):
        Scene(Thing("red", "circle"), relation="above")


def test_no_sentence_piece_is_shared_between_splits():
    for field in ("conjunctions", "subjects", "actions", "cores"):
        groups = [set(getattr(pieces, field)) for pieces in (TRAIN, HELD_OUT, DEV)]
        assert sum(map(len, groups)) == len(set.union(*groups)), field


def test_a_word_belongs_to_one_kind_and_one_idea():
    seen = [word for words in ALL_WORDS for word in words.of(KINDS)]
    assert len(seen) == len(set(seen))


def test_paired_rows_never_use_an_unseen_word_and_unpaired_ones_do(tmp_path):
    folder = write_dataset(tmp_path / "data", rows=300, unpaired=300, seed=5)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    paired = " ".join(row["text"] for row in rows if "prompt" in row)
    unpaired = " ".join(row["text"] for row in rows if "prompt" not in row)
    for word in ("ruby", "indigo", "cherry", "navy", "cobalt"):
        assert word not in paired
        assert word in unpaired


def test_dataset_is_a_function_of_its_arguments_and_never_overwrites_foreign_folders(tmp_path):
    first = write_dataset(tmp_path / "a", rows=5, unpaired=3, seed=1)
    again = write_dataset(tmp_path / "b", rows=5, unpaired=3, seed=1)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="choose another folder"):
        write_dataset(tmp_path / "mine", rows=5, unpaired=3)
    (tmp_path / "mine" / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(ConfigError, match="choose another folder"):
        write_dataset(tmp_path / "mine", rows=5, unpaired=3)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert len(list(write_dataset(first, rows=4, unpaired=3, seed=1).glob("*.png"))) == 4


def test_questions_use_unseen_words_as_their_set_says():
    known = {word for words in ALL_WORDS for word in words.unseen_known}
    rare = {word for words in ALL_WORDS for word in words.unseen_rare}
    for question in questions("synonyms", 60):
        wanted = known if "text encoder knows the word" in question.groups else rare
        assert any(word in question.narrative for word in wanted), question
    assert questions("templates", 20) == questions("templates", 20)
    assert questions("templates", 20) != questions("dev_templates", 20)


def test_plural_and_article_are_english():
    rng = np.random.default_rng(0)
    crosses = [complex_prompt(Scene(Thing("red", "cross"), n), rng) for n in (1, 2)]
    assert "one red cross" in crosses[0].split(", ")
    assert "two red crosses" in crosses[1].split(", ")
    scene = Scene(Thing("orange", "circle"), relation="above", second=Thing("red", "square"))
    told = {narrative_prompt(scene, rng, kinds=("common",)).text for _ in range(50)}
    assert all(" a orange" not in text and " an red" not in text for text in told)


def test_a_relation_is_told_with_its_first_thing_first():
    rng = np.random.default_rng(0)
    scene = Scene(Thing("red", "circle"), relation="above", second=Thing("blue", "square"))
    for _ in range(100):
        told = narrative_prompt(scene, rng, kinds=("common",)).text.split()
        first, second = (
            [told.index(word) for word in COLOUR_WORDS[colour].common if word in told] for colour in ("red", "blue")
        )
        assert len(first) == len(second) == 1 and first < second
