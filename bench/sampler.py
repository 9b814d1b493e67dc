"""How many tokens a CPU-second buys: eva's sampler against `generate` of transformers.

    python bench/sampler.py                          # every case; writes docs/bench-sampler.md
    python bench/sampler.py --only playground

Random weights, float32, one thread. `generate` gets its prompts tokenised and left-padded, and what
it returns stays a tensor of ids. It runs twice: as it is mostly called (all prompts in one batch,
the default cache), and at its best (sorted by length, in the batch size and with the cache, dynamic
or static, that were fastest in a trial). eva's time begins with chats and ends with `Response`
records: chat template, ids, sampling, log-probabilities, text. All run in turn, and a ratio is the
median of the ratios within one turn, so that a machine that slows down slows all.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when torch is imported

import argparse
import datetime
import gc
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from _host import processor
from eva.backends.hf import open_policy
from eva.parts.policies import HfPolicy
from eva.protocols import Policy
from eva.records import Checkpoint, Message, Prompt, Sampling

# transformers types these in part, which is worse for mypy than not at all.
AUTO: Any = AutoModelForCausalLM
TOKENIZER: Any = PreTrainedTokenizerFast
QUIET: Any = transformers.utils.logging

SPECIAL = ("<pad>", "<bos>", "<eos>", "<assistant>")
PAD, BOS, EOS = 0, 1, 2
TEMPLATE = "<bos> {% for turn in messages %}{{ turn.content }} {% endfor %}<assistant>"
"""What eva renders."""
RENDERED = "<bos> {} <assistant>"
"""The same for one turn, for `generate`."""
NOTE = """\
Much of the gain of the three larger models is the nucleus: `generate` sorts all 32,000 entries at
every step, eva only as many as the nucleus needs. Without one (top_p 1, same run otherwise, two
turns on 2026-11-21) Llama stands at 400 against 645 (1.6) and Gemma 2 at 370 against 610 (1.6)."""
REPORT = Path(__file__).parents[1] / "docs" / "bench-sampler.md"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of a model."""

    prompts: int
    n: int
    words: tuple[int, int]
    """Fewest and most words of a prompt; the template adds two tokens."""
    sampling: Sampling
    batches: tuple[int, ...]
    """Rows that `generate` may take at once; the last takes all."""
    trials: int
    """Runs in which the settings of `generate` are tried."""
    turns: int
    """Runs of each arm that are reported."""


@dataclass(frozen=True)
class Case:
    """A model and a load."""

    name: str
    config: PreTrainedConfig
    load: Load


@dataclass(frozen=True)
class Measured:
    """One row of the table; tokens per CPU-second, medians over the turns."""

    case: str
    parameters: int
    length: float
    """Mean tokens of a response."""
    settings: str
    """The fastest batch and cache of `generate`."""
    usual: tuple[float, ...]
    """`generate` as it is mostly called, in each turn."""
    best: tuple[float, ...]
    """`generate` at its best, in each turn."""
    eva: tuple[float, ...]
    """eva, in each turn."""


SMALL = Load(
    prompts=256,
    n=8,
    words=(2, 8),
    sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=11),
    batches=(512, 1024, 2048),
    trials=3,
    turns=9,
)
BIG = Load(
    prompts=32,
    n=4,
    words=(8, 40),
    sampling=Sampling(max_tokens=32),
    batches=(64, 128),
    trials=1,
    turns=3,
)
SHAPE: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # peaked distributions, as of a trained model
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
"""About 50 M parameters."""


