"""What each learner of a recipe teaches: from rollouts to token groups, and from there to a loss.

The equations stand in `losses` and `policy_gradient`; here they are given what they need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, assert_never

import numpy as np
import torch
from torch import Tensor

from eva.errors import PlugInError
from eva.formulas.advantages import group_advantages, loo_advantages
from eva.formulas.pairing import bradley_terry_probabilities, win_probabilities
from eva.learn import losses, policy_gradient
from eva.learn.batches import TokenGroup
from eva.learn.losses import PairLogps
from eva.learn.policy_gradient import TokenLogps
from eva.pairs import best_worst_pairs
from eva.parts.learners import (
    Dpo,
    Grpo,
    Ipo,
    OnlineDpo,
    Orpo,
    OwnOffline,
    OwnOnline,
    Rloo,
    Simpo,
    Sppo,
)
from eva.protocols import Floats_P_G
from eva.records import Prompt, Response, Rollout

Metrics: TypeAlias = dict[str, Tensor]
"""What is logged of each pair or response; the trainer averages it over a step."""


@dataclass(frozen=True)
class Rows:
    """What a loss may need of B responses, R tokens long at most; groups stand together."""

    logps: TokenLogps
    """Log-probabilities of their tokens."""
    signals_B: Tensor
    """What the lessons say of each response."""
    group_B: Tensor
    """The group of each response, in [0, M)."""


@dataclass(frozen=True)
class Lesson:
    """A prompt with the responses that are learnt from, before they are tokens."""

    prompt: Prompt
    """The prompt x."""
    responses: tuple[Response, ...]
    """y_1 ... y_k."""
    signals: tuple[float, ...]
    """What the loss is told about each."""


@dataclass(frozen=True)
class Taught:
    """The lessons of some rollouts, and what made none."""

    lessons: list[Lesson]
    """In the order of the rollouts."""
    ties: int
    """Groups whose rewards are all equal."""
    missing: int
    """Groups with fewer than two rewards."""


@dataclass(frozen=True)
class Objective:
    """One learner's lessons, loss and measure."""

    taught: Callable[[Sequence[Rollout]], Taught]
    """Lessons of rollouts."""
    loss: Callable[[Rows], tuple[Tensor, Metrics]]
    """The losses of a micro-batch, to be summed and divided by `size`, and what is logged."""
    size: Callable[[Sequence[TokenGroup]], float]
    """What the summed loss of a step is divided by."""
    members: Callable[[TokenGroup], int]
    """Entries in the log of one group: 1 for a pair, k for a group of k responses."""
    needs_reference: bool
    """Whether the loss reads the reference's log-probabilities."""
    skips_ties: bool = False
    """Whether a group whose signals are all 0 adds nothing to the gradient."""


def objective(part: OwnOffline | OwnOnline, max_tokens: int) -> Objective:
    """The objective of a learner; `max_tokens` bounds a response (Dr. GRPO divides by it)."""
    match part:
        case Rloo():
            loss = partial(_rloo, kl=part.kl, epsilon=part.epsilon)
            taught = partial(_groups, advantages=loo_advantages)
            return Objective(taught, loss, _responses, _k, part.kl > 0, part.kl == 0)
        case Grpo():
            advantages = partial(group_advantages, scaled=part.scaled)
            taught = partial(_groups, advantages=advantages)
            size = {
                "response": _responses,
                "token": lambda groups: float(max(1, sum(group.tokens for group in groups))),
                "constant": lambda groups: _responses(groups) * max_tokens,
            }[part.average]
            return Objective(taught, partial(_grpo, part=part), size, _k, part.kl > 0, part.kl == 0)
        case Dpo() | Ipo() | Sppo() | Simpo() | Orpo() | OnlineDpo():
            needs_reference = not isinstance(part, Simpo | Orpo)
            loss = partial(_pairs, part=part)
            return Objective(_taught_pairs(part), loss, _groups_in, _one, needs_reference)
        case _:
            assert_never(part)


