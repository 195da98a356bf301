"""The prompt sets that a config names: sets of the shapes world, the everyday prompts, files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.prompts.everyday import everyday
from sur.evaluation.prompts.prompt_files import read_prompts
from sur.evaluation.prompts.prompts import Prompt, PromptSet
from sur.shapes.questions import QUESTION_GROUPS, SET_MEANINGS, SetName, questions
from sur.support.errors import ConfigError


def prompt_sets(settings: EvaluateConfig) -> list[PromptSet]:
    """Every set that the settings name, in their order, the files last.

    Raises: ConfigError when two sets have one name, or a file cannot be used.
    """
    sets = [
        everyday(settings.prompts) if name == "everyday" else _shapes(name, settings.prompts, settings.seed)
        for name in settings.sets
    ]
    for path in settings.files:
        prompts = read_prompts(path)
        chosen = spread(prompts, settings.prompts)
        groups = {group: "" for prompt in prompts for group in prompt.groups}
        if "all" in groups:
            raise ConfigError(f"{path}: a category cannot be called `all`, which stands for the whole set; rename it")
        sets.append(PromptSet(path.stem, f"{len(chosen)} of {len(prompts)} prompts of {path}", tuple(chosen), groups))
    names = [prompt_set.name for prompt_set in sets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two prompt sets are called {sorted(twice)[0]!r}; rename a file, or name the set once")
    return sets


def spread(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """`n` prompts, the first ones of each category, equally many of each as far as they reach."""
    by_group: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in prompts:
        by_group.setdefault(prompt.groups, []).append(prompt)
    turns = [prompt for turn in zip_longest(*by_group.values()) for prompt in turn if prompt is not None]
    return turns[:n]


def _shapes(name: SetName, n: int, seed: int) -> PromptSet:
    prompts = tuple(
        Prompt(f"{name}-{index:03d}", question.narrative, question.complex, question.groups, scene=question.scene)
        for index, question in enumerate(questions(name, n, seed))
    )
    return PromptSet(name, SET_MEANINGS[name], prompts, QUESTION_GROUPS)
