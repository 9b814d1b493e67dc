"""A discrete-event simulation of the stages of a round, for pipeline.py."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One chunk of a stage."""

    stage: str
    """Its stage."""
    server: str
    """Who does it."""
    seconds: float
    """How long one server takes."""
    after: tuple[int, ...]
    """Tasks, by position, that must be finished before."""


def played(tasks: Sequence[Task], servers: Mapping[str, int]) -> list[float]:
    """When each task is finished: a free server takes the first task in the list that may begin.

    A discrete-event simulation. Tasks stand behind those that they wait for.
    """
    waits = [len(task.after) for task in tasks]
    behind: dict[int, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        for before in task.after:
            behind[before].append(number)
    ready: dict[str, list[int]] = {name: [] for name in servers}
    free, done, events = dict(servers), [0.0] * len(tasks), list[tuple[float, int]]()
    for number, task in enumerate(tasks):
        if not waits[number]:
            heapq.heappush(ready[task.server], number)
    now = 0.0
    while True:
        for name, queue in ready.items():
            while queue and free[name]:
                number = heapq.heappop(queue)
                free[name] -= 1
                heapq.heappush(events, (now + tasks[number].seconds, number))
        if not events:
            return done
        now, number = heapq.heappop(events)
        done[number] = now
        free[tasks[number].server] += 1
        for later in behind[number]:
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(ready[tasks[later].server], later)


@dataclass(frozen=True)
class Round:
    """A round of the game with an evolver: sizes, and the seconds of one prompt in each stage."""

    prompts: int
    """Of the pool."""
    chunk: int
    """Prompts in a chunk."""
    seconds: Mapping[str, float]
    """For a prompt: answer, reward, select, evolve, gate, lessons, learn; "fixed" once a round."""
    fresh: float = 0.8
    """Share of the batch that is newly answered."""


def tasks_of(one: Round, *, overlapping: bool) -> list[Task]:
    """The tasks of a round.

    As eva plays it, each waits for the one before. Overlapping, a chunk is rewarded while the next
    one is answered, and evolved, judged and answered while others are written; select, near
    duplicates and learn wait for everything before them.
    """
    tasks: list[Task] = []

    def add(stage: str, server: str, prompts: float, after: Iterable[int]) -> int:
        waits = tuple(after) if overlapping else tuple(range(len(tasks)))[-1:]
        tasks.append(Task(stage, server, prompts * one.seconds.get(stage, 0.0), waits))
        return len(tasks) - 1

    def answered(stage: str, prompts: int, after: Sequence[int]) -> list[int]:
        found = []
        for number, size in enumerate(_chunks(prompts, one.chunk)):
            waits = after if len(after) == 1 else after[number : number + 1]
            answer = add("answer", "policy", size, waits)
            found.append(add("reward", "reward", size, [answer]))
        return found

    begun = add("fixed", "eva", 1, [])
    tried = answered("tried", one.prompts, [begun])
    selected = add("select", "eva", one.prompts, tried)
    written = [
        add("evolve", "writer", size, [selected]) for size in _chunks(one.prompts, one.chunk)
    ]
    gated = add("gate", "eva", one.prompts, written)
    solved = answered("solved", round(one.fresh * one.prompts), [gated])
    lessons = add("lessons", "eva", one.prompts, solved)
    add("learn", "learner", one.prompts, [lessons])
    return tasks


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - first) for first in range(0, total, size)]


def shares(tasks: Sequence[Task], servers: Mapping[str, int]) -> dict[str, float]:
    """The seconds that each kind of server works, divided by how many there are."""
    found: dict[str, float] = defaultdict(float)
    for task in tasks:
        found[task.server] += task.seconds / servers[task.server]
    return dict(found)
