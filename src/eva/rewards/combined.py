"""Rewards made of rewards: a weighted sum, and a penalty for length."""

from collections.abc import Sequence
from typing import assert_never

import numpy as np

from eva.adapt import release
from eva.contracts import checked_rewards
from eva.errors import PlugInError
from eva.parts.rewards import LengthReward
from eva.protocols import Floats_P_G, Reward
from eva.records import Prompt, Response


class WeightedSum:
    """r(x, y) = sum_k weight_k r_k(x, y); missing where any of them is missing."""

    def __init__(self, terms: Sequence[tuple[float, Reward]]) -> None:
        self._terms = list(terms)

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G].

        Raises:
            PlugInError: A term returned no rewards of this shape.
        """
        total_P_G = np.zeros(_shape(responses))
        for weight, reward in self._terms:
            total_P_G += weight * _checked(reward, prompts, responses)
        return total_P_G

    def release(self) -> None:
        """Have the terms give their memory back."""
        release(*(reward for _, reward in self._terms))


class Shortened:
    """r(x, y) - penalty * max(0, length(y) - free)."""

    def __init__(self, part: LengthReward, reward: Reward) -> None:
        self._part, self._reward = part, reward

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G], in units of the reward that is made smaller.

        Raises:
            PlugInError: That reward returned another shape, or the policy counts no tokens.
        """
        rewards_P_G = _checked(self._reward, prompts, responses)
        lengths = [
            [self._length(prompt, response) for response in group]
            for prompt, group in zip(prompts, responses, strict=True)
        ]
        beyond_P_G = (
            np.array(lengths, dtype=np.float64).reshape(rewards_P_G.shape) - self._part.free
        )
        return rewards_P_G - self._part.penalty * np.maximum(0.0, beyond_P_G)

    def release(self) -> None:
        """Have the reward give its memory back."""
        release(self._reward)

    def _length(self, prompt: Prompt, response: Response) -> int:
        match self._part.unit:
            case "characters":
                return len(response.text)
            case "words":
                return len(response.text.split())
            case "tokens":
                return _tokens(prompt, response)
            case _:
                assert_never(self._part.unit)


def _tokens(prompt: Prompt, response: Response) -> int:
    if response.finish == "error":
        return 0  # its reward is missing
    if response.tokens is None:
        raise PlugInError(
            f"the policy gave no token ids with its response to prompt {prompt.id}; a length "
            "penalty in tokens needs them: set reward.unit to words or characters"
        )
    return len(response.tokens)


def _checked(
    reward: Reward, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
) -> Floats_P_G:
    return checked_rewards(reward(prompts, responses), *_shape(responses))


def _shape(responses: Sequence[Sequence[Response]]) -> tuple[int, int]:
    return len(responses), len(responses[0]) if responses else 0
