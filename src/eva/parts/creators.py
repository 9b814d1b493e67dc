"""How prompts are estimated, sampled, evolved and judged."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from eva.parts import Part, PythonCall
from eva.parts.evolvers import EvolvePart
from eva.parts.gates import Gates

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
    gates: Gates | None = None
    """What a newborn prompt must pass, beside the model's context, the held-out sets and being new;
    null for nothing more: the paper's."""
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
    gates: Gates | None = None
    """What a newborn prompt must pass, beside the model's context, the held-out sets and being new;
    null for nothing more: the paper's."""
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
