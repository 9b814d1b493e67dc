"""The recipe of a run: what is chosen, checked before any work is done.

A recipe is a tree of frozen parts; a part that can be of several kinds is told apart by its key
`kind`. Unknown keys are refused. Every default is a choice, and its reason stands below the field.
This module is data alone: it imports no plug-in, and `eva.build` turns its parts into objects.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from eva.learners import (
    Command,
    Grpo,
    LearnerPart,
    Online,
    Rloo,
    ToyLearner,
    ToyOnline,
    Trl,
    Update,
)
from eva.parts import Part, PythonCall
from eva.records import Sampling

# ---------------------------------------------------------------- policies


class HfPolicy(Part):
    """A causal language model in Hugging Face format, sampled in this process."""

    kind: Literal["hf"] = "hf"
    model: str
    """A folder or a hub id; "playground" is the small model that ships with eva."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    device: str = "auto"
    """"auto" takes CUDA if there is one, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto": bfloat16 on CUDA, float32 on a CPU, where bfloat16 casts cost more than they save."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch; null leaves them to torch. Small models are fastest with 1, and seeds
    run side by side in processes."""
    rows: int = Field(default=2048, ge=1)
    """Responses that are sampled side by side; bounds the memory of the key-value cache."""


class ToyPolicy(Part):
    """The world of numbers: a policy is one number, its skill."""

    kind: Literal["toy"] = "toy"
    skill: float = 0.0
    """The skill of theta_0."""


PolicyPart: TypeAlias = Annotated[HfPolicy | ToyPolicy, Field(discriminator="kind")]

# ---------------------------------------------------------------- prompts


class FilePrompts(Part):
    """Prompts from a JSON-lines or Parquet file."""

    kind: Literal["jsonl", "parquet"]
    path: str
    """The file; relative to the recipe that names it."""
    column: str = "prompt"
    """The column: a text (one user turn) or a list of {role, content} turns."""
    data: tuple[str, ...] = ()
    """Further columns that the reward needs; they become `Prompt.data`."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many."""


class DatasetPrompts(Part):
    """Prompts from the `datasets` library: a hub id, or a folder that `save_to_disk` wrote."""

    kind: Literal["dataset"]
    path: str
    """A hub id or a folder."""
    split: str = "train"
    """The split."""
    column: str = "prompt"
    """The column: a text (one user turn) or a list of {role, content} turns."""
    data: tuple[str, ...] = ()
    """Further columns that the reward needs; they become `Prompt.data`."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many."""


class PlaygroundPrompts(Part):
    """Prompts of the constraint language, drawn by seed."""

    kind: Literal["playground"]
    set: Literal["x0", "new", "eval_x0", "eval_hard", "hard"] = "x0"
    """"x0" the initial prompts; "new" fresh ones of the same distribution; "hard" fresh ones of the
    hard distribution (the oracle arm); "eval_x0" and "eval_hard" the held-out sets."""
    n: int = Field(default=256, ge=1)
    """How many."""
    seed: int | None = None
    """Which draw; None takes the seed of the run. The held-out sets ignore it: they are fixed."""


class ToyPrompts(Part):
    """Numbers, the difficulty of each drawn from [0, 1)."""

    kind: Literal["toy"]
    n: int = Field(default=64, ge=1)
    """How many."""
    low: float = 0.0
    """The least difficulty."""
    high: float = 1.0
    """The greatest difficulty."""
    seed: int | None = None
    """Which draw; None takes the seed of the run, and a fixed one for a held-out set."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}; give a range")
        return self


PromptsPart: TypeAlias = Annotated[
    FilePrompts | DatasetPrompts | PlaygroundPrompts | ToyPrompts, Field(discriminator="kind")
]

# ---------------------------------------------------------------- rewards


class RulesReward(Part):
    """A Python function `(prompt: Prompt, response: Response) -> float`, for one response."""

    kind: Literal["rules"]
    call: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """"module:function"; the folder of the recipe and the working directory are searched too."""


class PlaygroundReward(Part):
    """The verifier of the constraint language."""

    kind: Literal["playground"]
    form: Literal["graded", "binary", "noisy"] = "graded"
    """"graded": half for the share of constraints that hold, half for all of them; "binary": 1 if
    all hold, else 0; "noisy": graded plus a fixed error of each (prompt, response)."""
    sigma: float = Field(default=0.15, ge=0.0)
    """Standard deviation of that error, in reward units."""
    noise_seed: int = 0
    """Which draw of that error."""


class ToyReward(Part):
    """How far the answer exceeds the difficulty, squashed to (0, 1)."""

    kind: Literal["toy"]


RewardPart: TypeAlias = Annotated[
    RulesReward | PlaygroundReward | ToyReward | PythonCall, Field(discriminator="kind")
]

# ---------------------------------------------------------------- creator

InfoName: TypeAlias = Literal[
    "a_min", "a_avg", "a_dts", "var", "avg", "inv_avg", "inv_a_min", "uniform", "learnability"
]


class Proportional(Part):
    """Without replacement, proportional to min-max weights: the paper's. Never draws the lowest."""

    kind: Literal["proportional"] = "proportional"
    keep: float = Field(default=0.25, gt=0.0, le=1.0)
    """Share of the pool that is drawn. Default: the authors' released code."""
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the probability spread evenly over all prompts; 0 is the paper's."""


