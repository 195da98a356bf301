"""Fixtures of these tests: a run folder with made-up scores and pictures."""

from made_up_evaluation import evaluation, run

__all__ = ["evaluation", "run"]
