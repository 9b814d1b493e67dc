"""Language models: what is trained, and what writes or judges text beside it."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

from eva.parts import Part


class LanguageModel(Part):
    """A causal language model in Hugging Face format, wherever it is sampled."""

    model: str
    """A folder or a hub id; "playground" is the small model that ships with eva. Of a model that is
    only asked, over HTTP: the name that its servers know it by."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    device: str = "auto"
    """Where it learns and, in this process, is sampled; "auto" takes CUDA if there is one, else the
    CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto": bfloat16 on CUDA, float32 on a CPU, where bfloat16 casts cost more than they save."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch; null leaves them to torch. Small models are fastest with 1, and seeds
    run side by side in processes."""


class HfPolicy(LanguageModel):
    """Sampled in this process by eva's own sampler."""

    kind: Literal["hf"] = "hf"
    rows: int = Field(default=2048, ge=1)
    """Responses that are sampled side by side; bounds the memory of the key-value cache."""


class VllmPolicy(LanguageModel):
    """Sampled by vLLM in this process; opened for a round, released before the learner starts."""

    kind: Literal["vllm"]
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    memory: float = Field(default=0.85, gt=0.0, le=1.0)
    """Share of the GPU's memory that vLLM may take, weights and key-value cache together. A reward
    model on the same GPU needs the rest."""
    context: int | None = Field(default=None, ge=1)
    """Longest prompt and response together, in tokens; null takes the model's own."""
    rows: int = Field(default=256, ge=1)
    """Responses that are sampled side by side."""
    eager: bool = False
    """Whether to go without compilation and CUDA graphs: starts sooner, samples slower."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Further arguments of `vllm.LLM`."""


class Price(Part):
    """What a served model costs, in any one currency, per million tokens."""

    input: float = Field(ge=0.0)
    """Per million prompt tokens."""
    output: float = Field(ge=0.0)
    """Per million generated tokens."""


class Serve(Part):
    """Servers that eva starts itself, on ports that it finds free, and ends again.

    The words of `command` may hold {model} (the folder or hub id of the weights), {port} and
    {index} (0, 1, ... of `count`).
    """

    command: tuple[str, ...] = Field(min_length=1)
    """E.g. [vllm, serve, "{model}", --port, "{port}"] or [eva, serve, "{model}", --port,
    "{port}"]."""
    count: int = Field(default=1, ge=1)
    """How many."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of theirs; values may hold the placeholders too, e.g.
    {CUDA_VISIBLE_DEVICES: "{index}"}."""
    ready: float = Field(default=900.0, gt=0.0)
    """Seconds until they must answer."""


class HttpPolicy(LanguageModel):
    """Asked over HTTP: any server, or many, with OpenAI's chat completions."""

    kind: Literal["http"]
    name: str | None = None
    """What its servers call it; null takes `model`."""
    urls: tuple[str, ...] = ()
    """Base addresses of running servers, e.g. [http://node1:8000/v1, http://node2:8000/v1]; the
    requests are spread over all of them."""
    serve: Serve | None = None
    """If given, eva starts the servers itself instead."""
    reload: Literal["none", "vllm", "eva"] = "none"
    """How running servers are told to load the weights of a new checkpoint: by vLLM's or by eva's
    own route; "none" for a model that is never trained. One that eva starts is started anew."""
    key: str | None = None
    """The environment variable that holds the API key; never the key itself."""
    concurrency: int = Field(default=256, ge=1)
    """Upper bound on requests in flight, to each server; fewer after a 429 or a 503."""
    deadline: float = Field(default=600.0, gt=0.0)
    """Seconds that one request may take before it is sent again."""
    attempts: int = Field(default=8, ge=1)
    """How often a request is sent that fails while others do not, before it is given up."""
    patience: float = Field(default=3600.0, gt=0.0)
    """Seconds that eva waits for servers of which none answers, before the run stops."""
    price: Price | None = None
    """What its tokens cost; null counts tokens alone."""
    budget: float | None = Field(default=None, gt=0.0)
    """Most that the run may spend on it, in the currency of `price`; it then stops cleanly."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further keys of each request, e.g. {reasoning_effort: low}."""

    @model_validator(mode="after")
    def _has_servers(self) -> Self:
        if bool(self.urls) == (self.serve is not None):
            raise ValueError(
                "a model of kind http needs either urls (servers that run) or serve (a command by "
                "which eva starts them)"
            )
        if self.budget is not None and self.price is None:
            raise ValueError("budget needs price: without it eva cannot know what was spent")
        if wrong := [url for url in self.urls if not url.startswith(("http://", "https://"))]:
            raise ValueError(f"urls: expected addresses with http:// or https://, got {wrong[0]!r}")
        if self.revision is not None and (self.serve is not None or self.reload != "none"):
            raise ValueError(
                "revision is not passed on to servers: give the folder of that revision as model, "
                "or leave it out"
            )
        return self


class ToyPolicy(Part):
    """The world of numbers: a policy is one number, its skill."""

    kind: Literal["toy"] = "toy"
    skill: float = 0.0
    """The skill of theta_0."""


class SelfPolicy(Part):
    """The current policy itself: self-play."""

    kind: Literal["self"]


PolicyPart: TypeAlias = Annotated[
    HfPolicy | VllmPolicy | HttpPolicy | ToyPolicy, Field(discriminator="kind")
]
"""What is trained."""
ModelPart: TypeAlias = Annotated[HfPolicy | VllmPolicy | HttpPolicy, Field(discriminator="kind")]
"""A model that is only asked."""
WriterPart: TypeAlias = Annotated[
    SelfPolicy | HfPolicy | VllmPolicy | HttpPolicy, Field(discriminator="kind")
]
"""Who writes prompts. There is no default: who wrote a prompt must never be a matter of course."""
