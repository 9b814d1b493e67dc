"""The shapes of language models: how many parameters, how large a cache, from public numbers.

A model in a local folder says its shape in config.json. Of a hub id only what stands in `KNOWN` is
known before it is downloaded; nothing is guessed. A parameter count is computed from the shape, and
a test builds each shape without memory and compares.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue


@dataclass(frozen=True)
class Family:
    """What distinguishes the architectures that the formulas know."""

    norms: int = 2
    """Normalisations of the hidden state in a layer."""
    has_bias: bool = False
    """Whether queries, keys and values have a bias."""
    is_old: bool = False
    """Whether it is built like GPT-2: learned positions, two matrices instead of a gated layer, and
    a bias in every layer and normalisation."""
    has_head_norms: bool = False
    """Whether the heads' queries and keys are normalised."""
    is_eager: bool = False
    """Whether attention keeps its whole matrix (transformers takes "eager" where logits of the
    attention are capped)."""


FAMILIES = {
    "gpt2": Family(has_bias=True, is_old=True),
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(has_bias=True),
    "qwen3": Family(has_head_norms=True),
    "gemma2": Family(norms=4, is_eager=True),
}
"""By the `model_type` of a config.json."""


@dataclass(frozen=True)
class Shape:
    """A decoder with gated layers and grouped queries."""

    kind: str
    """Its family, the `model_type` of its config.json."""
    hidden: int
    """H, numbers in a hidden state."""
    layers: int
    """How many."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Heads of keys and values."""
    head_dim: int
    """D, numbers in a head."""
    intermediate: int
    """I, numbers inside a gated layer."""
    vocab: int
    """V, entries of the vocabulary."""
    context: int
    """Positions that it can see."""
    is_tied: bool
    """Whether the output head is the table of embeddings."""
    is_scorer: bool = False
    """Whether it has one output, a reward, instead of an output head."""

    @property
    def family(self) -> Family:
        """What its architecture has."""
        return FAMILIES[self.kind]

    @property
    def queries(self) -> int:
        """Numbers in all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers in all key heads, and as many in the values."""
        return self.kv_heads * self.head_dim

    @property
    def table(self) -> int:
        """Parameters of the table of embeddings, V H."""
        return self.vocab * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        gated = (2 if self.family.is_old else 3) * self.intermediate
        matrices = self.hidden * (2 * self.queries + 2 * self.keys + gated)
        biases = self.queries + 2 * self.keys if self.family.has_bias else 0
        if self.family.is_old:  # of the other matrices and of the normalisations
            biases += 2 * self.hidden + self.intermediate + self.family.norms * self.hidden
        head_norms = 2 * self.head_dim if self.family.has_head_norms else 0
        return matrices + biases + head_norms + self.family.norms * self.hidden

    @property
    def parameters(self) -> int:
        """All of them; a tied table counts once."""
        head = self.hidden if self.is_scorer else 0 if self.is_tied else self.table
        last = (self.context + 2) * self.hidden if self.family.is_old else self.hidden
        return self.table + self.layers * self.layer + last + head

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but a table that is only looked up."""
        is_looked_up = self.is_scorer or not self.is_tied
        return self.parameters - (self.table if is_looked_up else 0)

    def cache(self, size: float) -> float:
        """Bytes of keys and values for each position, with `size` bytes for each number.

        ``2 layers kv_heads D size``; a sliding window, which needs less, is not reckoned with.
        """
        return 2 * self.layers * self.keys * size

    def adapter(self, rank: int) -> int:
        """Parameters of low-rank adapters on all linear layers: the sum of r (in + out)."""
        ends = 4 * self.hidden + 2 * self.queries + 2 * self.keys
        ends += 3 * (self.hidden + self.intermediate)
        return rank * self.layers * ends


GEMMA_2_2B = Shape("gemma2", 2304, 26, 8, 4, 256, 9216, 256000, 8192, is_tied=True)
GEMMA_2_9B = Shape("gemma2", 3584, 42, 16, 8, 256, 14336, 256000, 8192, is_tied=True)
GEMMA_2_27B = Shape("gemma2", 4608, 46, 32, 16, 128, 36864, 256000, 8192, is_tied=True)
QWEN3_06B = Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, 40960, is_tied=True)
QWEN3_17B = Shape("qwen3", 2048, 28, 16, 8, 128, 6144, 151936, 40960, is_tied=True)
QWEN3_4B = Shape("qwen3", 2560, 36, 32, 8, 128, 9728, 151936, 40960, is_tied=True)
QWEN3_8B = Shape("qwen3", 4096, 36, 32, 8, 128, 12288, 151936, 40960, is_tied=False)
QWEN25_05B = Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151936, 32768, is_tied=True)
QWEN25_15B = Shape("qwen2", 1536, 28, 12, 2, 128, 8960, 151936, 32768, is_tied=True)
QWEN25_7B = Shape("qwen2", 3584, 28, 28, 4, 128, 18944, 152064, 32768, is_tied=False)
LLAMA_8B = Shape("llama", 4096, 32, 32, 8, 128, 14336, 128256, 131072, is_tied=False)
LLAMA_1B = Shape("llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, is_tied=True)
LLAMA_3B = Shape("llama", 3072, 28, 24, 8, 128, 8192, 128256, 131072, is_tied=True)
LLAMA_70B = Shape("llama", 8192, 80, 64, 8, 128, 28672, 128256, 131072, is_tied=False)
MISTRAL_7B = Shape("mistral", 4096, 32, 32, 8, 128, 14336, 32768, 32768, is_tied=False)


def _scorer(body: Shape) -> Shape:
    return replace(body, is_scorer=True)


KNOWN = {
    "google/gemma-2-2b": GEMMA_2_2B,
    "google/gemma-2-2b-it": GEMMA_2_2B,
    "google/gemma-2-9b": GEMMA_2_9B,
    "google/gemma-2-9b-it": GEMMA_2_9B,
    "google/gemma-2-27b": GEMMA_2_27B,
    "google/gemma-2-27b-it": GEMMA_2_27B,
    "Qwen/Qwen3-0.6B": QWEN3_06B,
    "Qwen/Qwen3-1.7B": QWEN3_17B,
    "Qwen/Qwen3-4B": QWEN3_4B,
    "Qwen/Qwen3-4B-Instruct-2507": QWEN3_4B,
    "Qwen/Qwen3-8B": QWEN3_8B,
    "Qwen/Qwen2.5-0.5B": QWEN25_05B,
    "Qwen/Qwen2.5-0.5B-Instruct": QWEN25_05B,
    "Qwen/Qwen2.5-1.5B": QWEN25_15B,
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN25_15B,
    "Qwen/Qwen2.5-7B-Instruct": QWEN25_7B,
    "meta-llama/Llama-3.1-8B": LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "meta-llama/Llama-3.2-1B": LLAMA_1B,
    "meta-llama/Llama-3.2-1B-Instruct": LLAMA_1B,
    "meta-llama/Llama-3.2-3B": LLAMA_3B,
    "meta-llama/Llama-3.2-3B-Instruct": LLAMA_3B,
    "meta-llama/Llama-3.1-70B-Instruct": LLAMA_70B,
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
    "mistralai/Mistral-7B-v0.3": MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.3": MISTRAL_7B,
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": replace(_scorer(LLAMA_8B), context=8192),
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": _scorer(LLAMA_8B),
    "Skywork/Skywork-Reward-V2-Llama-3.2-1B": _scorer(LLAMA_1B),
    "Skywork/Skywork-Reward-V2-Llama-3.2-3B": _scorer(LLAMA_3B),
    "Skywork/Skywork-Reward-V2-Qwen3-0.6B": _scorer(QWEN3_06B),
    "Skywork/Skywork-Reward-V2-Qwen3-1.7B": _scorer(QWEN3_17B),
    "Skywork/Skywork-Reward-V2-Qwen3-4B": _scorer(QWEN3_4B),
    "Skywork/Skywork-Reward-V2-Qwen3-8B": _scorer(QWEN3_8B),
}
"""Hub ids whose shape is public; of ArmoRM's own head, 0.2 % of it, nothing is counted."""


