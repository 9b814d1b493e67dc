"""What a checkpoint can do: fixed held-out prompts, answered greedily and sampled.

The sampling seed of a held-out set is fixed, so all checkpoints of all runs meet the same draws. A
second reward may watch the same answers: where it falls while the reward that is trained on rises,
the policy learns to please a reward model (over-optimisation; Gao et al. 2023).
"""

import json
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from eva import seeds
from eva.contracts import checked_rewards, plug_in
from eva.errors import StopRule
from eva.formulas.statistics import estimate, win_rate
from eva.game import Evaluation, Game
from eva.protocols import Floats_P, Floats_P_G, Policy, Reward
from eva.records import Record, Rollout, RunState, Sampling
from eva.stages import answer, rewards_of, rollouts
from eva.store import Room, RunDir, write_json

log = logging.getLogger(__name__)

ALARM = "overoptimised"
"""The metric of a set that is 1 at an alarm."""


class Watched(Record):
    """What the monitor says of the answers to one held-out prompt."""

    prompt: str
    """Its id."""
    rewards: tuple[float | None, ...]
    """One for each answer; None where it is missing."""


def evaluate(game: Game, policy: Policy, state: RunState, folder: RunDir) -> None:
    """Measure theta_t, if it is due, into `evals/<t>.json`; metrics are named set/mode/metric.

    Raises:
        StopRule: The monitor gives an alarm, and the recipe stops the run then.
    """
    evaluation, t = game.evaluation, state.round
    path = folder.eval_path(t)
    if evaluation is None:
        return
    is_due = t % evaluation.every == 0 or t == game.rounds
    if is_due and not path.exists():
        measured = {
            f"{name}/{metric}": value
            for name in evaluation.sets
            for metric, value in _measured(evaluation, name, policy, state, folder).items()
        }
        write_json(path, dict(measured))
    if is_due:
        _heed(evaluation, folder, t, is_last=t == game.rounds)


def _heed(evaluation: Evaluation, folder: RunDir, t: int, *, is_last: bool) -> None:
    """Log an alarm, and stop if the recipe says so and rounds are left."""
    measured = json.loads(folder.eval_path(t).read_bytes())
    alarms = [name for name in evaluation.sets if measured.get(f"{name}/sampled/{ALARM}")]
    if not alarms:
        return
    sentence = (
        f"checkpoint {t} is over-optimised on the held-out set {', '.join(alarms)}: since an "
        "earlier checkpoint the reward rose and the monitor fell (evals/ shows when)"
    )
    log.warning(sentence)
    if evaluation.stop and not is_last:
        raise StopRule(f"{sentence}; to go on, run with --set evaluate.monitor.stop=false")


def _measured(
    evaluation: Evaluation, name: str, policy: Policy, state: RunState, folder: RunDir
) -> dict[str, float]:
    room, stage, prompts = folder.eval_room(name), f"{state.round:03d}", evaluation.sets[name]
    folder.progress(f"evaluate {name}", 0, len(prompts))
    answered = room.whole(stage, Rollout, _answered, evaluation, name, policy, state)
    folder.progress(f"evaluate {name}", len(prompts), len(prompts))
    first_P_G = rewards_of(room.read("000", Rollout))
    rewards_P_G = rewards_of(answered)
    modes = {"greedy": slice(0, 1), "sampled": slice(1, None)}
    found = {
        f"{mode}/{metric}": value
        for mode, columns in modes.items()
        for metric, value in metrics(
            rewards_P_G[:, columns], first_P_G[:, columns], evaluation.solved_at
        ).items()
    }
    if evaluation.monitor:
        watched = folder.eval_room(f"{name}/monitor")
        watched.whole(stage, Watched, _watched, evaluation.monitor, answered)
        found |= _alarmed(evaluation, room, watched, stage, modes)
    return found


def _watched(monitor: Reward, answered: Sequence[Rollout]) -> list[Watched]:
    """What the monitor says of a checkpoint's answers."""
    prompts = [rollout.prompt for rollout in answered]
    responses = [rollout.responses for rollout in answered]
    with plug_in("monitor"):
        rewards = monitor(prompts, responses)
    rewards_P_G = checked_rewards(rewards, len(prompts), len(responses[0]))
    return [
        Watched(prompt=prompt.id, rewards=tuple(None if np.isnan(r) else float(r) for r in row))
        for prompt, row in zip(prompts, rewards_P_G, strict=True)
    ]


