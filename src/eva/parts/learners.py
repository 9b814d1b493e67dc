"""The learner's part of a recipe: one loss, and how its gradient is followed.

`Offline` losses learn from a round's lessons after all of them were sampled; `Online` ones sample
each mini-batch from the policy that learns; the rest are somebody else's trainers. Defaults are the
paper's where they are known (gemma-2-9b-it, the authors' released code); the others say so.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

from eva.parts import Part, PythonCall

Decay: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]
"""Share of a moment that is kept in a step."""


class Lora(Part):
    """Low-rank adapters on frozen weights, by `peft`."""

    rank: int = Field(default=16, ge=1)
    """Rank r of the update of each matrix. Our choice."""
    alpha: float = Field(default=32.0, gt=0.0)
    """The update is scaled by alpha / r. Our choice."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input. Our choice."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the modules that get an adapter; "all-linear" takes all but the output head."""
    merge: bool = False
    """Whether the checkpoint is the whole model, adapter merged in (the adapter is kept beside
    it); else the checkpoint is the adapter alone, and the next round goes on with it."""


class Update(Part):
    """How a gradient is followed; shared by all of eva's own learners."""

    lr: float = Field(default=5e-7, gt=0.0)
    """Peak learning rate. Default: the authors' released code, for a 9B model."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """The optimiser; the paper's SPPO takes RMSprop."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Moment decays of AdamW; RMSprop takes the second one as its own."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay of AdamW, on matrices alone."""
    clip: float | None = Field(default=1.0, gt=0.0)
    """Bound on the gradient's norm; null for none."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up. Default: the authors' released code."""
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    """The learning rate at the end, as a share of `lr`."""
    warmup: float = Field(default=0.1, ge=0.0)
    """Steps of linear warm-up: a share of all steps if below 1, else their number."""
    micro_tokens: int = Field(default=16384, ge=1)
    """Upper bound on padded tokens in one forward pass; an optimiser step takes as many passes as
    it needs. Bounds memory, does not change the update."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights, losses and reductions stay in float32. "auto": bfloat16 on
    CUDA, float32 on a CPU."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    liger: bool = False
    """Take Liger's kernels for norms, rotary positions and gated layers (pip install liger-kernel);
    needs CUDA. Not run by us yet, so it is off."""
    share_prompts: bool | None = None
    """Whether a prompt is encoded once for all its responses; null: where it pays. Moves results by
    rounding alone."""
    lora: Lora | None = None
    """Train adapters instead of all weights; null trains all weights."""
    save_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps (online: mini-batches) between snapshots inside an update, from which a
    killed one goes on; null writes none, and a killed update begins anew. A snapshot holds weights
    and optimiser."""

    @model_validator(mode="after")
    def _decays_by_adamw(self) -> Self:
        if self.weight_decay and self.optimizer == "rmsprop":
            raise ValueError(
                f"weight_decay {self.weight_decay} needs optimizer adamw: RMSprop would divide the "
                "decay by the size of the gradient; set it to 0"
            )
        return self


class Offline(Update):
    """Learns from pairs of a round's lessons, best against worst."""

    epochs: float | None = Field(default=2, gt=0.0)
    """Passes over the pairs. Default: the authors' released code. Null if `steps` is given."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps, whatever the number of pairs (the budget of an equal comparison)."""
    batch: int = Field(default=64, ge=1)
    """Pairs in an optimiser step. Default: the authors' released code."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """If given, an optimiser step takes pairs until they hold so many tokens (prompt and both
    responses), instead of `batch` pairs."""
    nll: float = Field(default=0.0, ge=0.0)
    """Weight of the negative log-likelihood of the chosen response, per token, added to the loss
    (the RPO term); 0 for none."""
    launch: tuple[str, ...] = ()
    """A command that starts the update in several processes, e.g. [accelerate, launch,
    --config_file, fsdp2.yaml] or [torchrun, --nproc-per-node, "8"]; empty: in this process."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, and set the other one to null")
        return self


