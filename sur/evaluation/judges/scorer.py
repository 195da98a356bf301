"""Judges of pictures: their interface, and those that a config names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.prompts.prompts import Need, Prompt, PromptSet
from sur.models.fingerprint import weights_fingerprint
from sur.models.locate import LLM_WEIGHTS, locate
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image


class Scorer(Protocol):
    """A judge of pictures.

    name: the name in results. meaning: the explanation for readers of results. needs: the part of a prompt without
    which its pictures cannot be judged. higher_is_better: the direction. top: the best possible score, None for a
    scale without end.
    """

    name: str
    meaning: str
    needs: Need
    higher_is_better: bool
    top: float | None

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        """A value for each picture with the prompt at its place; None where there is no value, never a substitute."""
        ...


def build_scorers(settings: EvaluateConfig, sets: Sequence[PromptSet]) -> list[Scorer]:
    """The judges of a config, the oracle first if a set has scenes; models are loaded.

    Raises: ConfigError when a model, a package or a metric is missing, with the remedy.
    """
    return list(_built(settings, sets))


def _built(settings: EvaluateConfig, sets: Sequence[PromptSet]) -> Iterator[Scorer]:
    if any(prompt.has("scene") for prompt_set in sets for prompt in prompt_set.prompts):
        from sur.evaluation.judges.oracle import Oracle

        yield Oracle()
    if settings.clip is not None:
        from sur.evaluation.judges.clip import ClipScorer

        yield ClipScorer(settings.clip)
    if settings.vqa is not None:
        from sur.evaluation.judges.vqa import VQAScorer

        yield VQAScorer(settings.vqa)
    if settings.iqa:
        from sur.evaluation.judges.iqa import IQAScorer

        yield from (IQAScorer(metric) for metric in settings.iqa)


def judges_identity(settings: EvaluateConfig) -> dict[str, Any]:
    """Fingerprints of the judges' models and the version of pyiqa if it is installed; loads no model.

    Raises: ConfigError when a model is missing.
    """
    from importlib.metadata import PackageNotFoundError, version

    identity: dict[str, Any] = {}
    for name, model in (("clip", settings.clip), ("vqa", settings.vqa)):
        if model is not None:
            try:
                identity[name] = weights_fingerprint(locate(model.model, model.revision, needed=LLM_WEIGHTS).folder)
            except FileNotFoundError as error:
                raise ConfigError(f"evaluate.{name}.model: {error}") from error
    if settings.iqa:
        try:
            identity["pyiqa"] = version("pyiqa")
        except PackageNotFoundError:
            identity["pyiqa"] = None
    return identity
