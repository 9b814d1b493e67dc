"""Where prompts come from: files, data sets, and eva's two small worlds."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from eva.parts import Part


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
