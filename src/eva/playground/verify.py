"""The reward of the playground: the verifier, in three forms.

The graded form is the truth and the measure of every evaluation. The other two stand for rewards as
they are met in practice: binary is sparse, noisy is a learnt model that errs and always errs alike.
"""

from collections.abc import Sequence

import numpy as np

from eva import seeds
from eva.parts.rewards import PlaygroundReward
from eva.playground.domain import Constraints, parse_answer, parse_chat, score
from eva.protocols import Floats_P_G, Reward
from eva.records import Prompt, Response


def make_reward(config: PlaygroundReward) -> Reward:
    """The reward r(x, y) of a recipe.

    A prompt that is none of the constraint language has no reward: NaN, whatever the response.
    """

    def reward(prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> Floats_P_G:
        """Rewards of shape [P, G]; graded and binary ones lie in [0, 1]."""
        rewards_P_G = np.full((len(prompts), len(responses[0]) if responses else 0), np.nan)
        for p, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
            constraints = parse_chat(prompt.messages)
            if not isinstance(constraints, str):
                rewards_P_G[p] = [in_form(config, prompt, constraints, y) for y in group]
        return rewards_P_G

    return reward


def in_form(
    config: PlaygroundReward, prompt: Prompt, constraints: Constraints, response: Response
) -> float:
    """The reward of one response in the form that the recipe asks for."""
    truth = graded(constraints, response)
    if config.form == "graded":
        return truth
    if config.form == "binary":
        return float(truth == 1.0)
    return truth + config.sigma * error(prompt, response, config.noise_seed)


def graded(constraints: Constraints, response: Response) -> float:
    """The score of a response, in [0, 1]; 0 if it is empty, malformed or never ends."""
    y = parse_answer(response.text)
    return 0.0 if isinstance(y, str) or response.finish == "length" else score(constraints, y)


def error(prompt: Prompt, response: Response, seed: int) -> float:
    """The error of the noisy reward in units of its sigma: one draw of N(0, 1), fixed for ever.

    It depends on the seed, the prompt and the response's text, and on nothing else.
    """
    rng = seeds.rng(seed, "playground", "noise", prompt.id, response.text)
    return float(rng.standard_normal())
