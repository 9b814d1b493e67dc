"""The creator beside a learner that samples for itself: a stream of mini-batches that never ends.

    batch = stream.next_batch()     given and evolved prompts, as the phase says
    ...                             a trainer answers them, rewards the answers and learns
    stream.observe(rollouts)        estimate, on the answers that are there anyway
    stream.evolve(policy)           sample and evolve; sound children wait for their mini-batch

The paper names a prioritised generative buffer and gives no details; what stands below is our
choice. A stream knows neither folders nor learners: `eva.online` plays with it, and so can the loop
of another trainer, which keeps `stream.state` (one frozen record) with its weights.
"""

from collections.abc import Sequence

import numpy as np

from eva import seeds
from eva.formulas.phases import evolved_of, parents_of
from eva.game import StreamCreator
from eva.protocols import Around, Gate, Index_K, Policy
from eva.records import Child, Prompt, Record, Rollout, ScoredPrompt
from eva.stages import admit, drawn, grown, rewritten, score


class Remembered(Record):
    """A scored prompt in the buffer."""

    scored: ScoredPrompt
    """The prompt with its informativeness."""
    step: int
    """Mini-batches handed out when it was scored."""


class Waiting(Record):
    """A newborn prompt that no mini-batch has taken yet."""

    prompt: Prompt
    """The prompt."""
    step: int
    """Mini-batches handed out when it was written."""


class Counts(Record):
    """Sums over the life of a stream; means of a round are made of differences."""

    parents: int = 0
    """Parents drawn."""
    age: int = 0
    """Ages of the scores that they were drawn by, in mini-batches."""
    evolved: int = 0
    """Evolved prompts handed out."""
    wait: int = 0
    """Mini-batches that those had waited."""
    dropped: int = 0
    """Sound children that gave way to younger ones before a mini-batch took them."""


class Pass(Record):
    """Where a pass over the given prompts stands."""

    over: str = ""
    """Digest of the given prompts; a pass over others begins anew."""
    number: int = 0
    """Passes finished before."""
    visited: int = 0
    """Prompts visited in this pass."""
    late: tuple[int, ...] = ()
    """Positions that come last: the mini-batch in which this pass began held them already."""


class StreamState(Record):
    """All that a stream knows, as one record."""

    step: int = 0
    """Mini-batches handed out."""
    lap: Pass = Pass()
    """The pass over the given prompts."""
    buffer: tuple[Remembered, ...] = ()
    """The scored prompts that are remembered, those scored longest ago first."""
    waiting: tuple[Waiting, ...] = ()
    """The newborn prompts that wait, the oldest first."""
    seen: tuple[str, ...] = ()
    """Ids of all children that were ever written; none is admitted again."""
    counts: Counts = Counts()
    """What the metrics are made of."""


