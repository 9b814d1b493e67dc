"""What flows through eva: frozen records that cross every module boundary and every file.

A record is checked when it is made and never changes. Its JSON form is one line of a `.jsonl` file
of the run directory, so a run can be read with `jq` and `less`. Sizes, here and everywhere:
P prompts, G responses per prompt, K chosen, T tokens.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    computed_field,
    model_validator,
)

# Made once: json.dumps makes an encoder for every call that has settings.
_LITERAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_CANONICAL = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a lone surrogate U+{ord(text[error.start]):04X} at character {error.start} is no "
            "Unicode text and cannot be stored; remove it or decode the source as UTF-8"
        ) from error
    return text


def _storable(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        _unicode(_LITERAL.encode(data))
    except ValueError as error:
        if "JSON compliant" not in str(error):
            raise
        raise ValueError(
            "NaN or infinity is no JSON value; write null for what is missing"
        ) from error
    return data


Text: TypeAlias = Annotated[str, AfterValidator(_unicode)]
"""Any Unicode text, of any length; lone surrogates are refused."""
Data: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
"""JSON values by name."""


class Record(BaseModel):
    """A frozen record that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Message(Record):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: Text
    """What is said."""


class Sampling(Record):
    """How a response is drawn from a policy."""

    temperature: float = Field(default=0.7, ge=0.0, allow_inf_nan=False)
    """Divides the logits; 0 is greedy. Default: the authors' released code (offline runs)."""
    top_p: float = Field(default=0.9, gt=0.0, le=1.0)
    """Mass of the nucleus that is kept, in (0, 1]. Default: the authors' released code."""
    max_tokens: int = Field(default=2048, ge=1)
    """Upper bound on new tokens. Default: the authors' released code."""


def content_id(messages: Sequence[Message], data: Mapping[str, JsonValue]) -> str:
    """The identity of a prompt: BLAKE2b of its canonical content, 20 hexadecimal digits."""
    content = [[m.role, m.content] for m in messages]
    return hashlib.blake2b(_CANONICAL.encode([content, data]).encode(), digest_size=10).hexdigest()


class Prompt(Record):
    """A chat that waits for an answer, and where it comes from. Same content, same `id`."""

    messages: tuple[Message, ...] = Field(min_length=1)
    """The chat so far; what the policy answers."""
    data: Data = Field(default_factory=dict)
    """What a reward may need beside the text: a reference answer, constraints."""
    parent: str | None = None
    """The id of the prompt that this one was rewritten from; None for a prompt that was given."""
    method: str = "given"
    """How it was made: "given", or the operator of the evolver, e.g. "in-depth"."""
    change: Text = ""
    """What the operator changed, in words a person reads, e.g. "+ distinct"."""
    by: str = "human"
    """Who wrote it: the name of a data source, a model or a rule set. Never left to a default in
    an evolver, so that rows of one table cannot hide different writers."""
    born: int = Field(default=0, ge=0)
    """The round in which it entered the pool."""

    @computed_field  # type: ignore[prop-decorator]  # python/mypy#14461, as pydantic advises
    @cached_property
    def id(self) -> str:
        """BLAKE2b of messages and data, 20 hexadecimal digits."""
        return content_id(self.messages, self.data)

    @model_validator(mode="before")
    @classmethod
    def _drop_written_id(cls, fields: object) -> object:
        """A stored line carries its id for readers; it is computed again from the content."""
        return _without(fields, "id")


class Response(Record):
    """One answer of a policy."""

    text: Text
    """The decoded answer, without special tokens."""
    finish: Literal["stop", "length", "error"] = "stop"
    """Whether the policy ended its answer itself or was cut at the token limit; "error": there is
    no answer (a server refused the prompt), and its reward is missing, whatever the reward says."""
    error: Text | None = None
    """Why there is no answer, where `finish` is "error"."""
    tokens: tuple[int, ...] | None = None
    """Token ids as sampled, the end token included if it was sampled; None where the back end does
    not know them. The learner trains on these; where they are None, on the text tokenised again."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each token under the model's own softmax (temperature 1, no
    nucleus), rounded to 1e-5; None where it is not free."""

    @model_validator(mode="after")
    def _error_has_a_reason(self) -> Self:
        if (self.finish == "error") != (self.error is not None):
            raise ValueError(
                f"a response with finish {self.finish!r} and error {self.error!r}; expected a "
                "reason exactly where finish is 'error'"
            )
        return self

    @model_validator(mode="after")
    def _as_many_logprobs(self) -> Self:
        if self.logprobs is not None and len(self.logprobs) != len(self.tokens or ()):
            raise ValueError(
                f"{len(self.logprobs)} logprobs for {len(self.tokens or ())} tokens; "
                "expected one for each token"
            )
        return self


