"""Lift small functions to the seams: a score of one response, or a preference between two."""

from collections.abc import Callable, Sequence

import numpy as np

from eva.errors import PlugInError
from eva.protocols import Floats_P_G, Reward
from eva.records import Prompt, Response


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
        return np.array(
            [_wins(preference, x, group) for x, group in zip(prompts, responses, strict=True)]
        )

    return reward


def _wins(
    preference: Callable[[Prompt, Response, Response], float | None],
    prompt: Prompt,
    group: Sequence[Response],
) -> list[float]:
    size = len(group)
    p_G_G = np.full((size, size), np.nan)
    for i in range(size):
        for j in range(size):
            if i != j and (p := preference(prompt, group[i], group[j])) is not None:
                p_G_G[i, j] = p
    both_G_G = (p_G_G + 1.0 - p_G_G.T) / 2.0
    known_G = (~np.isnan(both_G_G)).sum(axis=1)
    total_G = np.nansum(both_G_G, axis=1)
    return [float(t / k) if k else np.nan for t, k in zip(total_G, known_G, strict=True)]