class OtherSelect(Part):
    """Rank-proportional, greedy (the top), stratified by quantile, or uniform."""

    kind: Literal["rank", "greedy", "stratified", "uniform"]
    keep: float = Field(default=0.25, gt=0.0, le=1.0)
    """Share of the pool that is drawn."""


def _proportional_unless_said(part: object) -> object:
    return {"kind": "proportional", **part} if isinstance(part, dict) else part


SelectPart: TypeAlias = Annotated[
    Annotated[Proportional | OtherSelect, Field(discriminator="kind")],
    BeforeValidator(_proportional_unless_said),
]


class PlaygroundEvolver(Part):
    """The rule-based evolver of the constraint language."""

    kind: Literal["playground"]
    children: int = Field(default=4, ge=1)
    """Children of each parent. Default: the paper's 4, so that 25 % of the pool refills it."""
    chained: bool = False
    """Whether child k rewrites child k-1 (the paper's) or the parent. In this language four chained
    steps soon leave what can be solved, so the default is off: our choice."""
    in_depth: float = Field(default=0.75, ge=0.0, le=1.0)
    """Share of in-depth rewrites (add or tighten); the rest is in-breadth (replace)."""


class ToyEvolver(Part):
    """Adds a step to the difficulty."""

    kind: Literal["toy"]
    children: int = Field(default=4, ge=1)
    """Children of each parent."""
    step: float = Field(default=0.5, gt=0.0)
    """Greatest step."""


EvolvePart: TypeAlias = Annotated[
    PlaygroundEvolver | ToyEvolver | PythonCall, Field(discriminator="kind")
]


class Creator(Part):
    """How prompts are estimated, sampled and evolved (Algorithm 1, the creator's step)."""

    kind: Literal["rounds"] = "rounds"
    start: int = Field(default=1, ge=0)
    """The first round in which the creator is awake; the rounds before are plain training on the
    initial prompts. Default 1: the paper's theta_0 -> theta_1 comes first."""
    estimate: Literal["fresh", "last"] = "fresh"
    """"fresh": the current policy answers the whole pool (the paper's, offline); "last": the
    rewards of the last round's lessons serve again, which costs no samples."""
    info: InfoName | PythonCall = "a_min"
    """Informativeness metric; the paper's offline default."""
    select: SelectPart = Field(default_factory=Proportional)
    """How parents are drawn."""
    evolve: EvolvePart | None
    """Who rewrites them; null trains on the parents themselves (the paper's no-evolve arms)."""
    fresh: float = Field(default=0.8, gt=0.0, le=1.0)
    """Share of newborn prompts in the lessons; the rest is replayed. Default: the released code."""
    replay: Literal["pool", "parents", "first"] = "pool"
    """Where replayed prompts come from: the pool (the paper's), the parents, or the initial
    prompts X_0, which holds in-distribution quality."""

    @model_validator(mode="after")
    def _has_a_pool_to_estimate(self) -> Self:
        if self.evolve is None and self.estimate == "last":
            raise ValueError(
                "evolve null needs estimate fresh: the last lessons are the last parents alone, "
                "and a quarter of a quarter is soon nothing"
            )
        return self


class StreamCreator(Part):
    """The creator beside an online learner: it works after every mini-batch, on a buffer.

    The paper names a prioritised generative buffer and three phases, and gives no numbers: all
    values are our choice. In the warm-up the policy trains on given prompts alone while the buffer
    fills with scores; in the mix-up the share of evolved prompts rises linearly to `evolved`; in
    the bootstrap phase it is `bootstrap`.
    """

    kind: Literal["stream"]
    info: InfoName | PythonCall = "a_avg"
    """Informativeness metric, on the responses that the mini-batch has anyway; the paper's online
    default."""
    select: SelectPart = Field(default_factory=Proportional)
    """How parents are drawn from the buffer; `keep` is their number as a share of the evolved
    prompts that the next mini-batch takes."""
    evolve: EvolvePart
    """Who rewrites them."""
    buffer: int = Field(default=1024, ge=1)
    """Scored prompts that are remembered; beyond that the least informative is forgotten."""
    max_age: int | None = Field(default=None, ge=1)
    """Mini-batches after which a score is stale and its prompt is forgotten; null for never."""
    warmup: float = Field(default=0.125, ge=0.0, le=1.0)
    """Length of the warm-up, as a share of all mini-batches of the run."""
    mixup: float = Field(default=0.25, ge=0.0, le=1.0)
    """Length of the mix-up, as a share of all mini-batches of the run."""
    evolved: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of evolved prompts in a mini-batch at the end of the mix-up."""
    bootstrap: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of evolved prompts after the mix-up; 1 trains on evolved prompts alone."""

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.warmup + self.mixup > 1.0:
            raise ValueError(
                f"warmup {self.warmup} and mixup {self.mixup} are more than the whole run; give "
                "shares that add up to at most 1"
            )
        return self


