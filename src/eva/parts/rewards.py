"""What scores responses."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from eva.parts import Part, PythonCall
from eva.parts.policies import ModelPart
from eva.records import Sampling


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


class ClassifierReward(Part):
    """A sequence classifier in Hugging Face format, on the chat as its own template writes it."""

    kind: Literal["hf"]
    model: str
    """A folder or a hub id, e.g. Skywork/Skywork-Reward-V2-Llama-3.1-8B."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    head: Literal["logit", "armo"] = "logit"
    """"logit": number `index` of the classifier's outputs. "armo": ArmoRM's own head, objectives
    weighted by a gate that reads the prompt."""
    index: int = Field(default=0, ge=0)
    """Which output is the reward, where there are several."""
    device: str = "auto"
    """"auto" takes CUDA if there is one, else the CPU; "cuda:1" keeps clear of a policy on 0."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto": bfloat16 on CUDA, float32 on a CPU."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Upper bound on padded tokens in one forward pass."""
    max_tokens: int | None = Field(default=None, ge=1)
    """A longer chat has no reward (it is missing, never cut); null takes the model's context."""
    trust_remote_code: bool = False
    """Whether to run Python code that comes with the model; only with a `revision`, so that it is
    the code that you read."""

    @model_validator(mode="after")
    def _trusts_one_revision(self) -> Self:
        if self.trust_remote_code and self.revision is None:
            raise ValueError(
                "trust_remote_code needs a revision: name the commit whose code you have read"
            )
        return self


class PairwiseReward(Part):
    """Who wins against whom in a group, as one number each: the mean chance to beat the others."""

    kind: Literal["pairwise"]
    call: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """"module:function", `(prompt, y, y') -> P(y beats y')`, None where it is missing."""
    model: str | None = None
    """Instead: a sequence classifier with one output, the log-odds that the first response wins."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    text: str = "{prompt}\n\n[A] {first}\n\n[B] {second}"
    """What the classifier reads; {prompt} is the chat, {first} and {second} the responses. Its
    tokenizer adds its own special tokens."""
    device: str = "auto"
    """"auto" takes CUDA if there is one, else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto": bfloat16 on CUDA, float32 on a CPU."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Upper bound on padded tokens in one forward pass."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.call is None) == (self.model is None):
            raise ValueError("give either call (your own function) or model (a classifier)")
        return self


class JudgeReward(Part):
    """A language model as a judge. A verdict that cannot be parsed is missing, never 0."""

    kind: Literal["judge"]
    by: ModelPart
    """Who judges."""
    mode: Literal["points", "pairs"] = "points"
    """"points": a number for each response; "pairs": each two responses of a group, in both orders,
    and a response's reward is its mean share of wins (a tie is half a win)."""
    rubric: str | None = None
    """A text file with {prompt} and {response} (pairs: {first} and {second}); null takes the one
    that ships with eva for this mode. {low} and {high} are the range."""
    low: float = 1.0
    """The least number of a verdict in points."""
    high: float = 10.0
    """The greatest; a number outside is no verdict."""
    votes: int = Field(default=1, ge=1)
    """Verdicts of each, averaged."""
    sampling: Sampling = Field(
        default_factory=lambda: Sampling(temperature=0.0, top_p=1.0, max_tokens=1024)
    )
    """How verdicts are drawn. Default: greedy, room for the reasons that a rubric asks for."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}; give a range")
        if self.votes > 1 and self.sampling.temperature == 0.0:
            raise ValueError("votes above 1 need a sampling.temperature above 0: they would agree")
        return self


class HttpReward(Part):
    """A service of your own: POST {"prompt", "responses", "data"} -> {"rewards": [...]}.

    `prompt` is the list of turns, `responses` the texts of a group, `data` what the prompt carries;
    `rewards` holds a number or null for each response.
    """

    kind: Literal["http"]
    name: str = "reward service"
    """What it is: paid answers are kept by it, so another service or version needs another name."""
    urls: tuple[str, ...] = Field(min_length=1)
    """Addresses; groups are spread over all of them."""
    key: str | None = None
    """The environment variable that holds a bearer token; never the token itself."""
    concurrency: int = Field(default=64, ge=1)
    """Upper bound on groups in flight, to each address."""
    deadline: float = Field(default=120.0, gt=0.0)
    """Seconds that one request may take before it is sent again."""
    attempts: int = Field(default=8, ge=1)
    """How often a request is sent that fails while others do not; its rewards are missing then."""
    patience: float = Field(default=3600.0, gt=0.0)
    """Seconds that eva waits for addresses of which none answers, before the run stops."""


class Term(Part):
    """One reward in a weighted sum."""

    weight: float = 1.0
    """Its factor."""
    reward: "RewardPart"
    """The reward."""


class SumReward(Part):
    """A weighted sum of rewards; missing where any of them is missing."""

    kind: Literal["sum"]
    terms: tuple[Term, ...] = Field(min_length=1)
    """What is added."""


class LengthReward(Part):
    """A reward less a penalty for length: of - penalty * max(0, length - free)."""

    kind: Literal["length"]
    of: "RewardPart"
    """The reward."""
    penalty: float = Field(ge=0.0)
    """Reward units per unit of length."""
    unit: Literal["characters", "words", "tokens"] = "characters"
    """What length is counted in; "tokens" needs a policy that knows its tokens."""
    free: int = Field(default=0, ge=0)
    """Length that costs nothing."""


RewardPart: TypeAlias = Annotated[
    RulesReward
    | PlaygroundReward
    | ToyReward
    | ClassifierReward
    | PairwiseReward
    | JudgeReward
    | HttpReward
    | SumReward
    | LengthReward
    | PythonCall,
    Field(discriminator="kind"),
]
Term.model_rebuild()
SumReward.model_rebuild()
LengthReward.model_rebuild()
