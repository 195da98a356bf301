"""Semantic accuracy: a model answers the prompt's questions about the picture; which answers are as expected?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from sur.config.evaluation import VQAConfig
from sur.evaluation.judges.judge_model import load_judge_model
from sur.evaluation.prompts.prompts import Need, Prompt

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0", "grey": "gray"}
_ARTICLES = ("a", "an", "the")


class VQAScorer:
    """Share of a prompt's questions that the model answers as expected.

    A BLIP model writes its answer, a ViLT model picks one of those it knows. Answers are compared as `plain` has them.
    """

    name = "vqa"
    meaning = "share of the prompt's questions that a VQA model answers as expected"
    needs: Need = "questions"
    higher_is_better = True
    top: float | None = 1.0

    def __init__(self, config: VQAConfig) -> None:
        from transformers import BlipForQuestionAnswering, ViltForQuestionAnswering

        kinds = {"blip": BlipForQuestionAnswering, "vilt": ViltForQuestionAnswering}
        self._judge = load_judge_model("evaluate.vqa", config.model, config.revision, kinds)
        self._longest = config.max_answer_tokens

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        """Share of right answers for each picture; None for a prompt without questions."""
        places = [i for i, prompt in enumerate(prompts) for _ in prompt.questions]
        questions = [question for prompt in prompts for question in prompt.questions]
        right: list[list[bool]] = [[] for _ in prompts]
        if questions:
            answers = self.answer([pictures[i] for i in places], [question.question for question in questions])
            for place, question, answer in zip(places, questions, answers, strict=True):
                right[place].append(plain(answer) in {plain(expected) for expected in question.answers})
        return [sum(answers) / len(answers) if answers else None for answers in right]

    @torch.no_grad()
    def answer(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """The model's answer to each question about the picture beside it.

        Questions of one length go together, unpadded: BLIP's decoder reads padding as if it had been asked.
        """
        tokens = [self._judge.tokens([question]) for question in questions]
        lengths = [inputs["input_ids"].shape[1] for inputs in tokens]
        answers = [""] * len(questions)
        for length in sorted(set(lengths)):
            chosen = [i for i, other in enumerate(lengths) if other == length]
            together = {name: torch.cat([tokens[i][name] for i in chosen]) for name in tokens[chosen[0]]}
            for i, answer in zip(chosen, self._answer([pictures[i] for i in chosen], together), strict=True):
                answers[i] = answer
        return answers

    def _answer(self, pictures: Sequence[Image.Image], tokens: Mapping[str, Any]) -> list[str]:
        judge = self._judge
        given = {**judge.pixels(pictures), **tokens}
        if judge.kind == "blip":
            given.pop("token_type_ids", None)
            written = judge.model.generate(**given, max_new_tokens=self._longest, num_beams=1, do_sample=False)
            return judge.tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)  # the first one starts it
        best = judge.model(**given).logits.argmax(-1)
        return [judge.model.config.id2label[index] for index in best.tolist()]


def plain(answer: str) -> str:
    """Lower case, no punctuation, no article, numbers in digits."""
    words = re.sub(r"[^\w\s]", "", answer.lower()).split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in _ARTICLES)
