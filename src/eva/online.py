"""Algorithm 1, online: the learner samples, and the creator works after every mini-batch.

    mini-batch -> answer -> learn        creator:  estimate -> sample -> evolve

Read `learn`. A round is a number of mini-batches between two checkpoints, which are evaluated as
offline. Every stage of a mini-batch is a numbered part, made once and from then on read: a killed
round goes on from the learner's last snapshot, which holds weights and `Notes` as one, learns again
what came after it, and samples nothing twice.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from pydantic import Field, ValidationError

from eva import seeds
from eva.contracts import checked_checkpoint, checked_metrics, plug_in
from eva.errors import PlugInError
from eva.evaluation import evaluate
from eva.game import Game, Online, StreamCreator
from eva.protocols import Trainee
from eva.records import Checkpoint, Child, Prompt, Record, Rollout, RunState, ScoredPrompt
from eva.stages import attempt, grown, lazily, next_pool, score, summary
from eva.store import RunDir, settle
from eva.stream import PromptStream, StreamState


class Tally(Record):
    """One of the learner's metrics in a round."""

    total: float = 0.0
    """The sum of its values."""
    count: int = 0
    """How many mini-batches had one."""


class Notes(Record):
    """What a round keeps beside its weights."""

    stream: StreamState = StreamState()
    """Where the stream of prompts stands."""
    logged: dict[str, Tally] = Field(default_factory=dict)
    """The learner's metrics so far in this round."""


def play(game: Game, online: Online, state: RunState, folder: RunDir) -> RunState:
    """One round: theta_t becomes theta_{t+1}, mini-batch by mini-batch."""
    t, room = state.round, folder.room(state.round)
    with lazily(game.open_policy, folder.located(state.checkpoint)) as policy:
        evaluate(game, policy, state, folder)
    [checkpoint] = room.whole("checkpoint", Checkpoint, learn, game, online, state, folder)
    lessons = room.whole("lessons", Rollout, room.parts, "solved", Rollout)
    children: list[Child] = []
    if game.creator:
        room.whole("scored", ScoredPrompt, room.parts, "scored", ScoredPrompt)
        room.whole("parents", ScoredPrompt, room.parts, "parents", ScoredPrompt)
        children = room.whole("children", Child, room.parts, "children", Child)
        room.whole("born", Prompt, grown, children, t)
    pool = next_pool((), game, state)
    after = RunState(round=t + 1, seed=state.seed, checkpoint=checkpoint, pool=pool)
    metrics = summary(t, lessons, lessons, children)
    folder.close_round(after, metrics | measures(game, online, state, folder))
    return after


def learn(game: Game, online: Online, state: RunState, folder: RunDir) -> list[Checkpoint]:
    """theta_{t+1}: mini-batches of theta_t, each answered by what theta_t has become."""
    t, room, creator = state.round, folder.room(state.round), game.creator
    with opened(game, online, state, folder) as trainee:
        notes = entered(trainee, online, state, folder)
        stream = stream_of(game, online, state, notes.stream)
        for k in range(trainee.step, online.steps):
            room.progress("learn", k, online.steps)
            batch = stream.next_batch()
            solved = room.part("solved", k, Rollout, attempt, batch, trainee.policy, game, state, k)
            with plug_in("learner"):
                metrics = checked_metrics(trainee.learn(solved))
            if isinstance(creator, StreamCreator):
                scored = room.part("scored", k, ScoredPrompt, score, solved, creator.info)
                stream.remember(scored)
            if stream.wanted() and stream.state.step < game.rounds * online.steps:
                parents = room.part("parents", k, ScoredPrompt, stream.parents)
                policy_id = f"{state.checkpoint.id}+{k + 1}"
                children = room.part(
                    "children", k, Child, stream.children, parents, trainee.policy, policy_id
                )
                stream.welcome(parents, children, t)
            notes = Notes(stream=stream.state, logged=tallied(notes.logged, metrics))
            with plug_in("learner"):
                trainee.keep(notes.model_dump_json())
        room.progress("learn", online.steps, online.steps)
        room.whole("notes", Notes, lambda: [notes])
        with plug_in("learner"):
            checkpoint = trainee.finish()
    settle(room.folder("learn"))
    return [folder.relative(checked_checkpoint(checkpoint))]


@contextmanager
def opened(game: Game, online: Online, state: RunState, folder: RunDir) -> Iterator[Trainee]:
    """The trainee of round t, at its last snapshot if it was killed after one."""
    start, out = folder.located(state.checkpoint), folder.room(state.round).folder("learn")
    seed = seeds.child(state.seed, "learn", state.round)
    with ExitStack() as stack:
        with plug_in("learner"):
            trainee = stack.enter_context(
                online.learner(start, reference=game.theta_0, out=out, seed=seed, round=state.round)
            )
        yield trainee


def stream_of(game: Game, online: Online, state: RunState, known: StreamState) -> PromptStream:
    """The stream of the run, where it stood."""
    creator = game.creator
    return PromptStream(
        state.pool,
        creator if isinstance(creator, StreamCreator) else None,
        batch=online.batch,
        planned=game.rounds * online.steps,
        seed=state.seed,
        gates=game.gates,
        state=known,
    )


def entered(trainee: Trainee, online: Online, state: RunState, folder: RunDir) -> Notes:
    """The notes that a round goes on with: those of its snapshot, else those of the last round.

    Raises:
        PlugInError: The learner goes on from a snapshot with other notes than it was given there.
    """
    if not trainee.step:
        return Notes(stream=before(state, folder))
    step = state.round * online.steps + trainee.step
    try:
        notes = Notes.model_validate_json(trainee.notes or "")
    except ValidationError as error:
        raise PlugInError(
            f"the learner goes on from mini-batch {trainee.step} without the notes that were kept "
            f"there; expected what `keep` was given, not {trainee.notes!r:.60}"
        ) from error
    if notes.stream.step != step:
        raise PlugInError(
            f"the learner goes on from mini-batch {step} of the run with the notes of "
            f"{notes.stream.step}; expected what `keep` was given there"
        )
    return notes


def before(state: RunState, folder: RunDir) -> StreamState:
    """Where the stream stood when round t began."""
    if not state.round:
        return StreamState()
    return folder.room(state.round - 1).read("notes", Notes)[0].stream


def tallied(logged: Mapping[str, Tally], metrics: Mapping[str, float]) -> dict[str, Tally]:
    """The tallies after one more mini-batch; what is not finite is missing there."""
    found = dict(logged)
    for name, value in sorted(metrics.items()):
        if math.isfinite(value):
            known = found.get(name, Tally())
            found[name] = Tally(total=known.total + value, count=known.count + 1)
    return found


def measures(game: Game, online: Online, state: RunState, folder: RunDir) -> dict[str, float]:
    """The metrics that only an online round has; docs/metrics.md says what each one means."""
    notes = folder.room(state.round).read("notes", Notes)[0]
    found = {f"learn/{name}": tally.total / tally.count for name, tally in notes.logged.items()}
    if game.creator is None:
        return found
    then, now = before(state, folder).counts, notes.stream.counts
    evolved, parents = now.evolved - then.evolved, now.parents - then.parents
    found |= {
        "evolved": evolved / (online.steps * online.batch),
        "dropped": float(now.dropped - then.dropped),
        "buffer": float(len(notes.stream.buffer)),
        "waiting": float(len(notes.stream.waiting)),
    }
    found |= {"age": (now.age - then.age) / parents} if parents else {}
    found |= {"wait": (now.wait - then.wait) / evolved} if evolved else {}
    return found