def _rounds_unless_said(part: object) -> object:
    return {"kind": "rounds", **part} if isinstance(part, dict) else part


CreatorPart: TypeAlias = Annotated[
    Annotated[Creator | StreamCreator, Field(discriminator="kind")],
    BeforeValidator(_rounds_unless_said),
]

# ---------------------------------------------------------------- evaluation


class Evaluate(Part):
    """Held-out prompts, answered greedily and sampled, by every checkpoint."""

    sets: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], PromptsPart] = Field(min_length=1)
    """The prompts by name, e.g. {hard: ..., x0: ...}; always the same ones, whatever the seed."""
    reward: RewardPart | None = None
    """What scores them; null takes the training reward. It must judge a response by itself: a
    reward that compares the responses of a group says nothing about a checkpoint."""
    samples: int = Field(default=3, ge=1)
    """Responses per prompt at `temperature`, beside the greedy one."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Of the sampled responses."""
    every: int = Field(default=1, ge=1)
    """Rounds between evaluations; the first and the last checkpoint are always measured."""
    solved_at: float | None = None
    """The reward from which a response counts as right, for the metric `accuracy`."""


# ---------------------------------------------------------------- the recipe


class Recipe(Part):
    """One run, whole: every choice with its default."""

    name: str = Field(pattern=r"^[\w-][\w.-]*$")
    """A short name, used for folders and in tables."""
    seed: int = 1
    """Names every random draw of the run."""
    rounds: int = Field(ge=1)
    """How many rounds are played."""
    n: int = Field(default=6, ge=2)
    """Responses per prompt, G. Default: the paper's offline runs."""
    sampling: Sampling = Field(default_factory=Sampling)
    """How training responses are drawn."""
    chunk: int = Field(default=1024, ge=1)
    """Prompts in one chunk: what a kill can lose of a stage."""
    policy: PolicyPart
    """theta_0, and how it is sampled."""
    prompts: PromptsPart
    """X_0."""
    new_prompts: PromptsPart | None = None
    """If given, each round from 1 on trains on the next |X_0| of these; needs `creator: null`."""
    reward: RewardPart
    """r(x, y)."""
    creator: CreatorPart | None = None
    """The creator; null trains on given prompts only."""
    learner: LearnerPart
    """The solver's update."""
    evaluate: Evaluate | None = None
    """What is measured on the way; null for nothing."""

    @model_validator(mode="after")
    def _creator_or_new(self) -> Self:
        if self.creator is not None and self.new_prompts is not None:
            raise ValueError("creator and new_prompts exclude each other; set one of them to null")
        return self

    @model_validator(mode="after")
    def _learner_fits_policy(self) -> Self:
        own, toy = Update | Command | Trl, ToyLearner | ToyOnline
        needed = "hf" if isinstance(self.learner, own) else self.policy.kind
        needed = "toy" if isinstance(self.learner, toy) else needed
        if self.policy.kind != needed:
            raise ValueError(
                f"learner kind {self.learner.kind!r} needs a policy of kind {needed!r}, not "
                f"{self.policy.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _samples_the_policy(self) -> Self:
        is_whole = self.sampling.temperature == 1.0 and self.sampling.top_p == 1.0
        if isinstance(self.learner, Rloo | Grpo) and not is_whole:
            raise ValueError(
                f"learner kind {self.learner.kind!r} follows the gradient of the policy itself, so "
                f"it needs sampling.temperature 1 and sampling.top_p 1, not "
                f"{self.sampling.temperature:g} and {self.sampling.top_p:g}"
            )
        return self

    @model_validator(mode="after")
    def _creator_fits_learner(self) -> Self:
        is_online = isinstance(self.learner, Online | ToyOnline)
        if self.creator is not None and isinstance(self.creator, StreamCreator) != is_online:
            needed = "stream" if is_online else "rounds"
            raise ValueError(
                f"learner kind {self.learner.kind!r} needs a creator of kind {needed!r}, not "
                f"{self.creator.kind!r}: write the creator with kind {needed} (a part of another "
                "kind takes over no key of the old one)"
            )
        return self
