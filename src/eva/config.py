"""The recipe of a run: what is chosen, checked before any work is done.

A recipe is a tree of frozen parts (`eva.parts`); a part that can be of several kinds is told apart
by its key `kind`. Unknown keys are refused. Every default is a choice, and its reason stands below
the field. This is data alone: it imports no plug-in, and `eva.build` turns parts into objects.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from eva.parts import Part
from eva.parts.creators import CreatorPart, StreamCreator
from eva.parts.learners import (
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
from eva.parts.policies import HttpPolicy, PolicyPart
from eva.parts.prompts import PromptsPart
from eva.parts.rewards import (
    JudgeReward,
    LengthReward,
    PairwiseReward,
    RewardPart,
    SumReward,
)
from eva.records import Sampling

# ---------------------------------------------------------------- evaluation


class Monitor(Part):
    """A held-out reward on the same answers, to see over-optimisation.

    It falls while the training reward rises when the policy learns to please a reward model.
    """

    reward: RewardPart
    """The held-out reward; it must judge a response by itself."""
    drop: float = Field(default=2.0, gt=0.0)
    """The alarm: since an earlier checkpoint the reward rose, and the monitor fell, both by more
    than so many standard errors of the paired differences."""
    stop: bool = False
    """Whether the run ends at the alarm; else it is logged, and is the metric `overoptimised`."""


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
    monitor: Monitor | None = None
    """A second reward that is never trained on, to see over-optimisation."""


def _compares(part: RewardPart) -> bool:
    """Whether a reward is one response's standing among others."""
    match part:
        case SumReward():
            return any(_compares(term.reward) for term in part.terms)
        case LengthReward():
            return _compares(part.of)
        case JudgeReward():
            return part.mode == "pairs"
        case _:
            return isinstance(part, PairwiseReward)


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
    learn_from: Literal["last", "theta_0"] = "last"
    """Where the update of a round starts, which is also its reference: the checkpoint that answered
    (the paper's), or theta_0 again, "from scratch", on what the later checkpoint answered."""
    evaluate: Evaluate | None = None
    """What is measured on the way; null for nothing."""

    @model_validator(mode="after")
    def _creator_or_new(self) -> Self:
        if self.creator is not None and self.new_prompts is not None:
            raise ValueError("creator and new_prompts exclude each other; set one of them to null")
        return self

    @model_validator(mode="after")
    def _learner_fits_policy(self) -> Self:
        own, toy, kind = Update | Command | Trl, ToyLearner | ToyOnline, self.policy.kind
        fits = {kind}
        if isinstance(self.learner, toy):
            fits = {"toy"}
        elif isinstance(self.learner, Online):
            fits = {"hf"}  # it samples the weights that it learns
        elif isinstance(self.learner, own):
            fits = {"hf", "vllm", "http"}
        if kind not in fits:
            raise ValueError(
                f"learner kind {self.learner.kind!r} needs a policy of kind "
                f"{' or '.join(repr(fit) for fit in sorted(fits))}, not {kind!r}"
            )
        policy = self.policy
        keeps = isinstance(policy, HttpPolicy) and policy.urls and policy.reload == "none"
        if keeps and isinstance(self.learner, own):
            raise ValueError(
                "policy.reload is none, so its servers would answer with theta_0 for ever: say how "
                "they load new weights (vllm or eva), or let eva start them (policy.serve)"
            )
        return self

    @model_validator(mode="after")
    def _measures_alone(self) -> Self:
        held_out = self.evaluate
        if held_out is None:
            return self
        measures = [held_out.reward or self.reward]
        measures += [held_out.monitor.reward] if held_out.monitor else []
        if any(map(_compares, measures)):
            raise ValueError(
                "a reward that compares the responses of a group cannot measure a checkpoint: give "
                "evaluate.reward (and evaluate.monitor) one that judges each response by itself"
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
        if is_online and self.learn_from != "last":
            raise ValueError(
                f"learner kind {self.learner.kind!r} learns from what it has just sampled, so "
                "learn_from is last; theta_0 is for learners that take lessons"
            )
        if self.creator is not None and isinstance(self.creator, StreamCreator) != is_online:
            needed = "stream" if is_online else "rounds"
            raise ValueError(
                f"learner kind {self.learner.kind!r} needs a creator of kind {needed!r}, not "
                f"{self.creator.kind!r}: write the creator with kind {needed} (a part of another "
                "kind takes over no key of the old one)"
            )
        return self
