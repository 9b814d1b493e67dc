"""eva's learner on a GPU: time of a step, peak memory, share of the peak arithmetic."""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig

from _learn_cases import SEED, SPECIAL
from _learn_eva import dpo, pair_tokens, plan
from eva import seeds
from eva.learn.batches import TokenGroup
from eva.learn.objectives import objective
from eva.learn.solver import made_solver, scored, stepped
from eva.learn.weights import opened
from sampler import SHAPE, save_model

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bfloat16 operations per second, by a part of the device's name."""
NOT_RUN = "| GPU: Llama 0.6 B, bfloat16, DPO | not run: no CUDA device here | | | | | | | |"


def gpu_row() -> str:
    """The line of the table; it says so where there is no GPU."""
    if not torch.cuda.is_available():
        return NOT_RUN
    seconds, tokens, parameters, peak = _measured()
    name = torch.cuda.get_device_name()
    flops = next((value for key, value in PEAK_FLOPS.items() if key in name), None)
    used = 6 * parameters * tokens / seconds
    share = f"MFU {used / flops:.2f}" if flops else f"{used / 1e12:.0f} Tflop/s"
    step = f"{seconds:.2f} s a step, {tokens / seconds:,.0f} tokens/s, {share}"
    return f"| GPU: {name}, bfloat16, DPO | | | {step} | | | | {peak / 2**20:,.0f} | |"


def _measured() -> tuple[float, int, int, int]:
    """Seconds and tokens of a step, parameters, and bytes at most."""
    from _learn_cases import Offline

    shape = SHAPE | {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 20}
    load = Offline(batch=64, steps=6, splits=(), best=0, turns=1)
    rng = seeds.rng(SEED, "learn", "gpu")
    groups = [_pair(rng) for _ in range(load.batch)]
    with tempfile.TemporaryDirectory() as name:
        parameters = save_model(LlamaConfig(**shape), Path(name))
        weights = opened(name)
        config = dpo(load)
        solver = made_solver(weights, config, objective(config, 1), "cuda:0")
        steps = plan(load, groups)
        reference = scored(solver, solver.scorer, groups, np.arange(len(groups), dtype=np.intp))
        torch.cuda.reset_peak_memory_stats()
        times = []
        for k, step in enumerate(steps):
            start = time.perf_counter()
            stepped(solver, groups, step, lr=config.lr, reference=reference, seed=k)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    tokens = pair_tokens(groups, steps[:1])
    return float(np.median(times[1:])), tokens, parameters, torch.cuda.max_memory_allocated()


def _pair(rng: np.random.Generator) -> TokenGroup:
    prompt, *answers = (rng.integers(SPECIAL, 32000, n).tolist() for n in rng.integers(64, 513, 3))
    return TokenGroup(prompt=prompt, responses=tuple(answers), signals=(1.0, 0.0))