def _groups_in(groups: Sequence[TokenGroup]) -> float:
    return float(len(groups))


def _responses(groups: Sequence[TokenGroup]) -> float:
    return float(sum(len(group.responses) for group in groups))


def _one(group: TokenGroup) -> int:
    return 1


def _k(group: TokenGroup) -> int:
    return len(group.responses)


# ---------------------------------------------------------------- pairs


def _taught_pairs(part: OwnOffline | OnlineDpo) -> Callable[[Sequence[Rollout]], Taught]:
    """Best against worst; the signals are win probabilities for SPPO, else rewards."""
    if not isinstance(part, Sppo):
        return partial(_best_worst, signals=lambda rewards_P_G: rewards_P_G)
    named: dict[str, Callable[[Floats_P_G], Floats_P_G]] = {
        "hard": _hard,
        "rewards": _as_probabilities,
        "ranks": win_probabilities,
        "bradley_terry": partial(bradley_terry_probabilities, scale=part.scale),
    }
    return partial(_best_worst, signals=named[part.labels])


def _best_worst(rollouts: Sequence[Rollout], signals: Callable[[Floats_P_G], Floats_P_G]) -> Taught:
    found = best_worst_pairs(rollouts)
    signals_P_G = signals(found.rewards_P_G) if rollouts else found.rewards_P_G
    lessons = [
        Lesson(
            prompt=pair.prompt,
            responses=(pair.chosen, pair.rejected),
            signals=(float(signals_P_G[p, best]), float(signals_P_G[p, worst])),
        )
        for pair, (p, best, worst) in zip(found.pairs, found.places, strict=True)
    ]
    return Taught(lessons, found.ties, found.missing)