class Dpo(Offline):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    kind: Literal["dpo"]
    beta: float = Field(default=0.05, gt=0.0)
    """Strength of the pull towards the reference. Default: the authors' released code."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that a preference is wrong (conservative DPO)."""


class Ipo(Offline):
    """Identity preference optimisation (Azar et al. 2023)."""

    kind: Literal["ipo"]
    beta: float = Field(default=0.6, gt=0.0)
    """The target of the margin is 1 / (2 beta). Default: the authors' released code."""
    epochs: float | None = Field(default=1, gt=0.0)
    """Passes over the pairs. Default: the authors' released code. Null if `steps` is given."""
    length_normalised: bool = True
    """Whether log-probabilities are per token, as the field's trainers take them; the paper's
    equation sums them."""


class Sppo(Offline):
    """Self-play preference optimisation (Wu et al. 2024): each response towards its win rate."""

    kind: Literal["sppo"]
    beta: float = Field(default=0.001, gt=0.0)
    """1 / eta of the paper: the target of a log-ratio is (P - 1/2) / beta. Default: the authors'
    released code."""
    labels: Literal["bradley_terry", "ranks", "rewards", "hard"] = "bradley_terry"
    """Where P(y beats the others) comes from: "bradley_terry", the mean of sigmoid(r_j - r_k) over
    the group; "ranks", the share of the group it beats; "rewards", the reward itself, which must be
    a win probability (a pairwise model's); "hard", 1 for the best and 0 for the worst."""
    scale: float = Field(default=1.0, gt=0.0)
    """What rewards are divided by in "bradley_terry", in reward units. Our choice."""
    optimizer: Literal["adamw", "rmsprop"] = "rmsprop"
    """The optimiser. Default: the authors' released code."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """RMSprop takes the second one. Default: that of PyTorch, which the released code takes."""
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    """How the learning rate falls after the warm-up. Default: the authors' released code."""


class Simpo(Offline):
    """Simple preference optimisation (Meng et al. 2024): length-normalised, no reference."""

    kind: Literal["simpo"]
    beta: float = Field(default=10.0, gt=0.0)
    """Scale of the log-probability per token. Default: SimPO's for gemma-2-9b-it; eva's is not
    known."""
    gamma: float = Field(default=5.0, ge=0.0)
    """Target margin, in units of beta times a log-probability per token. Default: as for beta."""
    lr: float = Field(default=8e-7, gt=0.0)
    """Peak learning rate. Default: as for beta."""
    epochs: float | None = Field(default=1, gt=0.0)
    """Passes over the pairs. Default: as for beta. Null if `steps` is given."""


class Orpo(Offline):
    """Odds ratio preference optimisation (Hong et al. 2024): no reference."""

    kind: Literal["orpo"]
    beta: float = Field(default=0.1, gt=0.0)
    """Weight of the odds-ratio term, lambda of the paper. Default: ORPO's; eva's is not known."""
    lr: float = Field(default=8e-6, gt=0.0)
    """Peak learning rate. Default: ORPO's; eva's is not known."""
    epochs: float | None = Field(default=1, gt=0.0)
    """Passes over the pairs. Our choice. Null if `steps` is given."""


class Online(Update):
    """Samples every mini-batch from the policy that learns."""

    steps: int = Field(default=100, ge=1)
    """Mini-batches in a round; a round ends with a checkpoint and an evaluation. Our choice."""
    batch: int = Field(default=64, ge=1)
    """Prompts in a mini-batch, each with n responses. Our choice."""
    reuse: int = Field(default=1, ge=1)
    """Optimiser steps on each mini-batch; beyond 1 its samples are stale. Our choice."""
    reference: Literal["theta_0", "round"] = "theta_0"
    """The reference policy: theta_0, as is usual online, or the weights a round starts from."""
    schedule: Literal["cosine", "linear", "constant"] = "constant"
    """How the learning rate falls over all rounds after the warm-up. Our choice."""


