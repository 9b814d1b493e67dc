"""How many tokens vLLM samples on a CPU beside eva's own sampler, in the environment of test-vllm.

    .venv-vllm/bin/python bench/vllm_cpu.py

Random weights, one worker thread, vLLM without compilation. CPU-seconds are those of all processes;
vLLM has three, of which two work side by side. The arms run in turn; numbers are medians. It says
nothing about GPUs.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(max(os.sched_getaffinity(0))))

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Literal

import psutil  # type: ignore[import-untyped]  # accelerate brings it
from transformers import Qwen3Config

from eva.backends import hf, vllm
from eva.parts.policies import HfPolicy, VllmPolicy
from eva.protocols import Policy
from eva.records import Checkpoint, Prompt, Sampling
from sampler import SHAPE, Case, Load, chats, save_model

TURNS = 5
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=32)
SMALL = {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 384, "head_dim": 32}
SMALL |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}


def load(prompts: int, n: int) -> Load:
    """So many prompts of 8 to 40 words, n answers each."""
    return Load(
        prompts=prompts, n=n, words=(8, 40), sampling=SAMPLING, batches=(), trials=0, turns=TURNS
    )


def cases() -> list[Case]:
    """A model for tests, and one of the size of the smallest that people train."""
    return [
        Case("small", Qwen3Config(**SHAPE | SMALL), load(256, 8)),
        Case("50 M", Qwen3Config(**SHAPE), load(32, 4)),
    ]


def cpu_seconds() -> float:
    """Of this process and all below it, so far."""
    mine = psutil.Process()
    times = [one.cpu_times() for one in [mine, *mine.children(recursive=True)]]
    return float(sum(t.user + t.system for t in times))


def turn(policy: Policy, prompts: list[Prompt], n: int, seed: int) -> tuple[float, float]:
    """Tokens per second, and per CPU-second."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    answers = policy(prompts, n, sampling=SAMPLING, seed=seed)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    tokens = sum(len(response.tokens or ()) for group in answers for response in group)
    return tokens / wall, tokens / cpu


def measured(case: Case, folder: Path, dtype: Literal["float32", "bfloat16"]) -> None:
    """Print a row for each sampler."""
    checkpoint, model = Checkpoint(uri=str(folder), id=case.name), str(folder)
    own = HfPolicy(model=model, device="cpu", dtype=dtype)
    other = VllmPolicy(kind="vllm", model=model, dtype=dtype, eager=True)
    prompts, found = chats(case), {"hf": [(0.0, 0.0)], "vllm": [(0.0, 0.0)]}
    with ExitStack() as stack:
        arms = {
            "hf": stack.enter_context(hf.open_policy(checkpoint, own)),
            "vllm": stack.enter_context(vllm.open_policy(checkpoint, config=other)),
        }
        for policy in arms.values():
            turn(policy, prompts, case.load.n, 0)
        for seed in range(TURNS):
            for name, policy in arms.items():
                found[name].append(turn(policy, prompts, case.load.n, seed))
    for name, rows in found.items():
        wall, cpu = (median(column) for column in zip(*rows[1:], strict=True))
        print(f"| {case.name} | {dtype} | {name} | {wall:,.0f} | {cpu:,.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    print("| model | dtype | kind | tokens/s | tokens per CPU-second |\n|---|---|---|---|---|")
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            save_model(case.config, Path(folder))
            measured(case, Path(folder), "float32")
            measured(case, Path(folder), "bfloat16")


if __name__ == "__main__":
    main()
