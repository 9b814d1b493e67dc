"""What a game is made of: the seams filled in, and the numbers of the recipe.

`eva.build` makes a `Game` of a recipe; in Python you can make one yourself and play it with
`eva.loop.run`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from eva.errors import RecipeError
from eva.protocols import (
    Evolver,
    Gate,
    Info,
    Learner,
    OnlineLearner,
    OpenPolicy,
    Reward,
    Screen,
    Select,
    Share,
)
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
    screens: tuple[Screen, ...] = ()
    """What a newborn prompt must pass, beside the gates of the game."""


@dataclass(frozen=True)
class StreamCreator:
    """Who makes the prompts beside an online learner, after every mini-batch."""

    info: Info
    """Informativeness of a prompt from its rewards."""
    select: Select
    """How parents are drawn by it."""
    evolver: Evolver
    """Who rewrites them."""
    share: Share
    """How many of a mini-batch's prompts are evolved ones, by how far the run is."""
    keep: float = 0.25
    """Parents, as a share of the evolved prompts that the next mini-batch takes."""
    buffer: int = 1024
    """Scored prompts that are remembered."""
    max_age: int | None = None
    """Mini-batches after which a score is forgotten; None for never."""
    screens: tuple[Screen, ...] = ()
    """What a newborn prompt must pass, beside the gates of the game."""


@dataclass(frozen=True)
class Online:
    """A learner that samples for itself, and how long a round of it is."""

    learner: OnlineLearner
    """Opens a checkpoint as a trainee."""
    steps: int
    """Mini-batches in a round."""
    batch: int
    """Prompts in a mini-batch."""


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
    monitor: Reward | None = None
    """A held-out reward on the same answers, never trained on."""
    drop: float = 2.0
    """Standard errors by which the reward must have risen and the monitor fallen for an alarm."""
    stop: bool = False
    """Whether the run ends at an alarm."""


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
    learner: Learner | Online
    """The solver's update: on a round's lessons, or mini-batch by mini-batch."""
    rounds: int
    """How many rounds are played."""
    from_scratch: bool = False
    """Whether each round's update starts at theta_0 instead of the checkpoint that answered."""
    seed: int = 1
    """Names every random draw."""
    n: int = 6
    """Responses per prompt, G."""
    sampling: Sampling = field(default_factory=Sampling)
    """How training responses are drawn."""
    chunk: int = 1024
    """Prompts in one chunk of a long stage."""
    creator: Creator | StreamCreator | None = None
    """None trains on given prompts only; a stream creator belongs to an online learner."""
    new_prompts: tuple[Prompt, ...] = ()
    """If there are any: plain rounds from 1 on train on the next |X_0| of these."""
    gates: tuple[Gate, ...] = ()
    """What a newborn prompt must pass."""
    refused: tuple[Refused, ...] = ()
    """Given prompts that could not be used, with the reason."""
    evaluation: Evaluation | None = None
    """What is measured on the way."""

    def __post_init__(self) -> None:
        is_online = isinstance(self.learner, Online)
        if self.creator is not None and isinstance(self.creator, StreamCreator) != is_online:
            needed = "a StreamCreator" if is_online else "a Creator"
            kind = "an online learner" if is_online else "a learner on lessons"
            raise RecipeError(f"{kind} needs {needed}, not {type(self.creator).__name__}")

    def creator_at(self, t: int) -> Creator | None:
        """The creator of rounds, if it is awake in round t."""
        creator = self.creator
        return creator if isinstance(creator, Creator) and t >= creator.start else None
