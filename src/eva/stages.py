"""The small stages of a round: each a function from records to records.

Together with `eva.loop.play`, which puts them in order, this is the whole game.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from eva import adapt, seeds
from eva.contracts import (
    checked_children,
    checked_index,
    checked_info,
    checked_responses,
    checked_rewards,
    plug_in,
    some_answered,
    some_present,
)
from eva.diversity import diversity
from eva.errors import PlugInError
from eva.formulas.pairing import best_and_worst
from eva.game import Creator, Game
from eva.protocols import (
    Around,
    Evolver,
    Floats_P_G,
    Gate,
    Info,
    OpenPolicy,
    Policy,
    Reward,
    Screen,
    Select,
)
from eva.records import (
    SELF,
    Checkpoint,
    Child,
    Message,
    Prompt,
    Response,
    Rollout,
    RunState,
    Sampling,
    ScoredPrompt,
)
from eva.yields import refused_by


def lazily(open_policy: OpenPolicy, checkpoint: Checkpoint) -> adapt.Asked:
    """A policy that is opened when it is first asked: a resumed round may not need it at all."""
    return adapt.Asked(SELF, open_policy, checkpoint)


def release(game: Game) -> None:
    """Have rewards, evolver and screens give their memory back."""
    creator, evaluation = game.creator, game.evaluation
    held: list[object] = [game.reward]
    held += [creator.evolver, *creator.screens] if creator else []
    held += [evaluation.reward, evaluation.monitor] if evaluation else []
    adapt.release(*held)


@contextmanager
def released(game: Game) -> Iterator[None]:
    """Leave nothing open behind a game, however it ends."""
    try:
        yield
    finally:
        release(game)


def answer(
    prompts: Sequence[Prompt],
    policy: Policy,
    reward: Reward,
    *,
    n: int,
    sampling: Sampling,
    seed: int,
) -> tuple[list[list[Response]], Floats_P_G]:
    """The solver answers: n responses for each prompt, and their rewards, shape [P, G]."""
    with plug_in("policy"):
        answers = policy(prompts, n, sampling=sampling, seed=seed)
    responses = checked_responses(answers, prompts, n)
    if len(prompts) > 1:  # one prompt without an answer is its own affair
        some_answered(responses)
    with plug_in("reward"):
        rewards = reward(prompts, responses)
    checked_P_G = checked_rewards(rewards, len(prompts), n)
    is_error_P_G = [[response.finish == "error" for response in group] for group in responses]
    return responses, np.where(is_error_P_G, np.nan, checked_P_G)


def rollouts(
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[Response]],
    rewards_P_G: Floats_P_G,
    state: RunState,
) -> list[Rollout]:
    """Prompts, responses and rewards of theta_t, as records."""
    rewards = [[None if np.isnan(r) else float(r) for r in row] for row in rewards_P_G]
    return [
        Rollout(
            prompt=prompt,
            responses=tuple(group),
            rewards=tuple(row),
            policy=state.checkpoint.id,
            round=state.round,
        )
        for prompt, group, row in zip(prompts, responses, rewards, strict=True)
    ]


def attempt(
    prompts: Sequence[Prompt], policy: Policy, game: Game, state: RunState, step: int | None = None
) -> list[Rollout]:
    """Rollouts on prompts, drawn and rewarded as the recipe says.

    Without a `step` they are those of theta_t. Mini-batch `step` of an online round is answered by
    what theta_t has become, so it has a seed of its own and its policy is named "theta_t+step".
    """
    place = () if step is None else (step,)
    seed = seeds.child(state.seed, "answer", state.round, *place)
    responses, rewards_P_G = answer(
        prompts, policy, game.reward, n=game.n, sampling=game.sampling, seed=seed
    )
    if step is not None or len(prompts) > 1:  # one prompt without a reward is its own affair
        some_present(rewards_P_G, "chunk" if step is None else "mini-batch")
    found = rollouts(prompts, responses, rewards_P_G, state)
    if step is None:
        return found
    policy_id = f"{state.checkpoint.id}+{step}"
    return [rollout.model_copy(update={"policy": policy_id}) for rollout in found]


def rewards_of(tried: Sequence[Rollout]) -> Floats_P_G:
    """The rewards of rollouts with equally many responses; shape [P, G], NaN where missing."""
    rows = [[np.nan if r is None else r for r in rollout.rewards] for rollout in tried]
    return np.array(rows, dtype=np.float64)


def score(tried: Sequence[Rollout], info: Info) -> list[ScoredPrompt]:
    """Estimate: the informativeness of each prompt, with the age of the rewards behind it."""
    with plug_in("informativeness metric"):
        scores = info(rewards_of(tried))
    info_P = checked_info(scores, len(tried))
    return [
        ScoredPrompt(
            prompt=rollout.prompt,
            info=None if np.isnan(one) else float(one),
            round=rollout.round,
            policy=rollout.policy,
        )
        for rollout, one in zip(tried, info_P, strict=True)
    ]


def select(scored: Sequence[ScoredPrompt], creator: Creator, state: RunState) -> list[ScoredPrompt]:
    """Sample: the share `keep` of the pool, drawn by informativeness."""
    count = max(1, round(creator.keep * len(scored)))
    return drawn(scored, count, creator.select, seeds.rng(state.seed, "select", state.round))


def drawn(
    scored: Sequence[ScoredPrompt], count: int, by: Select, rng: np.random.Generator
) -> list[ScoredPrompt]:
    """The `count` prompts (fewer if there are no more) that a selector draws."""
    info_P = np.array([np.nan if s.info is None else s.info for s in scored])
    with plug_in("selector"):
        index = by(info_P, count, rng)
    return [scored[i] for i in checked_index(index, len(scored))]


def evolve(
    parents: Sequence[ScoredPrompt], policy: Policy, creator: Creator, state: RunState
) -> list[Child]:
    """Evolve: what the evolver wrote for each parent, flaws included."""
    if creator.evolver is None:
        return []
    seed = seeds.child(state.seed, "evolve", state.round)
    return rewritten(parents, policy, creator.evolver, seed, state.checkpoint.id)


def rewritten(
    parents: Sequence[ScoredPrompt], policy: Policy, evolver: Evolver, seed: int, policy_id: str
) -> list[Child]:
    """What an evolver wrote for each parent; where the policy itself wrote, `by` names it."""
    with plug_in("evolver"):
        children = evolver(parents, policy, seed=seed)
    by = {"by": f"{SELF} {policy_id}"}
    return [
        child.model_copy(update=by) if child.by == SELF else child
        for child in checked_children(children, [parent.prompt.id for parent in parents])
    ]


def admit(
    written: Sequence[Child],
    around: Around,
    gates: Sequence[Gate],
    screens: Sequence[Screen] = (),
    seen: Collection[str] = (),
) -> list[Child]:
    """Judge: the children, each that must not become a prompt with its flaw and the gate behind it.

    Args:
        written: What the evolver wrote.
        around: The pool, and what else a screen compares with; parents among the children need not
            be in it.
        gates: Judge a chat by itself.
        screens: Judge in turn what nothing refused before.
        seen: Ids of children that were written before, where those count as duplicates.
    """
    known = dict.fromkeys(seen, "it repeats an earlier child of this run")
    known |= {prompt.id: "it is already in the pool" for prompt in around.pool}
    judged = []
    for child in written:
        repeats = known.get(child.id)
        known.setdefault(child.id, "it repeats another child of this round")
        flaw = child.flaw or repeats or flaw_of(child.messages, gates)
        gate = "parse" if child.flaw else "repeat" if repeats else "unfit" if flaw else None
        judged.append(child.model_copy(update={"flaw": flaw, "gate": gate}))
    if screens:
        born = {child.id: child.grown(0) for child in judged if child.flaw is None}
        around = replace(around, parents=born | dict(around.parents))
    for screen in screens:
        judged = _screened(judged, screen, around)
    return judged


def _screened(children: Sequence[Child], screen: Screen, around: Around) -> list[Child]:
    sound = [i for i, child in enumerate(children) if child.flaw is None]
    with plug_in(f"gate {screen.name}"):
        flaws = screen([children[i] for i in sound], around)
    if len(flaws) != len(sound):
        raise PlugInError(
            f"the gate {screen.name} returned {len(flaws)} verdicts for {len(sound)} children; "
            "expected one for each, a reason or None"
        )
    judged = list(children)
    for i, flaw in zip(sound, flaws, strict=True):
        if flaw is not None:
            judged[i] = judged[i].model_copy(update={"flaw": flaw, "gate": screen.name})
    return judged


def flaw_of(messages: Sequence[Message], gates: Sequence[Gate]) -> str | None:
    """Why a chat cannot become a prompt: what the first gate says that refuses it, or None."""
    with plug_in("gate"):
        return next((flaw for gate in gates if (flaw := gate(messages)) is not None), None)


def grown(children: Sequence[Child], t: int) -> list[Prompt]:
    """The newborn prompts of round t: the children without a flaw."""
    return [child.grown(t) for child in children if child.flaw is None]


def mix(
    born: Sequence[Prompt],
    parents: Sequence[ScoredPrompt],
    game: Game,
    state: RunState,
    creator: Creator,
) -> list[Prompt]:
    """The batch X_t: as many prompts as the pool, `fresh` of them newborn, the rest replayed.

    What newborns cannot fill, replay fills; without an evolver the parents alone are the batch. The
    order of the draws, and that they are made before the new prompts are answered, are our choice.
    """
    given = [parent.prompt for parent in parents]
    if creator.evolver is None:
        return given
    size = len(state.pool)
    rng = seeds.rng(state.seed, "mix", state.round)
    newborn = [born[i] for i in rng.permutation(len(born))[: round(creator.fresh * size)]]
    sources = {"pool": state.pool, "parents": given, "first": game.prompts}
    replayed = _shuffled(sources[creator.replay], rng) + _shuffled(state.pool, rng)
    distinct: dict[str, Prompt] = {}
    for prompt in [*newborn, *replayed]:
        distinct.setdefault(prompt.id, prompt)
    return list(distinct.values())[:size]


def _shuffled(prompts: Sequence[Prompt], rng: np.random.Generator) -> list[Prompt]:
    return [prompts[i] for i in rng.permutation(len(prompts))]


def unanswered(batch: Sequence[Prompt], tried: Sequence[Rollout], state: RunState) -> list[Prompt]:
    """The prompts of the batch that were not answered in this round, by theta_t, yet."""
    answered = {r.prompt.id for r in tried if r.round == state.round}
    return [prompt for prompt in batch if prompt.id not in answered]


def blend(
    batch: Sequence[Prompt], tried: Sequence[Rollout], solved: Sequence[Rollout]
) -> list[Rollout]:
    """The lessons: for each prompt of the batch what the current policy answered."""
    by_id = {rollout.prompt.id: rollout for rollout in [*tried, *solved]}
    lessons = [by_id[prompt.id] for prompt in batch]
    some_present(rewards_of(lessons), "lessons")
    return lessons


def next_pool(batch: Sequence[Prompt], game: Game, state: RunState) -> tuple[Prompt, ...]:
    """X_{t+1}: new prompts where the recipe has them, else the batch, else the pool as it was.

    The paper says that later rounds go on from the new prompt set, not from which: our choice is
    the batch, so that a pool keeps its size.
    """
    size = len(state.pool)
    if game.new_prompts:
        return game.new_prompts[state.round * size : (state.round + 1) * size] or state.pool
    creator = game.creator_at(state.round)
    return tuple(batch) if creator and creator.evolver else state.pool


def summary(
    t: int, answered: Sequence[Rollout], lessons: Sequence[Rollout], children: Sequence[Child]
) -> dict[str, float]:
    """The metrics of a round; docs/metrics.md says what each one means."""
    rewards_P_G = rewards_of(lessons)
    _, _, margin_P = best_and_worst(rewards_P_G)
    fresh = [rollout for rollout in answered if rollout.round == t]
    responses = [response for rollout in fresh for response in rollout.responses]
    asked = [rollout.prompt for rollout in lessons]
    return {
        "reward": float(np.nanmean(rewards_P_G)),
        "spread": float(np.nanmean(margin_P)) if np.isfinite(margin_P).any() else 0.0,
        "usable": float(np.mean(margin_P > 0)),
        "missing": float(np.isnan(rewards_P_G).sum()),
        "prompts": float(len(fresh)),
        "samples": float(len(responses)),
        "tokens": float(sum(len(response.tokens or ()) for response in responses)),
        "cut": float(np.mean([r.finish == "length" for r in responses])) if responses else 0.0,
        "words": float(np.mean([_words(rollout.prompt) for rollout in lessons])),
        "written": float(len(children)),
        "flawed": float(sum(child.flaw is not None for child in children)),
        **{f"refused/{gate}": float(n) for gate, n in sorted(refused_by(children).items())},
        **{f"diversity/{name}": value for name, value in diversity(asked).items()},
    }


def _words(prompt: Prompt) -> int:
    return sum(len(message.content.split()) for message in prompt.messages)
