"""What a checkpoint can do: fixed held-out prompts, answered greedily and sampled.

The sampling seed of a held-out set is fixed, so all checkpoints of all runs meet the same draws.
"""

import numpy as np

from eva import seeds
from eva.formulas.statistics import win_rate
from eva.game import Evaluation, Game
from eva.protocols import Floats_P_G, Policy
from eva.records import Rollout, RunState, Sampling
from eva.stages import answer, rewards_of, rollouts
from eva.store import RunDir, write_json


def evaluate(game: Game, policy: Policy, state: RunState, folder: RunDir) -> None:
    """Measure theta_t, if it is due, into `evals/<t>.json`; metrics are named set/mode/metric."""
    evaluation, t = game.evaluation, state.round
    path = folder.eval_path(t)
    if evaluation is None or path.exists():
        return
    if t % evaluation.every == 0 or t == game.rounds:
        measured = {
            f"{name}/{metric}": value
            for name in evaluation.sets
            for metric, value in _measured(evaluation, name, policy, state, folder).items()
        }
        write_json(path, dict(measured))


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
    return {
        f"{mode}/{metric}": value
        for mode, columns in modes.items()
        for metric, value in metrics(
            rewards_P_G[:, columns], first_P_G[:, columns], evaluation.solved_at
        ).items()
    }


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
