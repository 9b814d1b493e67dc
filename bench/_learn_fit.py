"""How the constants of eva's learner were fitted: time against their value."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from _learn_cases import Case, cases, made, pairs
from _learn_eva import dpo, eva_dpo
from eva.learn import logprobs, solver
from eva.learn.logprobs import Head, token_logprobs

Value = TypeVar("Value")

CALL_COSTS = (0.0, 1e6, 5e6, 2e7, 1e8)
CHUNKS = (2**20, 2**22, 2**24, 2**26)
HEADS = ((32000, 600), (256000, 100))
"""Vocabulary and tokens of the head that is timed; its hidden states have 512 numbers."""
SHARES = (True, False, None)


def fits(folder: Path) -> list[str]:
    """The lines of the section."""
    small, large = cases()[:2]
    large = replace(large, offline=replace(large.offline, turns=1))
    costs = [_least(case, folder, CALL_COSTS, _with_call_cost) for case in (small, large)]
    shares = [_least(case, folder, SHARES, _with_share) for case in (small, large)]
    names = ("playground", "Llama, 32k")
    lines = ["## Constants of eva's learner", "", "CPU seconds, the least of the turns.", ""]
    lines += _table("`CALL_COST` (cpu)", [f"{cost:g}" for cost in CALL_COSTS], names, costs)
    lines += _table("`share_prompts`", ["true", "false", "null"], names, shares)
    heads = [f"{vocabulary // 1000}k x {tokens} tokens" for vocabulary, tokens in HEADS]
    chunks = [[_head(*head, chunk, 0) for chunk in CHUNKS] for head in HEADS]
    lines += _table("`CHUNK` (cpu), nothing kept", [f"2^{c.bit_length() - 1}" for c in CHUNKS],
                    heads, chunks)  # fmt: skip
    kept = [[_head(*head, 2**22, most) for most in (0, 2**40)] for head in HEADS]
    lines += _table("logits kept (`KEPT`)", ["none", "all"], heads, kept)
    return lines


def _table(
    what: str, values: Sequence[str], names: Sequence[str], columns: Sequence[Sequence[float]]
) -> list[str]:
    rows = zip(values, *columns, strict=True)
    return [
        f"| {what} | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            "| " + " | ".join((value, *(f"{s:.3g}" for s in times))) + " |"
            for value, *times in rows
        ),
        "",
    ]


def _least(
    case: Case,
    folder: Path,
    values: Sequence[Value],
    run: Callable[[Case, Path, Value], float],
) -> list[float]:
    """The least time of an update for each value, all run in turn."""
    given = made(case, folder)
    turns = [[run(case, given, value) for value in values] for _ in range(case.offline.turns)]
    return [min(times) for times in zip(*turns, strict=True)]


def _with_call_cost(case: Case, given: Path, cost: float) -> float:
    before = solver.CALL_COST["cpu"]
    solver.CALL_COST["cpu"] = cost
    try:
        return eva_dpo(given, case.offline, pairs(case), dpo(case.offline)).seconds
    finally:
        solver.CALL_COST["cpu"] = before


def _with_share(case: Case, given: Path, share: bool | None) -> float:
    return eva_dpo(given, case.offline, pairs(case), dpo(case.offline, share)).seconds


def _head(vocabulary: int, tokens: int, chunk: int, kept: int, turns: int = 2) -> float:
    """The least time of the output head, forward and backward."""
    before = logprobs.CHUNK["cpu"], logprobs.KEPT["cpu"]
    logprobs.CHUNK["cpu"], logprobs.KEPT["cpu"] = chunk, kept
    hidden_N_H = torch.randn(tokens, 512, requires_grad=True)
    weight_V_H = torch.randn(vocabulary, 512).mul_(0.05).requires_grad_()
    tokens_N = torch.randint(vocabulary, (tokens,))
    times = []
    for _ in range(turns):
        hidden_N_H.grad = weight_V_H.grad = None
        start = time.process_time()
        torch.autograd.backward(token_logprobs(hidden_N_H, tokens_N, Head(weight_V_H)).sum())
        times.append(time.process_time() - start)
    logprobs.CHUNK["cpu"], logprobs.KEPT["cpu"] = before
    return min(times)


assert os.environ["OMP_NUM_THREADS"] == "1", "times are of one thread; see learn.py"
