"""The border: what plug-ins return is checked here once, and trusted from then on.

Each check gives the sound value or raises a `PlugInError` that says what was expected, what came,
and which prompt or plug-in it came from.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from eva.errors import BackEndError, EvaError, PlugInError
from eva.protocols import Floats_P, Floats_P_G, Index_K
from eva.records import Checkpoint, Child, Prompt, Response


@contextmanager
def plug_in(seam: str) -> Iterator[None]:
    """Turn whatever a plug-in raises into one sentence; eva's own errors pass through."""
    try:
        yield
    except EvaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PlugInError(
            f"the {seam} raised {type(error).__name__}: {reason}; mend it and run the same command "
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
    except Exception as error:
        raise PlugInError(
            f"the reward returned {_described(rewards)} that is no array ({error}); {expected} (a "
            "torch tensor becomes one by .detach().float().cpu().numpy())"
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


def some_answered(responses: Sequence[Sequence[Response]]) -> None:
    """Refuse responses that are all errors: nothing can be learnt from them."""
    reasons = [response.error for group in responses for response in group]
    if all(reasons):
        raise BackEndError(
            f"the policy answered none of {len(responses)} prompts (the first because "
            f"{reasons[0]}); mend that and run the same command again"
        )


def some_present(rewards_P_G: Floats_P_G, of: str) -> None:
    """Refuse rewards that are all missing: nothing can be learnt from them."""
    if np.isnan(rewards_P_G).all():
        raise PlugInError(
            f"the reward returned NaN for all {rewards_P_G.size} responses of the {of}; nothing "
            "can be learnt from missing rewards: give the reward what it needs (a server, a column "
            "of prompts.data) and run the same command again"
        )


def checked_info(info: object, prompts: int) -> Floats_P:
    """What an informativeness metric returned: shape [P], finite or NaN."""
    expected = f"expected numbers of shape [{prompts}], finite, or NaN for a prompt without a score"
    try:
        info_P = np.asarray(info, dtype=np.float64)
    except Exception as error:
        raise PlugInError(
            f"the informativeness metric returned {_described(info)}; {expected}"
        ) from error
    if info_P.shape != (prompts,) or np.isinf(info_P).any():
        what = "infinity" if np.isinf(info_P).any() else f"shape {list(info_P.shape)}"
        raise PlugInError(f"the informativeness metric returned {what}; {expected}")
    return info_P


def checked_index(index: object, prompts: int) -> Index_K:
    """What a selector returned: distinct positions in [0, P)."""
    index_K = np.asarray(index)
    is_whole = index_K.ndim == 1 and (index_K.dtype.kind in "iu" or index_K.size == 0)
    if not is_whole or len(set(index_K.tolist())) < index_K.size:
        raise PlugInError(
            f"the selector returned {_described(index)}; expected distinct integers of shape [K]"
        )
    if index_K.size and not (index_K.min() >= 0 and index_K.max() < prompts):
        raise PlugInError(f"the selector returned a position outside [0, {prompts})")
    return index_K.astype(np.intp)


def checked_children(children: object, parents: Sequence[str]) -> list[Child]:
    """What an evolver returned: a list of Child, at least one, each of a known parent."""
    if not isinstance(children, list) or not all(isinstance(c, Child) for c in children):
        raise PlugInError(
            f"the evolver returned {_described(children)}; expected a list of Child, "
            "where one that failed carries its flaw"
        )
    if parents and not children:
        raise PlugInError(
            f"the evolver returned no children for {len(parents)} parents; expected at least one "
            "Child, where one that failed carries its flaw (creator.evolve: null goes without)"
        )
    known = set(parents)
    for child in children:
        if child.parent not in known:
            raise PlugInError(
                f"the evolver returned a child of {child.parent!r}, which is neither one of its "
                "parents nor an earlier child; expected parent=ScoredPrompt.prompt.id or Child.id"
            )
        known.add(child.id)
    return children


def checked_checkpoint(checkpoint: object) -> Checkpoint:
    """What a learner returned: a Checkpoint."""
    if not isinstance(checkpoint, Checkpoint):
        raise PlugInError(f"the learner returned {_described(checkpoint)}; expected a Checkpoint")
    return checkpoint


def checked_metrics(metrics: object) -> dict[str, float]:
    """What a trainee returned of a mini-batch: numbers by name."""
    if not isinstance(metrics, dict) or not all(
        isinstance(name, str) and isinstance(value, int | float) for name, value in metrics.items()
    ):
        shown = metrics if isinstance(metrics, dict) else _described(metrics)
        raise PlugInError(
            f"the learner returned {shown!r:.120} of a mini-batch; expected numbers by name, such "
            "as {'loss': 0.7}"
        )
    return {name: float(value) for name, value in metrics.items()}


def _described(value: object) -> str:
    if isinstance(value, list | tuple):
        kinds = sorted({type(entry).__name__ for entry in value})
        return f"a {type(value).__name__} of {len(value)} ({', '.join(kinds[:3]) or 'empty'})"
    return f"a {type(value).__name__}"
