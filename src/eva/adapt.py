"""Lift small things to the seams: a score of one response, a preference between two, a model."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from eva.errors import PlugInError
from eva.formulas.pairing import mean_wins
from eva.protocols import (
    Chaining,
    Floats,
    Floats_P_G,
    Following,
    OpenPolicy,
    Policy,
    Releasable,
    Reward,
)
from eva.records import Checkpoint, Prompt, Response, Sampling


def per_response(score: Callable[[Prompt, Response], float | None]) -> Reward:
    """A reward from a function of one prompt and one response; None is a missing reward.

    Examples:
        >>> from eva.records import Message, Prompt, Response
        >>> reward = per_response(lambda prompt, response: len(response.text))
        >>> ask = Prompt(messages=(Message(role="user", content="Say hi."),))
        >>> reward([ask], [[Response(text="hi"), Response(text="hello")]]).tolist()
        [[2.0, 5.0]]
    """

    def one(prompt: Prompt, response: Response) -> float:
        if response.finish == "error":
            return np.nan
        try:
            value: object = score(prompt, response)
        except Exception as error:
            raise PlugInError(
                f"the reward raised {type(error).__name__} ({error}) for prompt {prompt.id} and "
                f"the response {response.text!r:.80}; mend it and run the same command again, it "
                "goes on from the last finished stage (--debug shows the traceback)"
            ) from error
        if value is None:
            return np.nan
        if not isinstance(value, float | int | np.number | np.bool_):
            raise PlugInError(
                f"the reward returned {value!r:.60} for prompt {prompt.id}; expected a number, or "
                "None for a missing reward"
            )
        return float(value)

    def reward(prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> Floats_P_G:
        rows = [[one(p, r) for r in group] for p, group in zip(prompts, responses, strict=True)]
        return np.array(rows, dtype=np.float64)

    return reward


def pairwise(preference: Callable[[Prompt, Response, Response], float | None]) -> Reward:
    """A reward from a win probability: the mean chance to beat the other responses of the group.

    Args:
        preference: (x, y, y') -> P(y beats y' | x) in [0, 1], or None where it is missing. It is
            asked for both orders and they are averaged, (p(y, y') + 1 - p(y', y)) / 2, against a
            judge's bias for the first place.
    """

    def reward(prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> Floats_P_G:
        groups = zip(prompts, responses, strict=True)
        size = len(responses[0]) if responses else 0
        p_P_G_G = np.array([_duels(preference, x, group) for x, group in groups])
        return mean_wins(p_P_G_G.reshape(len(prompts), size, size))

    return reward


def _duels(
    preference: Callable[[Prompt, Response, Response], float | None],
    prompt: Prompt,
    group: Sequence[Response],
) -> Floats:
    p_G_G = np.full((len(group), len(group)), np.nan)
    answered = [(i, y) for i, y in enumerate(group) if y.finish != "error"]
    for i, first in answered:
        for j, second in answered:
            if i != j and (p := preference(prompt, first, second)) is not None:
                p_G_G[i, j] = p
    return p_G_G


def release(*held: object) -> None:
    """Have what holds memory give it back; where one fails, the others do all the same."""
    with ExitStack() as stack:
        for one in reversed(held):
            if isinstance(one, Releasable):
                stack.callback(one.release)


def chains(
    policy: Policy, count: int, following: Following, *, sampling: Sampling, seed: int
) -> None:
    """Ask chains of prompts, in which an answer decides what is asked next; see `Chaining`.

    A policy that cannot do so itself is asked step by step: what all chains ask next, in one call.
    """
    if isinstance(policy, Chaining):
        return policy.chains(count, following, sampling=sampling, seed=seed)
    answers: list[tuple[int, Response | None]] = [(i, None) for i in range(count)]
    while True:
        told = [(i, prompt) for i, said in answers if (prompt := following(i, said)) is not None]
        if not told:
            return None
        groups = policy([prompt for _, prompt in told], 1, sampling=sampling, seed=seed)
        answers = [(i, group[0]) for (i, _), group in zip(told, groups, strict=True)]


class Asked:
    """A model as a policy: opened when it is first asked, until it is released or left.

    Attributes:
        name: What it is, for the records of what it wrote.
    """

    def __init__(self, name: str, open_policy: OpenPolicy, checkpoint: Checkpoint) -> None:
        self.name = name
        self._open, self._checkpoint = open_policy, checkpoint
        self._policy: Policy | None = None
        self._stack = ExitStack()

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts."""
        return self._opened()(prompts, n, sampling=sampling, seed=seed)

    def chains(self, count: int, following: Following, *, sampling: Sampling, seed: int) -> None:
        """Ask chains of prompts; see `Chaining`. Nothing is opened where nothing is asked."""
        firsts: dict[int, Prompt | None] = {}
        for i in range(count):
            firsts[i] = following(i, None)
            if firsts[i] is not None:
                break
        else:
            return

        def rest(i: int, answer: Response | None) -> Prompt | None:
            return firsts[i] if answer is None and i in firsts else following(i, answer)

        chains(self._opened(), count, rest, sampling=sampling, seed=seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._policy = None
        return self._stack.__exit__(*error)

    def release(self) -> None:
        """Give its memory back, and end what was started for it."""
        self.__exit__(None, None, None)

    def _opened(self) -> Policy:
        if self._policy is None:
            self._policy = self._stack.enter_context(self._open(self._checkpoint))
        return self._policy
