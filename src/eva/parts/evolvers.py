"""Who writes new prompts."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from eva.parts import Part, PythonCall
from eva.parts.policies import HttpPolicy, WriterPart
from eva.records import Sampling

IN_DEPTH = ("constraints", "deepen", "concretise", "reasoning", "expand")
"""Operators that make a prompt harder (eva/evolve/templates)."""
IN_BREADTH = ("breadth", "persona", "shift_in", "shift_out", "mix", "abstract")
"""Operators that write a new prompt in the spirit of the old one."""
PAPER = ("constraints", "deepen", "concretise", "reasoning", "breadth")
"""The five of the authors' released code, drawn uniformly."""

Processes: TypeAlias = Annotated[int, Field(ge=1)]
"""Processes of this machine that build requests, send and parse side by side, where servers answer
faster than one process can ask (some 3,000 requests a second): docs/bench-evolve.md. `concurrency`
of the model is that of all together."""


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


class EvolInstruct(Part):
    """A language model rewrites prompts by operators, each a text file (WizardLM's EvolInstruct).

    Defaults are those of the authors' released code where they are known.
    """

    kind: Literal["evol_instruct"]
    by: WriterPart
    """Who writes: the current policy ({kind: self}), or another model."""
    children: int = Field(default=4, ge=1)
    """Children of each parent. Default: the paper's 4, so that 25 % of the pool refills it."""
    chained: bool = True
    """Whether child k rewrites child k-1 (the released code) or the parent (the authors' later
    templates); all children are kept."""
    operators: dict[str, Annotated[float, Field(ge=0.0)]] = Field(
        default_factory=lambda: dict.fromkeys(PAPER, 1.0), min_length=1
    )
    """Operators and the weights by which one is drawn for each child."""
    templates: str | None = None
    """A folder with operators of your own, NAME.md each; one of eva's name replaces eva's."""
    sampling: Sampling = Field(
        default_factory=lambda: Sampling(temperature=0.88, top_p=1.0, max_tokens=666)
    )
    """How a rewrite is drawn. Default: the released code."""
    turns: Literal["last", "follow_up"] = "last"
    """"last" rewrites the user turn that a chat ends with, and keeps what stands before it.
    "follow_up" has the current policy answer, drawn by `sampling`, and asks for the user's next
    turn (templates/follow_up.md); no operator is drawn then."""
    processes: Processes = 1

    @model_validator(mode="after")
    def _draws_something(self) -> Self:
        if not any(self.operators.values()):
            raise ValueError("operators have no weight above 0; give at least one")
        _check_processes(self.processes, self.by, asks_policy=self.turns == "follow_up")
        return self


class SelfInstruct(Part):
    """A language model writes prompts from scratch, after examples from the parents.

    The paper's comparison of evolving methods has such a row; its settings are not known, all
    values are our choice.
    """

    kind: Literal["self_instruct"]
    by: WriterPart
    """Who writes: the current policy ({kind: self}), or another model."""
    children: int = Field(default=4, ge=1)
    """New prompts for each parent."""
    examples: int = Field(default=4, ge=1)
    """Prompts that a request shows: the parent, and others drawn from the parents of its chunk."""
    template: str | None = None
    """A text file with {examples}; null takes the one that ships with eva."""
    sampling: Sampling = Field(
        default_factory=lambda: Sampling(temperature=1.0, top_p=1.0, max_tokens=666)
    )
    """How a prompt is drawn."""
    processes: Processes = 1

    @model_validator(mode="after")
    def _can_be_spread(self) -> Self:
        _check_processes(self.processes, self.by, asks_policy=False)
        return self


def _check_processes(processes: int, by: WriterPart, *, asks_policy: bool) -> None:
    """Refuse processes that could not write apart from one another."""
    if processes == 1:
        return
    if not isinstance(by, HttpPolicy) or by.serve is not None or asks_policy:
        raise ValueError(
            f"processes is {processes}: only a model of kind http with urls can be asked by "
            "several at once, and not for follow_up; give such a model, or leave processes out"
        )
    if processes > by.concurrency:
        raise ValueError(
            f"processes is {processes}, but by.concurrency is {by.concurrency}: each needs a "
            "request of its own in flight; raise the one or lower the other"
        )


EvolvePart: TypeAlias = Annotated[
    EvolInstruct | SelfInstruct | PlaygroundEvolver | ToyEvolver | PythonCall,
    Field(discriminator="kind"),
]
