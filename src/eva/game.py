"""What a game is made of: the seams filled in, and the numbers of the recipe.

`eva.build` makes a `Game` of a recipe; in Python you can make one yourself and play it with
`eva.loop.run`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from eva.protocols import Evolver, Gate, Info, Learner, OpenPolicy, Reward, Select
from eva.records import Checkpoint, Prompt, Refused, Sampling


@dataclass(frozen=True)
class Creator:
    """Who makes the prompts: the pieces of estimate, sample and evolve."""

    info: Info
    """Informativeness of a prompt from its rewards."""
    select: Select
    """How parents are drawn by it."""
    evolver: Evolver | None
    """Who rewrites them; None trains on the parents themselves."""
    keep: float = 0.25
    """Share of the pool that becomes parents."""
    fresh: float = 0.8
    """Share of newborn prompts in the batch; the rest is replayed."""
    replay: Literal["pool", "parents", "first"] = "pool"
    """Where replayed prompts come from: the pool, the parents, or the initial prompts."""
    estimate: Literal["fresh", "last"] = "fresh"
    """Whether the current policy answers the pool, or the last lessons' rewards serve again."""
    start: int = 1
    """The first round in which the creator is awake."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out prompts that every checkpoint answers, greedily and sampled."""

    sets: Mapping[str, tuple[Prompt, ...]]
    """The prompts by the name of their set."""
    reward: Reward
    """What scores the answers."""
    max_tokens: int
    """Upper bound on new tokens."""
    samples: int = 3
    """Sampled responses per prompt, beside the greedy one."""
    temperature: float = 1.0
    """Of the sampled responses."""
    every: int = 1
    """Rounds between evaluations; the first and the last checkpoint are always measured."""
    solved_at: float | None = None
    """The reward from which a response counts as right."""


@dataclass(frozen=True)
class Game:
    """All that a game needs besides its state and its folder."""

    prompts: tuple[Prompt, ...]
    """X_0."""
    theta_0: Checkpoint
    """The policy that the game starts from."""
    open_policy: OpenPolicy
    """Opens a checkpoint as a policy."""
    reward: Reward
    """r(x, y)."""
    learner: Learner
    """The solver's update."""
    rounds: int
    """How many rounds are played."""
    seed: int = 1
    """Names every random draw."""
    n: int = 6
    """Responses per prompt, G."""
    sampling: Sampling = field(default_factory=Sampling)
    """How training responses are drawn."""
    chunk: int = 1024
    """Prompts in one chunk of a long stage."""
    creator: Creator | None = None
    """None trains on given prompts only."""
    new_prompts: tuple[Prompt, ...] = ()
    """If there are any: plain rounds from 1 on train on the next |X_0| of these."""
    gates: tuple[Gate, ...] = ()
    """What a newborn prompt must pass."""
    refused: tuple[Refused, ...] = ()
    """Given prompts that could not be used, with the reason."""
    evaluation: Evaluation | None = None
    """What is measured on the way."""

    def creator_at(self, t: int) -> Creator | None:
        """The creator, if it is awake in round t."""
        return self.creator if self.creator and t >= self.creator.start else None
