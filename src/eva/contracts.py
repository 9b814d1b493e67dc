"""The border: what plug-ins return is checked here once, and trusted from then on.

Each check gives the sound value or raises a `PlugInError` that says what was expected, what came,
and which prompt or plug-in it came from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from eva.errors import EvaError, PlugInError
from eva.protocols import Floats_P_G
from eva.records import Checkpoint, Child, Prompt, Response


@contextmanager
def plug_in(seam: str) -> Iterator[None]:
    """Turn whatever a plug-in raises into one sentence; eva's own errors pass through."""
    try:
        yield
    except EvaError:
        raise
    except Exception as error:
        raise PlugInError(
            f"the {seam} raised {type(error).__name__}: {error}; mend it and run the same command "
            "again, it goes on from the last finished stage (--debug shows the traceback)"
        ) from error


def checked_responses(answers: object, prompts: Sequence[Prompt], n: int) -> list[list[Response]]:
    """What a policy returned: n responses for each prompt."""
    if not isinstance(answers, list) or len(answers) != len(prompts):
        raise PlugInError(
            f"the policy returned {_described(answers)}; expected a list of {len(prompts)} groups, "
            "one for each prompt"
        )
    for prompt, group in zip(prompts, answers, strict=True):
        is_whole = isinstance(group, list) and len(group) == n
        if not is_whole or not all(isinstance(response, Response) for response in group):
            raise PlugInError(
                f"the policy returned {_described(group)} for prompt {prompt.id}; "
                f"expected a list of {n} Response"
            )
    return answers


def checked_rewards(rewards: object, prompts: int, n: int) -> Floats_P_G:
    """What a reward returned: shape [P, G], finite or NaN."""
    expected = f"expected numbers of shape [{prompts}, {n}] for {prompts} prompts with n={n}"
    try:
        rewards_P_G = np.asarray(rewards)
    except ValueError as error:
        raise PlugInError(
            f"the reward returned a ragged {_described(rewards)}; {expected}"
        ) from error
    if rewards_P_G.dtype.kind not in "fiub":
        raise PlugInError(
            f"the reward returned values of type {rewards_P_G.dtype}, such as "
            f"{str(rewards_P_G.flat[0] if rewards_P_G.size else rewards)[:60]!r}; {expected}, "
            "with NaN for one that is missing"
        )
    if rewards_P_G.shape != (prompts, n):
        raise PlugInError(f"the reward returned shape {list(rewards_P_G.shape)}; {expected}")
    rewards_P_G = rewards_P_G.astype(np.float64)
    if np.isinf(rewards_P_G).any():
        p, g = (int(i) for i in np.argwhere(np.isinf(rewards_P_G))[0])
        raise PlugInError(
            f"the reward returned {rewards_P_G[p, g]} for response {g} of prompt number {p}; "
            f"{expected}, finite, with NaN for one that is missing"
        )
    return rewards_P_G


def some_present(rewards_P_G: Floats_P_G) -> Floats_P_G:
    """Rewards to learn from: not all of them may be missing."""
    if np.isnan(rewards_P_G).all():
        raise PlugInError(
            f"the reward returned NaN for all {rewards_P_G.size} responses of a chunk; nothing can "
            "be learnt from missing rewards: give the reward what it needs (a server, a column of "
            "prompts.data) and run the same command again, it goes on from the last finished stage"
        )
    return rewards_P_G


def checked_children(children: object, parents: int) -> list[Child]:
    """What an evolver returned: a list of Child, at least one for some parent."""
    if not isinstance(children, list) or not all(isinstance(c, Child) for c in children):
        raise PlugInError(
            f"the evolver returned {_described(children)}; expected a list of Child, "
            "where one that failed carries its flaw"
        )
    if parents and not children:
        raise PlugInError(
            f"the evolver returned no children for {parents} parents; expected at least one Child, "
            "where one that failed carries its flaw (set creator.evolve to null to go without)"
        )
    return children


def checked_checkpoint(checkpoint: object) -> Checkpoint:
    """What a learner returned: a Checkpoint."""
    if not isinstance(checkpoint, Checkpoint):
        raise PlugInError(f"the learner returned {_described(checkpoint)}; expected a Checkpoint")
    return checkpoint


def _described(value: object) -> str:
    if isinstance(value, list | tuple):
        kinds = sorted({type(entry).__name__ for entry in value})
        return f"a {type(value).__name__} of {len(value)} ({', '.join(kinds[:3]) or 'empty'})"
    return f"a {type(value).__name__}"
