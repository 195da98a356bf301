"""Prompt sets: of the shapes world, everyday ones, and of files; a bad file says where it is bad."""

import hashlib
import re
from collections import Counter

import pytest

from sur.evaluation import EvaluateConfig
from sur.evaluation.judges.vqa import plain
from sur.evaluation.prompts.everyday import CATEGORIES, PROMPTS_PER_CATEGORY, everyday
from sur.evaluation.prompts.prompt_files import read_prompts
from sur.evaluation.prompts.prompts import PictureQuestion
from sur.evaluation.prompts.sets import prompt_sets
from sur.shapes.questions import questions
from sur.support.errors import ConfigError

GOOD = """
- id: 1
  category: counting
  narrative: there were three dogs in the park
  complex: three dogs, park, 8k
  questions:
    - {question: "How many dogs are there?", answers: 3}
    - {question: "Are there dogs?", answers: [yes, some]}
- {id: b, category: colour, narrative: a red door}
- {id: c, category: colour, narrative: a blue door}
"""


def test_a_yaml_file_gives_its_prompts_with_answers_as_text(tmp_path):
    (tmp_path / "own.yaml").write_text(GOOD)
    first, second, _ = read_prompts(tmp_path / "own.yaml")
    assert (first.id, first.groups, first.complex) == ("1", ("counting",), "three dogs, park, 8k")
    assert first.questions == (
        PictureQuestion("How many dogs are there?", ("3",)),
        PictureQuestion("Are there dogs?", ("yes", "some")),
    )
    assert second.complex is None and second.questions == () and not second.has("questions")
    assert second.text("complex") is None and second.text("adapter") == "a red door"


def test_a_json_lines_file_gives_the_same(tmp_path):
    (tmp_path / "own.jsonl").write_text(
        '{"id": "a", "narrative": "a red door"}\n\n{"id": "b", "narrative": "Zwei Türen", "complex": "two doors"}\n',
        encoding="utf-8",
    )
    assert [(p.id, p.narrative, p.groups) for p in read_prompts(tmp_path / "own.jsonl")] == [
        ("a", "a red door", ()),
        ("b", "Zwei Türen", ()),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": "a", "narrative": "x"}\n{"id": \n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"id": "a", "narrative": "x"}\n{"id": "a", "narrative": "y"}\n', "line 2: the id 'a' is taken"),
        ("a.jsonl", '{"id": "a", "narative": "x"}\n', "line 1: narrative: Field required"),
        ("a.yaml", "- {id: a, narrative: x, colour: red}\n", "prompt 1: colour: Extra inputs"),
        (
            "a.yaml",
            "- {id: a, narrative: x, questions: [{question: how, answers: []}]}\n",
            "prompt 1: questions.0.answers",
        ),
        ("a.yaml", "{id: a}\n", "must hold a list of prompts"),
        ("a.yaml", "- {id: a, narrative: x}\n", "has 1 prompts; an evaluation needs at least 2"),
        ("a.yaml", "- !!python/object/apply:os.system [echo]\n", "is not usable YAML"),
        ("a.csv", "id,narrative\n", "are read from .jsonl, .yaml"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_prompts(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no prompt file"):
        read_prompts(tmp_path / "absent.jsonl")


def test_fewer_prompts_than_a_file_has_are_of_all_its_categories(tmp_path):
    (tmp_path / "own.yaml").write_text(GOOD)
    (made,) = prompt_sets(EvaluateConfig(files=(tmp_path / "own.yaml",), prompts=2))
    assert [prompt.id for prompt in made.prompts] == ["1", "b"]
    assert (made.name, dict(made.groups)) == ("own", {"counting": "", "colour": ""})
    assert made.meaning == f"2 of 3 prompts of {tmp_path / 'own.yaml'}"


def test_two_sets_of_one_name_are_refused(tmp_path):
    (tmp_path / "everyday.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match="two prompt sets are called 'everyday'"):
        prompt_sets(EvaluateConfig(sets=("everyday",), files=(tmp_path / "everyday.yaml",)))


def test_sets_of_the_shapes_world_are_its_questions():
    (made,) = prompt_sets(EvaluateConfig(sets=("synonyms",), prompts=20, seed=3))
    assert [(p.scene, p.narrative, p.complex, p.groups) for p in made.prompts] == [
        (q.scene, q.narrative, q.complex, q.groups) for q in questions("synonyms", 20, 3)
    ]


def test_everyday_prompts_are_three_hundred_different_ones_always_the_same():
    made = everyday().prompts
    assert Counter(p.groups[0] for p in made) == dict.fromkeys(CATEGORIES, PROMPTS_PER_CATEGORY)
    assert len({p.id for p in made}) == len({p.narrative for p in made}) == 300
    assert Counter(p.groups[0] for p in everyday(30).prompts) == dict.fromkeys(CATEGORIES, 10)
    assert everyday(30).prompts == made[:30]
    lines = [
        f"{p.id}|{p.narrative}|{p.complex}|{[(question.question, question.answers) for question in p.questions]}"
        for p in made
    ]
    assert (
        hashlib.sha256("\n".join(lines).encode()).hexdigest()
        == "a4fae03aae5f33427f1b50222bfccfaba7c88eb89bc82feac8f95334541aa24f"
    )  # a changed set is another set


def test_everyday_answers_are_in_what_is_told():
    for prompt in everyday().prompts:
        assert prompt.complex and prompt.questions
        for asked in prompt.questions:
            if prompt.groups == ("action",):
                deed = asked.question.removeprefix("Is the ").removesuffix("?")
                assert (asked.answers == ("yes",)) == (deed in prompt.complex)
                assert all(word in prompt.narrative for word in deed.split()) == (asked.answers == ("yes",))
            elif prompt.groups == ("colour",):
                thing = asked.question.removeprefix("What color is the ").removesuffix("?")
                assert (
                    f"{asked.answers[0]} {thing}" in prompt.narrative
                    and f"{asked.answers[0]} {thing}" in prompt.complex
                )
            else:
                things = asked.question.removeprefix("How many ").removesuffix(" are there?")
                assert f"{asked.answers[1]} {things}" in prompt.complex and things in prompt.narrative
                assert plain(asked.answers[0]) == plain(asked.answers[1])


def test_two_colours_of_a_prompt_differ_and_so_do_its_things():
    two = [p for p in everyday().prompts if p.groups == ("colour",) and len(p.questions) == 2]
    assert len(two) > 20
    for prompt in two:
        (first, second) = prompt.questions
        assert first.question != second.question and first.answers != second.answers