def _alarmed(
    evaluation: Evaluation, room: Room, watched: Room, stage: str, modes: Mapping[str, slice]
) -> dict[str, float]:
    """For each mode the mean of the monitor, and whether an earlier checkpoint gives the alarm."""

    def measured(t: str) -> tuple[Floats_P_G, Floats_P_G]:
        rows = [
            [np.nan if r is None else r for r in one.rewards] for one in watched.read(t, Watched)
        ]
        return rewards_of(room.read(t, Rollout)), np.array(rows)

    stages = [path.stem for path in watched.path.glob("*.jsonl")]
    before = [measured(t) for t in sorted(stages, key=int) if int(t) < int(stage)]
    now = measured(stage)
    found = {}
    for mode, columns in modes.items():
        reward_P, monitor_P = (mean_of_present(one[:, columns]) for one in now)
        alarms = [
            overoptimised(
                reward_P,
                monitor_P,
                *(mean_of_present(one[:, columns]) for one in old),
                drop=evaluation.drop,
            )
            for old in before
        ]
        is_present_P = ~np.isnan(monitor_P)
        if is_present_P.any():
            found[f"{mode}/monitor"] = float(np.mean(monitor_P[is_present_P]))
        found[f"{mode}/{ALARM}"] = float(any(alarms))
    return found


def mean_of_present(rewards_P_G: Floats_P_G) -> Floats_P:
    """The mean reward of each prompt over the answers that have one; shape [P], NaN without any."""
    is_present_P_G = ~np.isnan(rewards_P_G)
    count_P = is_present_P_G.sum(axis=1)
    total_P = np.where(is_present_P_G, rewards_P_G, 0.0).sum(axis=1)
    mean_P: Floats_P = np.where(count_P > 0, total_P / np.maximum(count_P, 1), np.nan)
    return mean_P


def overoptimised(
    reward_P: Floats_P,
    monitor_P: Floats_P,
    old_reward_P: Floats_P,
    old_monitor_P: Floats_P,
    *,
    drop: float,
) -> bool:
    """Whether the reward rose and the monitor fell since an older checkpoint.

    Both by more than `drop` standard errors of the differences, paired by prompt: our choice. Each
    of the four is of shape [P], NaN where it is missing; prompts with a gap are left out.
    """
    change_2_P = np.array([reward_P - old_reward_P, monitor_P - old_monitor_P])
    change_2_P = change_2_P[:, ~np.isnan(change_2_P).any(axis=0)]
    if change_2_P.shape[1] < 2:
        return False
    rise, fall = (estimate(change_P) for change_P in change_2_P)
    return rise.mean > drop * rise.error and fall.mean < -drop * fall.error


def _answered(evaluation: Evaluation, name: str, policy: Policy, state: RunState) -> list[Rollout]:
    """Rollouts whose first response is greedy and whose others are sampled."""
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=evaluation.max_tokens)
    sampled = greedy.model_copy(update={"temperature": evaluation.temperature})
    prompts = evaluation.sets[name]
    seed, reward = seeds.child(0, "evaluate", name), evaluation.reward
    one, one_P_1 = answer(prompts, policy, reward, n=1, sampling=greedy, seed=seed)
    many, many_P_G = answer(
        prompts, policy, reward, n=evaluation.samples, sampling=sampled, seed=seed
    )
    responses = [[*first, *others] for first, others in zip(one, many, strict=True)]
    return rollouts(prompts, responses, np.hstack([one_P_1, many_P_G]), state)


def metrics(
    rewards_P_G: Floats_P_G, first_P_G: Floats_P_G, solved_at: float | None
) -> dict[str, float]:
    """Mean reward, win rate against theta_0, and accuracy where a right answer is defined.

    What cannot be had because all rewards are missing is left out, not set to a number.

    Args:
        rewards_P_G: Rewards of the checkpoint, shape [P, G].
        first_P_G: Rewards of theta_0 on the same prompts, shape [P, G].
        solved_at: The reward from which a response counts as right, or None.
    """
    is_present = ~np.isnan(rewards_P_G)
    found = {"missing": float(np.sum(~is_present))}
    if is_present.any():
        found["reward"] = float(np.mean(rewards_P_G[is_present]))
        if solved_at is not None:
            found["accuracy"] = float(np.mean(rewards_P_G[is_present] >= solved_at))
    is_both = is_present & ~np.isnan(first_P_G)
    if is_both.any():
        found["win_rate"] = win_rate(rewards_P_G[is_both], first_P_G[is_both]).mean
    return found
