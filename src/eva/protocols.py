"""Where users plug in: function signatures. Nothing is subclassed and nothing is registered.

Arrays carry their axes in their names: P prompts, G responses per prompt, K chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from eva.records import (
    Checkpoint,
    Child,
    Message,
    Prompt,
    Response,
    Rollout,
    Sampling,
    ScoredPrompt,
)

Floats_P_G: TypeAlias = NDArray[np.float64]
"""Rewards: shape [P, G], in reward units, NaN where missing."""
Floats_P: TypeAlias = NDArray[np.float64]
"""One number per prompt: shape [P], NaN where there is none."""
Index_K: TypeAlias = NDArray[np.intp]
"""Positions of the chosen: shape [K], distinct, each in [0, P)."""
Floats: TypeAlias = NDArray[np.float64]
"""Any other array of numbers; its docstring says the shape."""


class Policy(Protocol):
    """pi(y|x): answers prompts."""

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts.

        The randomness of one prompt is ``seeds.rng(seed, prompt.id)``: its answers do not depend on
        which other prompts are asked beside it.
        """
        ...


class Reward(Protocol):
    """r(x, y) for whole groups, so that pairwise models and judges fit too."""

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G]; NaN marks one that could not be had."""
        ...


class Evolver(Protocol):
    """Writes children of informative prompts."""

    def __call__(
        self, parents: Sequence[ScoredPrompt], policy: Policy, *, seed: int
    ) -> list[Child]:
        """Children of all parents; one that failed is returned with its flaw.

        `policy` is the current solver, for evolvers that let the model write its own prompts. The
        parents come chunk by chunk with the same seed: draw from ``seeds.rng(seed,
        parent.prompt.id)``, so that children do not depend on how parents are cut. One that shows a
        parent beside others takes those of the same call: `chunk` of the recipe cannot change.
        """
        ...


class Learner(Protocol):
    """The solver's update: weights in, weights out."""

    def __call__(
        self, start: Checkpoint, lessons: Sequence[Rollout], *, out: Path, seed: int
    ) -> Checkpoint:
        """The updated checkpoint, written below the folder `out`.

        `out` is empty, or holds what a killed attempt of this very update left: go on from that,
        or clear it.
        `start.uri` can be opened as it stands; it is also the reference policy of the round.
        """
        ...


class Trainee(Protocol):
    """A policy that learns while it answers: one round of an online learner.

    A mini-batch is answered by `policy`, rewarded, and handed to `learn`; then the next one. Its
    weights are those after the last `learn`, so nothing that it answers is stale.
    """

    @property
    def step(self) -> int:
        """Mini-batches learnt so far in this round; above 0 where a snapshot is gone on from."""
        ...

    @property
    def notes(self) -> str | None:
        """What was kept with that snapshot; None where there is none."""
        ...

    @property
    def policy(self) -> Policy:
        """pi(y|x) with the weights as they are now."""
        ...

    def learn(self, lessons: Sequence[Rollout]) -> dict[str, float]:
        """Update the weights by one mini-batch; its metrics. `step` grows by one."""
        ...

    def keep(self, notes: str) -> None:
        """Write a snapshot, `notes` with it, whole or not at all; a killed round goes on from it.

        Called after `learn`; whether this step writes one is the learner's to decide.
        """
        ...

    def finish(self) -> Checkpoint:
        """Write the checkpoint of the round, and remove its snapshots."""
        ...


class OnlineLearner(Protocol):
    """The solver's update where it samples for itself: opens weights as a `Trainee`."""

    def __call__(
        self, start: Checkpoint, *, reference: Checkpoint, out: Path, seed: int, round: int
    ) -> AbstractContextManager[Trainee]:
        """Open `start` for a round; leaving the context gives the memory back.

        Weights after a mini-batch must be those that the same lessons gave before a kill: what was
        sampled with them is read, not sampled again.

        Args:
            start: The weights that the round begins with.
            reference: theta_0 of the game, for penalties that pull towards it.
            out: The folder of the update. It holds what a killed attempt of the same update left.
            seed: The seed of this update.
            round: t, for schedules that span rounds.
        """
        ...


@dataclass(frozen=True)
class Around:
    """What a child may be compared with."""

    parents: Mapping[str, Prompt] = field(default_factory=dict)
    """By id: the prompts that were rewritten, earlier children of a chain among them."""
    pool: Sequence[Prompt] = ()
    """The pool of the round."""
    history: Sequence[Prompt] = ()
    """Prompts that were born in earlier rounds."""


class Screen(Protocol):
    """A gate that sees a child in its surroundings: its parent, its siblings, the pool."""

    @property
    def name(self) -> str:
        """What a refused child records as its gate."""
        ...

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it cannot become a prompt, or None.

        The children are those that nothing refused before, in the order in which they were written.
        The verdicts depend on the arguments alone: a run that was killed asks again.
        """
        ...


@runtime_checkable
class Releasable(Protocol):
    """A reward, evolver or screen that holds a model or a server; optional.

    Before the learner starts eva asks it to give the memory back; it opens again when next called.
    """

    def release(self) -> None:
        """Give the memory back."""
        ...


Following: TypeAlias = Callable[[int, Response | None], Prompt | None]
"""(number of a chain, its latest answer) -> what is asked next in it, or None at its end; the
answer is None where nothing was asked yet."""


@runtime_checkable
class Chaining(Protocol):
    """A policy that asks on in one chain while others still wait for an answer; optional.

    It gives the texts that asking all chains step by step would give; token ids and
    log-probabilities may be left out.
    """

    def chains(self, count: int, following: Following, *, sampling: Sampling, seed: int) -> None:
        """Ask chains number 0 to `count` - 1 to their ends, one response to each prompt.

        `following` may be called from another thread, but never twice at a time, and must not ask
        this policy.
        """
        ...


OpenPolicy: TypeAlias = Callable[[Checkpoint], AbstractContextManager[Policy]]
"""Opens a checkpoint as a policy; leaving the context gives the memory back."""
Info: TypeAlias = Callable[[Floats_P_G], Floats_P]
"""Informativeness of each prompt from its rewards; pure."""
Select: TypeAlias = Callable[[Floats_P, int, np.random.Generator], Index_K]
"""Draws K of P prompts by their informativeness; pure but for the generator."""
Share: TypeAlias = Callable[[int, int], float]
"""Share of evolved prompts in a mini-batch, in [0, 1], of its number and that of all; pure."""
Gate: TypeAlias = Callable[[Sequence[Message]], str | None]
"""Says why a chat cannot become a prompt, or None if it can."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Told the stage, how much is done and how much there is."""