def shape_of(model: str) -> Shape | None:
    """The shape of a folder or a known hub id; None where it is not known, never a guess."""
    config = Path(model) / "config.json"
    if config.is_file():
        return from_config(json.loads(config.read_bytes()))
    return KNOWN.get(model)


def from_config(fields: Mapping[str, JsonValue]) -> Shape | None:
    """The shape in a config.json; None for an architecture that the formulas do not know."""
    kind = fields.get("model_type")
    has_extras = fields.get("attention_bias") or fields.get("mlp_bias")
    if not isinstance(kind, str) or kind not in FAMILIES or has_extras:
        return None

    def number(key: str, default: int = 0) -> int:
        found = fields.get(key)
        return found if isinstance(found, int) else default

    named = fields.get("architectures")
    is_scorer = isinstance(named, list) and "SequenceClassification" in str(named)
    hidden, heads = number("hidden_size"), number("num_attention_heads")
    if kind == "gpt2":
        hidden, heads = number("n_embd"), number("n_head")
    return Shape(
        kind=kind,
        hidden=hidden,
        layers=number("num_hidden_layers") or number("n_layer"),
        heads=heads,
        kv_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim") or hidden // max(1, heads),
        intermediate=number("intermediate_size") or number("n_inner") or 4 * hidden,
        vocab=number("vocab_size"),
        context=number("max_position_embeddings") or number("n_positions"),
        is_tied=bool(fields.get("tie_word_embeddings", kind in ("gemma2", "gpt2"))),
        is_scorer=is_scorer,
    )
