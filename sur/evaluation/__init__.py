"""An honest evaluation of an adapter on a pipeline: prompts, pictures, judges, statistics."""

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.evaluate import evaluate, kept_evaluation
from sur.evaluation.results import Evaluation
from sur.evaluation.subject import Subject

__all__ = ["EvaluateConfig", "Evaluation", "Subject", "evaluate", "kept_evaluation"]
