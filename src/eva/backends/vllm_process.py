"""vLLM's engine: its processes are started, watched and ended, and their log says why they failed.

vLLM 0.33 starts at least one process for a model. Two things are mended here: it would wait for
ever for a process that was killed, and (`eva.backends.orphans`) leave it behind if eva is killed.
"""

import gc
import logging
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from eva.backends.memory import give_back_memory
from eva.backends.orphans import STARTED
from eva.errors import BackEndError
from eva.serving.programs import ended
from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two looks at the processes."""
GRACE = 3.0
"""Seconds in which vLLM may say itself why one of them ended."""
CAUSE = re.compile(r"^.*? ERROR .*?\] ((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
"""The line of vLLM's log that names an error; the first one in a log caused the others."""


class Engine:
    """vLLM with a model, in processes of its own, until it is closed.

    Attributes:
        journal: The file that they print to; it is removed where all went well.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Start it.

        Args:
            arguments: Of `vllm.LLM`.

        Raises:
            BackEndError: vLLM cannot load the model.
        """
        descriptor, self.journal = tempfile.mkstemp(prefix="eva-vllm-", suffix=".log")
        os.close(descriptor)
        log.info("vLLM opens %s; its log is %s", arguments["model"], self.journal)
        others = multiprocessing.active_children()
        give_back_memory()  # vLLM measures what is free
        try:
            with _environment(), _printing_to(self.journal):
                self._llm: LLM | None = LLM(**arguments)
        except Exception as error:
            raise BackEndError(
                f"vLLM cannot load {arguments['model']} ({self._cause(error)}); correct the "
                "recipe's policy: policy.memory is its share of the GPU, and policy.context bounds "
                f"what an answer needs; its log is {self.journal}"
            ) from error
        self._processes = [p for p in multiprocessing.active_children() if p not in others]
        logging.getLogger("vllm").setLevel(logging.ERROR)  # in this process; it prints to stdout

    def close(self) -> None:
        """End the processes; the memory is then free."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()

    def __call__(self, ids: Sequence[list[int]], wanted: Sequence[SamplingParams]) -> list[Any]:
        """What vLLM makes of encoded prompts, in their order.

        Raises:
            BackEndError: It is closed, or a process died.
        """
        if self._llm is None:
            raise BackEndError(
                "expected an open policy; this one was closed when its context was left; "
                "ask it inside the with block of open_policy"
            )
        prompts = [{"prompt_token_ids": tokens} for tokens in ids]
        try:
            return _awaited(partial(_answers, self._llm, prompts, wanted), self._processes)
        except Exception as error:
            raise BackEndError(
                f"vLLM failed while it answered {len(ids)} prompts ({self._cause(error)}); run the "
                "same command again, with lower policy.memory or policy.rows if memory was short; "
                f"its log is {self.journal}"
            ) from error

    def _cause(self, error: Exception) -> str:
        """Why vLLM failed, in one line: the first error in its log, or that of this process."""
        found = CAUSE.search(Path(self.journal).read_text(errors="replace"))
        if found is not None:
            return found[1]
        words = " ".join(str(error).split())
        if isinstance(error, BackEndError):
            return words
        # pydantic wraps the reason in a sentence about its types.
        wrapped = re.search(r"Value error, (.*?)(?: \[type=|$)", words)
        return f"{type(error).__name__}: {wrapped[1] if wrapped else words}"


def _answers(
    llm: LLM, prompts: Sequence[dict[str, list[int]]], wanted: Sequence[SamplingParams]
) -> list[Any]:
    """What vLLM makes of prompts.

    It begins when all requests are there, and knows no prefix from earlier calls: a run that was
    killed and asks again cuts the same batches.
    """
    llm.reset_prefix_cache()
    llm.sleep(level=0)
    llm.enqueue(prompts, wanted, use_tqdm=False)
    llm.wake_up(tags=["scheduling"])
    return list(llm.wait_for_completion(use_tqdm=False))


def _awaited(work: Callable[[], list[Any]], processes: Sequence[BaseProcess]) -> list[Any]:
    """What `work` returns, done in a thread beside, as long as all `processes` live.

    Raises:
        BackEndError: A process ended.
    """
    done: Future[list[Any]] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  # it is raised in the other thread
            done.set_exception(error)

    Thread(target=run, daemon=True, name="eva-vllm").start()
    while not wait([done], BEAT).done:
        dead = [process for process in processes if process.exitcode is not None]
        if dead and not wait([done], GRACE).done:
            raise BackEndError(f"its process {dead[0].name} {ended(dead[0].exitcode or 0)}")
    return done.result()


@contextmanager
def _environment() -> Iterator[None]:
    """What the processes are started with.

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
    """Add to a file what this process prints, and for ever what processes print that it starts."""
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
