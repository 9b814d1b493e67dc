"""What the tests run in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from eva.errors import RunDirError


def count(tell, most):
    for number in range(most):
        tell(number)
    said = f"counted {os.environ['OMP_NUM_THREADS']} {sys.modules['__main__'].__spec__}\n"
    sys.stdout.write(said)


def refuse(tell):
    raise RunDirError("not here")


def break_down(tell):
    raise ValueError("no such thing")


def blame(tell):
    try:
        break_down(tell)
    except ValueError as error:
        raise RunDirError("not here either") from error


def crash(tell):
    os.abort()


def die(tell):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(tell):
    os._exit(3)


def sleep(tell, marks):
    """Start a program that holds the log too, and wait for ever; leave a mark when asked to end."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        tell(os.getpid())  # inside: whoever hears it may ask at once
        time.sleep(600)
    except KeyboardInterrupt:
        Path(marks).write_text("asked")
        raise


def stay(tell):
    """Do not end when asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(os.getpid())
    time.sleep(600)