class Rollout(Record):
    """A prompt with G responses and their G rewards."""

    prompt: Prompt
    """The prompt x."""
    responses: tuple[Response, ...] = Field(min_length=1)
    """y_1 ... y_G, drawn from one policy."""
    rewards: tuple[float | None, ...]
    """r(x, y_1) ... r(x, y_G), finite; None where a reward is missing (never 0)."""
    policy: str
    """The id of the checkpoint that answered."""
    round: int = Field(ge=0)
    """The round in which it answered."""

    @model_validator(mode="after")
    def _checked_rewards(self) -> Self:
        if len(self.rewards) != len(self.responses):
            raise ValueError(
                f"{len(self.rewards)} rewards for {len(self.responses)} responses; "
                "expected one for each response"
            )
        if not all(r is None or math.isfinite(r) for r in self.rewards):
            raise ValueError("a reward is infinite or NaN; expected finite numbers or None")
        return self


class ScoredPrompt(Record):
    """A prompt with its informativeness and the age of that score."""

    prompt: Prompt
    """The prompt x."""
    info: float | None
    """info(x) under the metric of the recipe, in its unit; None if fewer than two rewards exist."""
    round: int = Field(ge=0)
    """The round whose responses gave the score."""
    policy: str
    """The id of the checkpoint whose responses gave the score."""


class Child(Record):
    """What an evolver wrote for one parent; with a flaw it never becomes a prompt."""

    parent: str
    """The id of the prompt (or of the earlier child in a chain) that was rewritten."""
    messages: tuple[Message, ...] = ()
    """The new chat; empty if nothing could be parsed."""
    data: Data = Field(default_factory=dict)
    """What the reward of the new prompt needs."""
    method: str
    """The operator, e.g. "in-depth"."""
    change: Text = ""
    """What it changed, in words a person reads."""
    by: str = Field(min_length=1)
    """Who wrote it; `SELF` becomes "self" and the id of the checkpoint that wrote."""
    sampling: Sampling | None = None
    """How the writer's output was drawn; None where the writer is no language model."""
    flaw: Text | None = Field(default=None, min_length=1)
    """Why it is refused, or None."""
    gate: str | None = None
    """The gate that refused it, e.g. "parse", "repeat", "refusal"; None without a flaw."""
    raw: Text | None = None
    """The writer's output before parsing, where there is such a thing."""

    @model_validator(mode="after")
    def _flaw_or_messages(self) -> Self:
        if self.flaw is None and not self.messages:
            raise ValueError("a child without messages; expected messages, or a flaw that says why")
        return self

    @computed_field  # type: ignore[prop-decorator]  # python/mypy#14461, as pydantic advises
    @cached_property
    def id(self) -> str:
        """The id of the prompt that this child becomes."""
        return content_id(self.messages, self.data)

    @model_validator(mode="before")
    @classmethod
    def _drop_written_id(cls, fields: object) -> object:
        return _without(fields, "id")

    def grown(self, born: int) -> Prompt:
        """The prompt that this child becomes in round `born`; the child must have no flaw."""
        assert self.flaw is None, self.flaw
        return Prompt(
            messages=self.messages,
            data=self.data,
            parent=self.parent,
            method=self.method,
            change=self.change,
            by=self.by,
            born=born,
        )


SELF = "self"
"""The writer of a prompt is the policy itself."""


class Refused(Record):
    """A given prompt that cannot be used, and why."""

    prompt: Prompt
    """The prompt."""
    flaw: Text
    """Why it is refused."""


class Pair(Record):
    """A preference: for one prompt, one response is better than another by `margin`."""

    prompt: Prompt
    """The prompt x."""
    chosen: Response
    """y+, the response with the higher reward."""
    rejected: Response
    """y-, the response with the lower reward."""
    margin: float = Field(gt=0.0, allow_inf_nan=False)
    """r(x, y+) - r(x, y-), in reward units; ties make no pair."""


class Checkpoint(Record):
    """Weights that can be opened as a policy and learnt from."""

    uri: str
    """A folder, a hub id, or "run:" and a folder inside the run directory."""
    id: str
    """What the weights are: a digest of the files, or the hub id with its revision."""


class RunState(Record):
    """All that the next round needs."""

    round: int = Field(ge=0)
    """The round t that comes next."""
    seed: int
    """The seed of the run."""
    checkpoint: Checkpoint
    """theta_t."""
    pool: tuple[Prompt, ...] = Field(min_length=1)
    """X_t."""


def _without(fields: object, key: str) -> object:
    if isinstance(fields, Mapping) and key in fields:
        return {name: value for name, value in fields.items() if name != key}
    return fields