class PromptStream:
    """Hands out mini-batches and, from what is observed on them, makes the prompts of later ones.

    Attributes:
        state: All that it knows; given to a new stream, that one goes on from here.
    """

    def __init__(
        self,
        given: Sequence[Prompt],
        creator: StreamCreator | None,
        *,
        batch: int,
        planned: int,
        seed: int,
        gates: Sequence[Gate] = (),
        state: StreamState | None = None,
    ) -> None:
        """Begin a stream, or go on with one.

        Args:
            given: The given prompts, distinct, at least `batch` of them.
            creator: None hands out given prompts only.
            batch: Prompts in a mini-batch.
            planned: Mini-batches of the whole run, of which the phases are shares.
            seed: Names every random draw.
            gates: What a newborn prompt must pass.
            state: Where another stream stood.

        Raises:
            ValueError: A mini-batch is larger than the number of given prompts.
        """
        if batch > len(given):
            raise ValueError(
                f"a mini-batch of {batch} holds each prompt at most once, and {len(given)} are "
                "given; give more prompts or a smaller batch"
            )
        self._given, self._gates, self._creator = tuple(given), tuple(gates), creator
        self._batch, self._planned, self._seed = batch, planned, seed
        over, known = seeds.digest(prompt.id for prompt in given), state or StreamState()
        lap = known.lap if known.lap.over == over else Pass(over=over)
        self.state = known.model_copy(update={"lap": lap})

    def wanted(self) -> int:
        """Evolved prompts that the next mini-batch takes, if so many wait."""
        if self._creator is None:
            return 0
        return evolved_of(self._creator.share(self.state.step, self._planned), self._batch)

    def next_batch(self) -> list[Prompt]:
        """The next mini-batch: evolved prompts that waited longest, then given ones; all distinct.

        What waiting children cannot fill, given prompts fill.
        """
        now, wanted = self.state, self.wanted()
        taken, counts = now.waiting[:wanted], now.counts
        lap, visited = self._visited(self._batch - len(taken))
        wait = sum(now.step - child.step for child in taken)
        counts = counts.model_copy(
            update={"evolved": counts.evolved + len(taken), "wait": counts.wait + wait}
        )
        self.state = now.model_copy(
            update={
                "step": now.step + 1,
                "lap": lap,
                "waiting": now.waiting[wanted:],
                "counts": counts,
            }
        )
        return [*(child.prompt for child in taken), *(self._given[i] for i in visited)]

    def observe(self, rollouts: Sequence[Rollout]) -> list[ScoredPrompt]:
        """Estimate: the informativeness of a mini-batch's prompts, which is remembered."""
        assert self._creator is not None
        scored = score(rollouts, self._creator.info)
        self.remember(scored)
        return scored

    def remember(self, scored: Sequence[ScoredPrompt]) -> None:
        """Put scores into the buffer, and forget what it cannot hold.

        A score takes the place of the older one of the same prompt; a prompt without a score (its
        rewards are missing) changes nothing. Then scores beyond `max_age` are forgotten, and beyond
        the size of the buffer the least informative, among equals those scored longest ago.
        """
        assert self._creator is not None
        now, oldest = self.state.step, self._creator.max_age
        latest = {known.scored.prompt.id: known for known in self.state.buffer}
        for one in scored:
            if one.info is not None:
                latest.pop(one.prompt.id, None)
                latest[one.prompt.id] = Remembered(scored=one, step=now)
        young = [m for m in latest.values() if oldest is None or now - m.step <= oldest]
        info_P = np.array([known.scored.info for known in young])
        ranked = np.argsort(-info_P[::-1], kind="stable")[: self._creator.buffer]
        kept = sorted(len(young) - 1 - int(i) for i in ranked)
        self.state = self.state.model_copy(update={"buffer": tuple(young[i] for i in kept)})

    def parents(self) -> list[ScoredPrompt]:
        """Sample: parents for the next mini-batch, drawn from the buffer; none while it is asleep.

        They are a share `keep` of the evolved prompts that it takes, rounded up.
        """
        wanted = self.wanted()
        if self._creator is None or not wanted or not self.state.buffer:
            return []
        K = parents_of(self._creator.keep, wanted)
        rng = seeds.rng(self._seed, "select", self.state.step)
        return drawn([m.scored for m in self.state.buffer], K, self._creator.select, rng)

    def children(
        self, parents: Sequence[ScoredPrompt], policy: Policy, policy_id: str = "policy"
    ) -> list[Child]:
        """Evolve: what the evolver writes of the parents, each that must not be used with its flaw.

        A child that repeats a given prompt, or any child that was ever written, is refused. Where
        the policy itself writes, `policy_id` is recorded.
        """
        if self._creator is None or not parents:
            return []
        seed = seeds.child(self._seed, "evolve", self.state.step)
        written = rewritten(parents, policy, self._creator.evolver, seed, policy_id)
        history = [m.scored.prompt for m in self.state.buffer]
        around = Around({p.prompt.id: p.prompt for p in parents}, self._given, history)
        return admit(written, around, self._gates, self._creator.screens, self.state.seen)

    def welcome(
        self, parents: Sequence[ScoredPrompt], children: Sequence[Child], born: int = 0
    ) -> None:
        """Let the sound children wait, as prompts born in round `born`.

        At most a mini-batch of them waits: the oldest beyond that are dropped.
        """
        now, counts = self.state, self.state.counts
        ages = {known.scored.prompt.id: now.step - known.step for known in now.buffer}
        waiting = [*now.waiting, *(Waiting(prompt=p, step=now.step) for p in grown(children, born))]
        dropped = max(0, len(waiting) - self._batch)
        counts = counts.model_copy(
            update={
                "parents": counts.parents + len(parents),
                "age": counts.age + sum(ages[parent.prompt.id] for parent in parents),
                "dropped": counts.dropped + dropped,
            }
        )
        seen = dict.fromkeys((*now.seen, *(child.id for child in children)))
        self.state = now.model_copy(
            update={"waiting": tuple(waiting[dropped:]), "seen": tuple(seen), "counts": counts}
        )

    def evolve(self, policy: Policy, born: int = 0, policy_id: str = "policy") -> list[Child]:
        """Sample and evolve for the next mini-batch; the children, flaws included."""
        parents = self.parents()
        children = self.children(parents, policy, policy_id)
        self.welcome(parents, children, born)
        return children

    def _visited(self, n: int) -> tuple[Pass, Index_K]:
        """The pass after n more given prompts, and their positions.

        Each prompt is visited once in a pass. Where a mini-batch reaches into the next pass, what
        it holds already comes last in that pass, so no mini-batch holds a prompt twice.
        """
        lap = self.state.lap
        rest = self._order(lap)[lap.visited :]
        if n <= len(rest):
            return lap.model_copy(update={"visited": lap.visited + n}), rest[:n]
        missing = n - len(rest)
        late = tuple(int(i) for i in rest)
        lap = Pass(over=lap.over, number=lap.number + 1, visited=missing, late=late)
        return lap, np.concatenate([rest, self._order(lap)[:missing]])

    def _order(self, lap: Pass) -> Index_K:
        """The positions of all given prompts in the order of a pass; shape [P]."""
        rng = seeds.rng(self._seed, "given", lap.over, lap.number)
        order_P = rng.permutation(len(self._given))
        is_late_P = np.isin(order_P, lap.late)
        return np.concatenate([order_P[~is_late_P], order_P[is_late_P]])
