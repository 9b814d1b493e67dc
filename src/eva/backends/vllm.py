"""A causal language model sampled by vLLM, whose engine runs in processes of its own for a while.

A prompt is one request with n samples; their seeds are the prompt's own (`seeds.child(seed,
prompt.id)`) and the integers after it. So answers depend on the prompts beside them, on their order
and on `rows` by the rounding of vLLM's kernels alone: see `eva.backends.hf` for what that changes.
For the same prompts in the same order the batches, and with them the rounding, are always the same.

Prompts are encoded and answers decoded by this process, as in `eva.backends.hf`. Only temperature
and top_p shape the distribution. Log-probabilities are left out: vLLM spends a fifth more on them.
"""

import dataclasses
import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from eva import seeds
from eva.backends.chat import among_errors, encoded, end_tokens, load_settings, load_size
from eva.backends.load import load_adapter, load_model, load_tokenizer, no_bars, placed
from eva.backends.vllm_process import Engine
from eva.errors import BackEndError, RecipeError
from eva.parts.policies import VllmPolicy
from eva.protocols import Policy
from eva.recipe import nearest
from eva.records import Checkpoint, Prompt, Response, Sampling
from vllm import LLM, EngineArgs, SamplingParams  # pyright: ignore[reportMissingImports]

OURS = {
    "model": "model",
    "tokenizer": "model",
    "revision": "revision",
    "tokenizer_revision": "revision",
    "dtype": "dtype",
    "tensor_parallel_size": "tensor_parallel",
    "gpu_memory_utilization": "memory",
    "max_model_len": "context",
    "max_num_seqs": "rows",
    "enforce_eager": "eager",
}
"""Arguments of vLLM that have a key of their own in the recipe's policy."""


@contextmanager
def open_policy(checkpoint: Checkpoint, *, config: VllmPolicy) -> Iterator[Policy]:
    """Open a checkpoint as a policy; leaving the context ends vLLM's processes.

    Args:
        checkpoint: Its `uri` is a folder or a hub id of a model, or of an adapter, which is merged.
        config: How vLLM samples. Its `model`, `device` and `threads` are not read: vLLM takes the
            devices that it sees.

    Raises:
        RecipeError: An option is none of vLLM's.
        BackEndError: There is no such model, or vLLM cannot load it; later: a process of
            vLLM died.
    """
    _check(config.options)
    uri, revision = checkpoint.uri, config.revision
    trusted = bool(config.options.get("trust_remote_code"))
    tokenizer = load_tokenizer(uri, revision, trust_remote_code=trusted)
    ends = end_tokens(load_settings(uri, revision), tokenizer)
    size = load_size(uri, revision, config.context)
    dtype = placed("auto", config.dtype, "policy")[1]
    with _whole(uri, revision, dtype, tokenizer) as model:
        engine = Engine({**model, **_arguments(config, dtype)})
    try:
        yield Opened(engine, tokenizer, ends, size)
    finally:
        engine.close()
    Path(engine.journal).unlink()


class Opened:
    """A model in an engine as a policy."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        ends: tuple[int, ...],
        size: int | None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ends = list(ends)
        self._size = size

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts."""
        limit = sampling.max_tokens
        found = [encoded(p.messages, self._tokenizer, self._size, limit) for p in prompts]
        asked = [
            (one, p) for one, p in zip(found, prompts, strict=True) if not isinstance(one, str)
        ]
        draws = n if sampling.temperature else 1  # vLLM refuses to be greedy more than once
        wanted = [
            SamplingParams(
                n=draws,
                seed=seeds.child(seed, prompt.id),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop_token_ids=self._ends,
                detokenize=False,
            )
            for _, prompt in asked
        ]
        answers = self._engine([ids for ids, _ in asked], wanted)
        groups = [self._responses(answer.outputs) for answer in answers]
        whole = groups if draws == n else [group * n for group in groups]
        return among_errors(found, n, whole)

    def _responses(self, outputs: Sequence[Any]) -> list[Response]:
        unknown = {one.finish_reason for one in outputs} - {"stop", "length"}
        if unknown:
            raise BackEndError(
                f"vLLM ended an answer with the reason {sorted(map(str, unknown))[0]!r}; expected "
                f"'stop' or 'length'; its log is {self._engine.journal}"
            )
        tokens = [list(one.token_ids) for one in outputs]
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Response(text=text, finish=one.finish_reason, tokens=tuple(row))
            for text, one, row in zip(texts, outputs, tokens, strict=True)
        ]


def _arguments(config: VllmPolicy, dtype: torch.dtype) -> dict[str, Any]:
    """The arguments of `vllm.LLM`."""
    # vLLM 0.32 takes a draw back where it cuts a prompt, which a CPU's generator cannot do.
    whole: dict[str, Any] = {} if torch.cuda.is_available() else {"enable_chunked_prefill": False}
    return {
        **whole,
        "dtype": str(dtype).removeprefix("torch."),  # left alone it makes float16 of float32
        "tensor_parallel_size": config.tensor_parallel,
        "gpu_memory_utilization": config.memory,
        "max_model_len": config.context,
        "max_num_seqs": config.rows,
        "enforce_eager": config.eager,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # else a model's own settings shape the distribution
        **config.options,
    }


def _check(options: Mapping[str, object]) -> None:
    """Refuse options that are none of vLLM's, or that have a key of their own.

    Raises:
        RecipeError: Names the option.
    """
    known = set(inspect.signature(LLM).parameters) - {"kwargs"}
    known |= {field.name for field in dataclasses.fields(EngineArgs)}
    for name in options:
        if name in OURS:
            raise RecipeError(f"policy.options.{name}: set policy.{OURS[name]} instead")
        if name not in known:
            raise RecipeError(
                f"policy.options.{name}: vLLM has no such argument; "
                f"{nearest(name, known - set(OURS))}"
            )


@contextmanager
def _whole(
    uri: str, revision: str | None, dtype: torch.dtype, tokenizer: PreTrainedTokenizerBase
) -> Iterator[dict[str, str | None]]:
    """Where vLLM finds the model at `uri`; an adapter is merged into a folder for the while.

    Merged, since vLLM knows LoRA on some layers of some models alone, and samples slower with it.
    """
    if load_adapter(uri, revision) is None:
        yield {"model": uri, "revision": revision, "tokenizer_revision": revision}
        return
    with tempfile.TemporaryDirectory(prefix="eva-merged-") as folder:
        with no_bars():
            load_model(uri, revision, dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield {"model": folder}
