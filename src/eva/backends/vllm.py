"""A causal language model sampled by vLLM, whose engine runs in processes of its own for a while.

A prompt is one request with n samples; their seeds are the prompt's own (`seeds.child(seed,
prompt.id)`) and the integers after it. So answers depend on the prompts beside them, on their order
and on `rows` by the rounding of vLLM's kernels alone: see `eva.backends.hf` for what that changes.
For the same prompts in the same order the batches, and with them the rounding, are always the same.

Prompts are encoded and answers decoded by this process, as in `eva.backends.hf`. Only temperature
and top_p shape the distribution. Log-probabilities are left out: vLLM spends a fifth more on them.
"""

import dataclasses
import gc
import inspect
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from eva import seeds
from eva.backends.chat import encoded, end_tokens, load_settings, load_size, token_ids
from eva.backends.load import (
    load_adapter,
    load_model,
    load_tokenizer,
    no_bars,
    placed,
)
from eva.backends.orphans import STARTED
from eva.errors import BackEndError, RecipeError
from eva.parts.policies import VllmPolicy
from eva.protocols import Policy
from eva.recipe import nearest
from eva.records import Checkpoint, Prompt, Response, Sampling
from vllm import LLM, EngineArgs, SamplingParams  # pyright: ignore[reportMissingImports]

log = logging.getLogger(__name__)

CAUSE = re.compile(r"^.*? ERROR .*?\] ((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
"""The line of vLLM's log that names an error; the first one in a log caused the others."""
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
        BackEndError: There is no such model, or vLLM cannot load it; later: a prompt does not fit,
            or the engine died.
    """
    _check(config.options)
    trusted = bool(config.options.get("trust_remote_code"))
    tokenizer = load_tokenizer(checkpoint.uri, config.revision, trust_remote_code=trusted)
    ends = end_tokens(load_settings(checkpoint.uri, config.revision), tokenizer)
    size = load_size(checkpoint.uri, config.revision, config.context)
    descriptor, journal = tempfile.mkstemp(prefix="eva-vllm-", suffix=".log")
    os.close(descriptor)
    log.info("vLLM opens %s; its log is %s", checkpoint.uri, journal)
    policy = Opened(
        _started(checkpoint, config, tokenizer, journal), tokenizer, ends, size, journal
    )
    try:
        yield policy
    finally:
        policy.close()
    Path(journal).unlink()  # where something failed it stays


class Opened:
    """A loaded model as a policy, until it is closed."""

    def __init__(
        self,
        llm: LLM,
        tokenizer: PreTrainedTokenizerBase,
        ends: tuple[int, ...],
        size: int | None,
        journal: str,
    ) -> None:
        self._llm: LLM | None = llm
        self._tokenizer = tokenizer
        self._ends = list(ends)
        self._size = size
        self._journal = journal

    def close(self) -> None:
        """End the engine's processes, even if somebody still holds this policy."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts."""
        ids = [self._ids(prompt, sampling.max_tokens) for prompt in prompts]
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
            for prompt in prompts
        ]
        groups = [self._responses(answer.outputs) for answer in self._finished(ids, wanted)]
        return groups if draws == n else [group * n for group in groups]

    def _ids(self, prompt: Prompt, max_tokens: int) -> list[int]:
        found = encoded(prompt.messages, self._tokenizer, self._size, max_tokens)
        return token_ids(prompt, found)

    def _finished(self, ids: list[list[int]], wanted: list[SamplingParams]) -> list[Any]:
        """What vLLM makes of encoded prompts, in their order."""
        if self._llm is None:
            raise BackEndError(
                "expected an open policy; this one was closed when its context was left; "
                "ask it inside the with block of open_policy"
            )
        prompts = [{"prompt_token_ids": tokens} for tokens in ids]
        try:
            # It waits until all requests are there, and knows no prefix from earlier calls: a run
            # that was killed and asks again cuts the same batches.
            self._llm.reset_prefix_cache()
            self._llm.sleep(level=0)
            self._llm.enqueue(prompts, wanted, use_tqdm=False)
            self._llm.wake_up(tags=["scheduling"])
            return list(self._llm.wait_for_completion(use_tqdm=False))
        except Exception as error:
            raise BackEndError(
                f"vLLM failed while it answered {len(ids)} prompts "
                f"({_cause(error, self._journal)}); run the same command again, with lower "
                f"policy.memory or policy.rows if memory was short; its log is {self._journal}"
            ) from error

    def _responses(self, outputs: Sequence[Any]) -> list[Response]:
        unknown = {one.finish_reason for one in outputs} - {"stop", "length"}
        if unknown:
            raise BackEndError(
                f"vLLM ended an answer with the reason {sorted(map(str, unknown))[0]!r}; expected "
                f"'stop' or 'length'; its log is {self._journal}"
            )
        tokens = [list(one.token_ids) for one in outputs]
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Response(text=text, finish=one.finish_reason, tokens=tuple(row))
            for text, one, row in zip(texts, outputs, tokens, strict=True)
        ]


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


def _started(
    checkpoint: Checkpoint, config: VllmPolicy, tokenizer: PreTrainedTokenizerBase, journal: str
) -> LLM:
    """A vLLM with the weights of a checkpoint; what it prints goes to `journal`.

    Raises:
        BackEndError: It cannot load them.
    """
    dtype = placed("auto", config.dtype, "policy")[1]
    arguments = {
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
    with ExitStack() as stack:
        model = stack.enter_context(_whole(checkpoint.uri, config.revision, dtype, tokenizer))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # vLLM measures what is free
        stack.enter_context(_environment())
        stack.enter_context(_printing_to(journal))
        try:
            llm = LLM(**model, **arguments)
        except Exception as error:
            raise BackEndError(
                f"vLLM cannot load {checkpoint.uri} ({_cause(error, journal)}); correct the "
                "recipe's policy: policy.memory is its share of the GPU, and policy.context bounds "
                f"what an answer needs; its log is {journal}"
            ) from error
    logging.getLogger("vllm").setLevel(logging.ERROR)  # in this process; it prints to stdout
    return llm


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


@contextmanager
def _environment() -> Iterator[None]:
    """What vLLM's processes are started with.

    They are spawned: a forked process would inherit locks of threads that it does not have.
    """
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ[STARTED] = "1"
    try:
        yield
    finally:
        del os.environ[STARTED]


@contextmanager
def _printing_to(journal: str) -> Iterator[None]:
    """Add to a file what this process prints, and all that processes print which it starts."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(place, os.dup(place)) for place in (1, 2)]
    file = os.open(journal, os.O_WRONLY | os.O_APPEND)
    try:
        for place, _ in kept:
            os.dup2(file, place)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for place, before in kept:
            os.dup2(before, place)
            os.close(before)
        os.close(file)


def _cause(error: Exception, journal: str) -> str:
    """Why vLLM failed: the first error in its log, or that of this process, in one line."""
    found = CAUSE.search(Path(journal).read_text(errors="replace"))
    if found is not None:
        return found[1]
    words = " ".join(str(error).split())
    # pydantic wraps the reason in a sentence about its types.
    wrapped = re.search(r"Value error, (.*?)(?: \[type=|$)", words)
    return f"{type(error).__name__}: {wrapped[1] if wrapped else words}"
