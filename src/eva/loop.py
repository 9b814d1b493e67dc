"""Algorithm 1, offline: eva holds the clock, and each round goes through its stages in order.

    creator:  estimate -> sample -> evolve        solver:  answer -> optimise

Read `play` and `create`. The name of a stage is the name of its variable, of its file in the run
directory and of its progress bar. A stage is made once and from then on read (`eva.store`), so a
run can stop anywhere and go on with the same bytes. What each stage does stands in `eva.stages`.
Where the learner samples for itself, `eva.online` plays the rounds: the same game by another clock.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TypeAlias

from eva import online, seeds
from eva.contracts import checked_checkpoint, plug_in
from eva.evaluation import evaluate
from eva.game import Creator, Game, Online
from eva.protocols import Around, Learner, Policy
from eva.records import Checkpoint, Child, Prompt, Rollout, RunState, ScoredPrompt
from eva.stages import (
    admit,
    attempt,
    blend,
    evolve,
    grown,
    lazily,
    mix,
    next_pool,
    release,
    released,
    score,
    select,
    summary,
    unanswered,
)
from eva.store import RunDir, settle

Metrics: TypeAlias = dict[str, float]


def run(game: Game, folder: RunDir) -> Iterator[tuple[int, Metrics]]:
    """Play what is still to play; yields (t, metrics) as each round closes and at the end.

    The metrics of round t are those of its lessons, and the held-out ones of theta_t.
    """
    with released(game):
        state = folder.state() or begin(game, folder)
        while state.round < game.rounds:
            t, learner = state.round, game.learner
            if isinstance(learner, Online):
                state = online.play(game, learner, state, folder)
            else:
                state = play(game, learner, state, folder)
            yield t, folder.metrics(t)
        with lazily(game.open_policy, folder.located(state.checkpoint)) as policy:
            evaluate(game, policy, state, folder)
        yield state.round, folder.metrics(state.round)


def begin(game: Game, folder: RunDir) -> RunState:
    """The state before round 0."""
    state = RunState(round=0, seed=game.seed, checkpoint=game.theta_0, pool=game.prompts)
    folder.begin(state, game.refused)
    return state


def play(game: Game, learner: Learner, state: RunState, folder: RunDir) -> RunState:
    """One round: theta_t and the pool X_t become theta_{t+1} and X_{t+1}."""
    t, pool, room = state.round, state.pool, folder.room(state.round)
    creator = game.creator_at(t)
    with lazily(game.open_policy, folder.located(state.checkpoint)) as policy:
        evaluate(game, policy, state, folder)
        answer = partial(attempt, policy=policy, game=game, state=state)
        tried: list[Rollout] = []
        batch = list(pool)
        if creator:
            tried, batch = create(creator, policy, game, state, folder)
        untried = unanswered(batch, tried, state)
        solved = room.chunks("solved", Rollout, untried, answer, game.chunk)
    lessons = room.whole("lessons", Rollout, blend, batch, tried, solved)
    release(game)
    start = game.theta_0 if game.from_scratch else state.checkpoint
    checkpoint = learn(learner, start, state, lessons, folder)
    after = RunState(
        round=t + 1,
        seed=state.seed,
        checkpoint=checkpoint,
        pool=next_pool(batch, game, state),
    )
    folder.close_round(after, summary(t, [*tried, *solved], lessons, room.found("children", Child)))
    return after


def create(
    creator: Creator, policy: Policy, game: Game, state: RunState, folder: RunDir
) -> tuple[list[Rollout], list[Prompt]]:
    """The creator's step: what was tried on the pool X_t, and the batch to train on."""
    t, pool, room = state.round, state.pool, folder.room(state.round)
    answer = partial(attempt, policy=policy, game=game, state=state)
    rewrite = partial(evolve, policy=policy, creator=creator, state=state)
    if creator.estimate == "last" and t > 0:
        tried = folder.room(t - 1).read("lessons", Rollout)
    else:
        tried = room.chunks("tried", Rollout, pool, answer, game.chunk)
    scored = room.whole("scored", ScoredPrompt, score, tried, creator.info)
    parents = room.whole("parents", ScoredPrompt, select, scored, creator, state)
    written = room.chunks("written", Child, parents, rewrite, game.chunk)
    history = born_before(t, folder) if creator.screens else []
    around = Around({p.prompt.id: p.prompt for p in parents}, pool, history)
    children = room.whole("children", Child, admit, written, around, game.gates, creator.screens)
    born = room.whole("born", Prompt, grown, children, t)
    batch = room.whole("batch", Prompt, mix, born, parents, game, state, creator)
    return tried, batch


def born_before(t: int, folder: RunDir) -> list[Prompt]:
    """The prompts that were born in the rounds before t."""
    return [prompt for s in range(t) for prompt in folder.room(s).found("born", Prompt)]


def learn(
    learner: Learner,
    start: Checkpoint,
    state: RunState,
    lessons: Sequence[Rollout],
    folder: RunDir,
) -> Checkpoint:
    """The solver's step: theta_{t+1}, learnt from `start`, which is also the reference."""
    room, seed = folder.room(state.round), seeds.child(state.seed, "learn", state.round)

    def learnt() -> list[Checkpoint]:
        out = room.folder("learn")
        with plug_in("learner"):
            checkpoint = learner(folder.located(start), lessons, out=out, seed=seed)
        settle(out)
        return [folder.relative(checked_checkpoint(checkpoint))]

    return room.whole("checkpoint", Checkpoint, learnt)[0]