def _hard(rewards_P_G: Floats_P_G) -> Floats_P_G:
    """1 for the best and 0 for the worst; what lies between makes no pair."""
    best_P = np.nanmax(rewards_P_G, axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(rewards_P_G == best_P, dtype=np.float64)


def _as_probabilities(rewards_P_G: Floats_P_G) -> Floats_P_G:
    """The rewards themselves, which must be win probabilities."""
    outside = rewards_P_G[(rewards_P_G < 0.0) | (rewards_P_G > 1.0)]
    if outside.size:
        raise PlugInError(
            f"the reward returned {outside[0]:g}, which is no win probability; learner.labels "
            "rewards expects values in [0, 1] of a pairwise reward: use one, or bradley_terry"
        )
    return rewards_P_G


def _pairs(rows: Rows, *, part: OwnOffline | OnlineDpo) -> tuple[Tensor, Metrics]:
    """The loss of M pairs, whose rows are chosen, rejected, chosen, rejected, ..."""
    logps = _pair_logps(rows.logps)
    loss_M = _pair_loss(logps, rows.signals_B.view(-1, 2), part)
    if not isinstance(part, OnlineDpo) and part.nll:
        loss_M = loss_M + part.nll * losses.nll(logps)
    has_reference = rows.logps.ref is not None
    if has_reference:
        rewards = losses.implicit_rewards(logps, beta=part.beta)
    else:  # without a reference the length-normalised log-probability is what is compared
        rewards = (
            part.beta * losses.per_token(logps.chosen, logps.chosen_tokens),
            part.beta * losses.per_token(logps.rejected, logps.rejected_tokens),
        )
    chosen_M, rejected_M = (reward.detach() for reward in rewards)
    metrics = {
        "accuracy": (chosen_M > rejected_M).float(),
        "reward_chosen": chosen_M,
        "reward_rejected": rejected_M,
        "margin": chosen_M - rejected_M,
    }
    if has_reference:
        # Estimated on the samples: KL(ref || pi) if the reference drew them, else KL(pi || ref).
        sign = 1.0 if isinstance(part, OnlineDpo) else -1.0
        metrics["kl"] = sign * (chosen_M + rejected_M) / (2.0 * part.beta)
    return loss_M, metrics


def _pair_logps(logps: TokenLogps) -> PairLogps:
    new_M_2 = (logps.new * logps.mask).sum(1).view(-1, 2)
    ref_B = (
        torch.zeros_like(logps.mask[:, 0]) if logps.ref is None else (logps.ref * logps.mask).sum(1)
    )
    return PairLogps(*new_M_2.T, *ref_B.view(-1, 2).T, *logps.mask.sum(1).view(-1, 2).T)


def _pair_loss(logps: PairLogps, wins_M_2: Tensor, part: OwnOffline | OnlineDpo) -> Tensor:
    match part:
        case Dpo() | OnlineDpo():
            return losses.dpo(logps, beta=part.beta, label_smoothing=part.label_smoothing)
        case Ipo():
            return losses.ipo(logps, beta=part.beta, length_normalised=part.length_normalised)
        case Sppo():
            return losses.sppo(logps, *wins_M_2.T, beta=part.beta)
        case Simpo():
            return losses.simpo(logps, beta=part.beta, gamma=part.gamma)
        case Orpo():
            return losses.orpo(logps, beta=part.beta)
        case _:
            assert_never(part)


# ---------------------------------------------------------------- groups


def _groups(rollouts: Sequence[Rollout], advantages: Callable[[Floats_P_G], Floats_P_G]) -> Taught:
    """Whole groups; a response without a reward is left out, and a group with fewer than two."""
    lessons, ties, missing = [], 0, 0
    for rollout in rollouts:
        given = [
            (y, r) for y, r in zip(rollout.responses, rollout.rewards, strict=True) if r is not None
        ]
        if len(given) < 2:
            missing += 1
            continue
        rewards = np.array([[r for _, r in given]])
        ties += int(np.ptp(rewards) == 0)
        signals = tuple(advantages(rewards)[0].tolist())
        lessons.append(Lesson(rollout.prompt, tuple(y for y, _ in given), signals))
    return Taught(lessons, ties, missing)


def _rloo(rows: Rows, *, kl: float, epsilon: float | None) -> tuple[Tensor, Metrics]:
    """The signals are leave-one-out advantages of the rewards; a KL penalty is one more reward."""
    logps, advantages_B = rows.logps, rows.signals_B
    metrics = _sampled_metrics(logps)
    if kl:
        assert logps.ref is not None
        kl_B = policy_gradient.kl_k1(logps.old, logps.ref, logps.mask)
        advantages_B = advantages_B - kl * _leave_one_out(kl_B, rows.group_B)
    return policy_gradient.rloo(logps, advantages_B, epsilon=epsilon), metrics


def _leave_one_out(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Each value minus the mean of the others of its group."""
    sums_M = values_B.new_zeros(int(group_B.max()) + 1).index_add(0, group_B, values_B)
    sizes_B = torch.bincount(group_B)[group_B]
    return (values_B - sums_M[group_B] / sizes_B) * sizes_B / (sizes_B - 1)


def _grpo(rows: Rows, *, part: Grpo) -> tuple[Tensor, Metrics]:
    logps = rows.logps
    loss_B_R = policy_gradient.grpo(
        logps,
        rows.signals_B,
        epsilon=part.epsilon,
        epsilon_high=part.epsilon_high,
        kl=part.kl,
    )
    loss_B = loss_B_R.sum(1)
    if part.average == "response":
        loss_B = loss_B / logps.mask.sum(1).clamp(min=1)
    return loss_B, _sampled_metrics(logps)


def _sampled_metrics(logps: TokenLogps) -> Metrics:
    """Entropy and, with a reference, KL(pi || ref), estimated on the policy's own samples."""
    metrics = {"entropy": -(logps.old * logps.mask).sum(1) / logps.mask.sum(1).clamp(min=1)}
    if logps.ref is not None:
        metrics["kl"] = policy_gradient.kl_k1(logps.old, logps.ref, logps.mask)
    return metrics
