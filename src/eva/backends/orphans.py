"""A process of vLLM's engine ends with the process that started it.

vLLM ends its engine when it is asked to. If the process that asks is killed (``kill -9``, or for
lack of memory), vLLM 0.32 leaves the engine waiting for ever, with the memory of the GPU, and the
run that is started again has none. vLLM calls `end_with_parent` in each of its processes, for it is
registered with the package as one of vLLM's plug-ins.
"""

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess
from threading import Thread

STARTED = "EVA_STARTED_ENGINE"
"""The environment variable of engines that eva started; those of others are left alone."""


def end_with_parent() -> None:
    """Kill this process as soon as its parent is gone; for engines that eva started alone."""
    parent = multiprocessing.parent_process()
    if parent is not None and STARTED in os.environ:
        Thread(target=_wait, args=(parent,), daemon=True, name="eva-orphans").start()


def _wait(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