def cases() -> list[Case]:
    """The playground's load, and three architectures that models of today have."""
    gpt2 = GPT2Config(
        vocab_size=38,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=48,
        activation_function="gelu_pytorch_tanh",
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return [
        Case("playground", gpt2, SMALL),
        Case("Llama", LlamaConfig(**SHAPE), BIG),
        Case("Qwen3", Qwen3Config(**SHAPE), BIG),
        Case("Gemma 2", Gemma2Config(**SHAPE, query_pre_attn_scalar=64), BIG),
    ]


def save_model(config: PreTrainedConfig, folder: Path) -> int:
    """Write a random model with a tokenizer of words; return its number of parameters.

    The end token of a GPT-2 gets a larger logit, so that its answers end after about seven tokens.
    """
    torch.manual_seed(0)
    model = AUTO.from_config(config)
    if config.model_type == "gpt2":
        end = model.transformer.wte.weight.detach()[EOS]
        model.transformer.ln_f.bias.detach().add_(1.35 * end / (end @ end))
    model.save_pretrained(folder)
    words = (*SPECIAL, *(f"w{i}" for i in range(config.vocab_size - len(SPECIAL))))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    TOKENIZER(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
    ).save_pretrained(folder)
    return int(model.num_parameters())


def chats(case: Case) -> list[Prompt]:
    """Prompts of random words."""
    rng = random.Random(0)
    vocabulary = case.config.vocab_size - len(SPECIAL)
    texts = [
        " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(rng.randint(*case.load.words)))
        for _ in range(case.load.prompts)
    ]
    return [Prompt(messages=(Message(role="user", content=text),)) for text in texts]


def eva_arm(policy: Policy, case: Case) -> Callable[[int], int]:
    """Answers all prompts once; returns the number of tokens."""
    prompts = chats(case)

    def run(seed: int) -> int:
        answers = policy(prompts, case.load.n, sampling=case.load.sampling, seed=seed)
        return sum(len(response.tokens or ()) for group in answers for response in group)

    return run


def generate_arm(folder: Path, case: Case, batch: int, cache: str) -> Callable[[int], int]:
    """Answers all prompts once with `generate`; returns the number of tokens."""
    model = AUTO.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = TOKENIZER.from_pretrained(folder, padding_side="left")
    texts = [RENDERED.format(prompt.messages[0].content) for prompt in chats(case)]
    texts.sort(key=lambda text: -len(text.split()))
    load, size = case.load, batch // case.load.n
    inputs = [
        tokenizer(texts[i : i + size], return_tensors="pt", padding=True)
        for i in range(0, len(texts), size)
    ]

    @torch.inference_mode()
    def run(seed: int) -> int:
        torch.manual_seed(seed)
        tokens = 0
        for rows in inputs:
            ids = model.generate(
                **rows,
                do_sample=True,
                num_return_sequences=load.n,
                max_new_tokens=load.sampling.max_tokens,
                temperature=load.sampling.temperature,
                top_p=load.sampling.top_p,
                top_k=0,
                cache_implementation=cache,
            )
            ended = (ids[:, rows["input_ids"].shape[1] :] == EOS).cumsum(1)
            tokens += int((ended == 0).sum() + (ended[:, -1] > 0).sum())
        return tokens

    return run


def speed(run: Callable[[int], int], seed: int) -> tuple[float, int]:
    """Tokens per CPU-second, and tokens; nobody pays for the garbage of the arm before."""
    gc.collect()
    start = time.process_time()
    tokens = run(seed)
    return tokens / (time.process_time() - start), tokens


def measure(case: Case) -> Measured:
    """Find the best settings of `generate`, then run it and eva in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = save_model(case.config, folder)
        arms = {
            f"{batch} rows, {cache}": generate_arm(folder, case, batch, cache)
            for batch in case.load.batches
            for cache in ("dynamic", "static")
        }
        trials = range(case.load.trials)
        tried = {max(speed(arms[kind], seed)[0] for seed in trials): kind for kind in arms}
        settings = tried[max(tried)]
        usual, best = arms[f"{max(case.load.batches)} rows, dynamic"], arms[settings]
        config = HfPolicy(model=name, dtype="float32", device="cpu")
        with open_policy(Checkpoint(uri=name, id=case.name), config) as policy:
            eva = eva_arm(policy, case)
            tokens = eva(0)
            turns = range(case.load.turns)
            turn = [[speed(run, seed)[0] for run in (usual, best, eva)] for seed in turns]
    speeds = [tuple(column) for column in zip(*turn, strict=True)]
    length = tokens / (case.load.prompts * case.load.n)
    return Measured(case.name, parameters, length, settings, *speeds)


def report(rows: Sequence[Measured]) -> str:
    """The page that is written to docs."""
    lines = [
        "# Sampler: tokens per CPU-second",
        "",
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {processor()}, one thread, float32. "
        "Command: `python bench/sampler.py`.",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "| case | parameters | tokens per response | `generate`, usual | `generate`, best | eva "
        "| eva / usual | eva / best |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.case} | {row.parameters / 1e6:.2g} M | {row.length:.1f} "
        f"| {median(row.usual):,.0f} | {median(row.best):,.0f} ({row.settings}) "
        f"| {median(row.eva):,.0f} | {ratio(row.eva, row.usual)} | {ratio(row.eva, row.best)} |"
        for row in rows
    ]
    return "\n".join([*lines, "", NOTE, ""])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the ratios within one turn, and the least and the greatest of them."""
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measure, print, and write the page if every case was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the name of one case; the page is not written then")
    given = parser.parse_args()
    QUIET.set_verbosity_error()
    QUIET.disable_progress_bar()
    chosen = [case for case in cases() if given.only in (None, case.name)]
    rows = []
    for case in chosen:
        rows.append(measure(case))
        print(rows[-1], flush=True)
    page = report(rows)
    print(page)
    if given.only is None:
        REPORT.write_text(page)


if __name__ == "__main__":
    main()
