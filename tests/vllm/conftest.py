"""vLLM on a CPU: one thread, no compilation, and a cache of one GiB instead of all the memory.

`make test-vllm` runs these tests in a virtual environment of their own; elsewhere they are skipped.
"""

import contextlib
import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(max(os.sched_getaffinity(0))))
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

with warnings.catch_warnings(), contextlib.suppress(ModuleNotFoundError):
    warnings.simplefilter("ignore")  # vLLM and what it imports warn of one another
    from vllm import LLM  # noqa: F401


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return _model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> Path:
    """The same architecture with other weights."""
    return _model(tmp_path_factory.mktemp("other"), seed=1)


def _model(folder: Path, seed: int) -> Path:
    """A random Llama that is wide enough for vLLM, which wants heads of 32 numbers at least."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.tiny import SHAPE, save_tiny

    wide = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 192}
    save_tiny(LlamaConfig(**SHAPE | wide | {"max_position_embeddings": 128}), folder)
    if seed:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LlamaConfig.from_pretrained(folder)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
