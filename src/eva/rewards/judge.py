"""A language model as a judge: points for each response, or who wins of each two.

The judge is any policy. It reads a rubric with the prompt (several turns as a transcript) and the
responses inserted literally, and only what it writes itself is parsed. What cannot be parsed is a
missing verdict with its reason. A question is asked once, however often a call contains it, and its
draws are named by its content (`seeds.rng(seed, question.id)`, by the contract of policies), so a
verdict depends neither on the questions beside it nor on their order.
"""

import logging
from collections.abc import Sequence

import numpy as np

from eva import seeds
from eva.adapt import Asked
from eva.contracts import checked_responses
from eva.formulas.pairing import mean_wins
from eva.parts.rewards import JudgeReward
from eva.protocols import Floats, Floats_P_G
from eva.records import Message, Prompt, Response
from eva.rewards import rubrics, verdicts
from eva.rewards.duels import duels, matrix
from eva.rewards.missing import NO_ANSWER, Missing, tell
from eva.rewards.texts import transcript

log = logging.getLogger(__name__)

SEED = seeds.child(0, "judge")
"""The same for every run: a verdict is a fact of the judge and the question, and can be kept."""


class Judge:
    """r(x, y) by the verdicts of a language model.

    Raises:
        RecipeError: There is no such rubric, or it lacks a placeholder.
    """

    def __init__(self, part: JudgeReward, judge: Asked) -> None:
        self._part, self._judge = part, judge
        self._rubric = rubrics.load(part.rubric or part.mode, part.mode)

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G]: points in [low, high], or mean shares of wins in [0, 1]."""
        if self._part.mode == "pairs":
            return self._wins(prompts, responses)
        questions = [
            self._question(prompt, {"response": response})
            for prompt, group in zip(prompts, responses, strict=True)
            for response in group
        ]
        size = len(responses[0]) if responses else 0
        return self._verdicts(questions).reshape(len(prompts), size)

    def release(self) -> None:
        """Give the judge's memory back; it is opened again when next asked."""
        self._judge.release()

    def _wins(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Where only one order of two responses has a verdict, it stands for both."""
        questions = [
            self._question(prompts[p], {"first": responses[p][i], "second": responses[p][j]})
            for p, i, j in duels(responses)
        ]
        p_P_G_G = matrix(responses, self._verdicts(questions))
        swapped_P_G_G = 1.0 - np.swapaxes(p_P_G_G, 1, 2)
        return mean_wins(np.where(np.isnan(p_P_G_G), swapped_P_G_G, p_P_G_G))

    def _question(self, prompt: Prompt, judged: dict[str, Response]) -> Prompt | Missing:
        if any(response.finish == "error" for response in judged.values()):
            return Missing(NO_ANSWER, f"prompt {prompt.id}")
        texts = {"prompt": transcript(prompt.messages)}
        texts |= {name: response.text for name, response in judged.items()}
        values = {"low": f"{self._part.low:g}", "high": f"{self._part.high:g}"}
        content = rubrics.question(self._rubric, texts, values)
        return Prompt(messages=(Message(role="user", content=content),), by="rubric")

    def _verdicts(self, questions: Sequence[Prompt | Missing]) -> Floats:
        """The mean verdict on each question, shape [N]; NaN where no vote is one."""
        asked = list({q.id: q for q in questions if isinstance(q, Prompt)}.values())
        found: dict[str, float] = {}
        missing = [q for q in questions if isinstance(q, Missing)]
        votes = self._part.votes
        answers = (
            self._judge(asked, votes, sampling=self._part.sampling, seed=SEED) if asked else []
        )
        for question, group in zip(asked, checked_responses(answers, asked, votes), strict=True):
            read = [self._verdict(answer) for answer in group]
            missing += [one for one in read if isinstance(one, Missing)]
            valid = [one for one in read if not isinstance(one, Missing)]
            found[question.id] = float(np.mean(valid)) if valid else np.nan
        unasked = len(questions) - sum(isinstance(q, Prompt) for q in questions)
        tell(log, f"verdicts of {self._judge.name}", missing, unasked + votes * len(asked))
        return np.array([np.nan if isinstance(q, Missing) else found[q.id] for q in questions])

    def _verdict(self, answer: Response) -> float | Missing:
        if answer.finish == "error":
            return Missing("the judge gave no answer", answer.error or "")
        if answer.finish == "length":
            return Missing("it was cut at sampling.max_tokens", answer.text)
        part = self._part
        verdict = (
            verdicts.preference(answer.text)
            if part.mode == "pairs"
            else verdicts.points(answer.text, part.low, part.high)
        )
        return Missing(verdict, answer.text) if isinstance(verdict, str) else verdict