class Rloo(Online):
    """REINFORCE leave-one-out (Ahmadian et al. 2024)."""

    kind: Literal["rloo"]
    lr: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate. Our choice; the paper's is not known."""
    kl: float = Field(default=0.03, ge=0.0)
    """Weight of the KL penalty inside the reward; 0 needs no reference. Default: Ahmadian et al."""
    epsilon: float | None = Field(default=0.2, gt=0.0)
    """Bound on the importance ratio of a response, where samples are reused; null for none."""


class Grpo(Online):
    """Group relative policy optimisation (Shao et al. 2024)."""

    kind: Literal["grpo"]
    lr: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate. Our choice."""
    kl: float = Field(default=0.0, ge=0.0)
    """Weight of the KL penalty in the loss; 0 needs no reference. Default: the field's habit."""
    epsilon: float | None = Field(default=0.2, gt=0.0)
    """Bound on the importance ratio of a token, where samples are reused; null for none."""
    epsilon_high: float | None = Field(default=None, gt=0.0)
    """The upper bound, if it is another one ("clip higher" of DAPO)."""
    average: Literal["response", "token", "constant"] = "token"
    """What a loss is averaged over: each response by its own length (the paper), all tokens of the
    mini-batch (DAPO), or max_tokens (Dr. GRPO)."""
    scaled: bool = True
    """Whether advantages are divided by the standard deviation of their group."""


class OnlineDpo(Online):
    """DPO on the best and the worst of freshly sampled responses (Guo et al. 2024, OAIF)."""

    kind: Literal["online_dpo"]
    beta: float = Field(default=0.1, gt=0.0)
    """Strength of the pull towards the reference. Default: the authors' released code."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that a preference is wrong."""


class Command(Part):
    """Any program that reads files and writes a checkpoint in Hugging Face format."""

    kind: Literal["command"]
    run: tuple[str, ...] = Field(min_length=1)
    """The program and its arguments; in them {start}, {pairs}, {rollouts}, {out}, {seed}, {folder}
    and {job} are replaced by paths and the seed (docs/plug-ins.md)."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables, beside those of eva itself. No secrets: recipes are written out."""


class Trl(Part):
    """TRL's stable `DPOTrainer`, in a process of its own."""

    kind: Literal["trl"]
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of `trl.DPOConfig`, e.g. {loss_type: ipo, beta: 0.05, learning_rate: 5.0e-7}."""
    launch: tuple[str, ...] = ()
    """A command that starts it in several processes, as for eva's own learners."""


class ToyLearner(Part):
    """Skill grows by the rewards' spread."""

    kind: Literal["toy"]
    lr: float = Field(default=1.0, gt=0.0)
    """Growth of the skill for a mean margin of 1."""


class ToyOnline(Part):
    """Skill grows by the rewards' spread of each mini-batch."""

    kind: Literal["toy_online"]
    lr: float = Field(default=0.1, gt=0.0)
    """Growth of the skill in a mini-batch whose mean margin is 1."""
    steps: int = Field(default=8, ge=1)
    """Mini-batches in a round."""
    batch: int = Field(default=8, ge=1)
    """Prompts in a mini-batch."""
    save_steps: int | None = Field(default=None, ge=1)
    """Mini-batches between snapshots."""


OwnOffline: TypeAlias = Dpo | Ipo | Sppo | Simpo | Orpo
"""eva's own learners on lessons."""
OwnOnline: TypeAlias = Rloo | Grpo | OnlineDpo
"""eva's own learners on mini-batches that they sample."""
LearnerPart: TypeAlias = Annotated[
    Dpo
    | Ipo
    | Sppo
    | Simpo
    | Orpo
    | Rloo
    | Grpo
    | OnlineDpo
    | Command
    | Trl
    | ToyLearner
    | ToyOnline
    | PythonCall,
    Field(discriminator="kind"),
]
