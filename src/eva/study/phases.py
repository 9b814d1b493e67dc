"""A study from its plan to its findings: prepare, tune, play, and count what it took.

`findings.json` is a function of the runs alone; what depends on the machine and on the day stands
in `made.json`.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from eva.findings import Made
from eva.named import called
from eva.start import facts
from eva.store import write_json
from eva.study import found, table
from eva.study.asked import Awaited, asked, check_sets, chosen_by
from eva.study.cells import Site, table_cells, tuning_cells
from eva.study.fair import check_alike, check_distinct
from eva.study.folder import held, read_made
from eva.study.inputs import Inputs
from eva.study.plan import Played, Setting, Study, Tuning, grid, places, tuned_at
from eva.study.play import heavy, play
from eva.study.prepare import folders, make_folders


@dataclass(frozen=True)
class Far:
    """How far a study is."""

    stage: str
    """What is being done: "prepare" or "play"."""
    done: int
    """Folders, or rounds of all cells, that are done."""
    total: int
    """How many there are."""
    left: float | None = None
    """Seconds that are left, by the rate of this attempt; None while that is not known."""


Watch: TypeAlias = Callable[[Far], None]
"""Told how far a study is."""


def unwatched(far: Far) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Plan:
    """What a study is going to play."""

    site: Site
    """Where."""
    tuning: tuple[Played, ...]
    """The cells that settings are chosen by."""
    tabled: tuple[Played, ...]
    """The cells of the table, each at the first setting: which one is chosen shows later."""

    @property
    def rounds(self) -> int:
        """What all cells together play, the evaluation of the last theta counted as a round."""
        return sum(rounds_of(cell) for cell in (*self.tuning, *self.tabled))

    @property
    def heavy(self) -> list[str]:
        """The modules that the cells need and that take long to import."""
        return heavy(cell.recipe for cell in (*self.tuning, *self.tabled))


def planned(study: Study, home: Path, here: Path) -> Plan:
    """The plan of a study, every setting at every place checked; nothing is made yet.

    Raises:
        RecipeError: A recipe, a command or the probe is wrong, arms are not measured alike, two
            cells are one, or a metric is of no held-out set.
    """
    if study.probe:
        called(study.probe, here)
    site = Site(home.absolute(), here, folders(study, home, here))
    tried = max(len(grid(study, place)) for place in places(study, study.factors))
    tabled = [table_cells(study, site, _numbered(study, number)) for number in range(tried)]
    every = [cell for cells in tabled for cell in cells if cell.seed == study.seeds[0]]
    check_alike(study, every)
    check_distinct(every)
    check_sets(study, every)
    return Plan(site, tuple(tuning_cells(study, site)), tuple(tabled[0]))


def _numbered(study: Study, number: int) -> dict[Tuning, Setting]:
    """The setting with a number, from 0, at every place; the last one where there are fewer."""
    chosen = {}
    for place in places(study, study.factors):
        tried = grid(study, place)
        for arm in study.arms:
            chosen[tuned_at(study, arm, place)] = tried[min(number, len(tried) - 1)]
    return chosen


def rounds_of(cell: Played) -> int:
    """The rounds of a cell, the evaluation of the last theta counted as one."""
    return cell.recipe.rounds + 1


def run(
    study: Study,
    home: Path,
    *,
    here: Path,
    jobs: int,
    command: str,
    watch: Watch = unwatched,
) -> Iterator[Played]:
    """Play a study, or go on with it; yields each cell as it ends, those that are done first.

    At the end `findings.json` and `made.json` are in `home`, also where cells failed: each says so
    itself, and the next call tries it again.

    Args:
        study: What to play.
        home: The study directory; made if it is missing.
        here: The folder of the study file: paths and Python functions are looked for there.
        jobs: Processes side by side.
        command: What remakes the study, for `made.json`.
        watch: Told how far it is.

    Raises:
        EvaError: One sentence that says what to do; see eva.errors.
    """
    plan = planned(study, home, here)
    with held(home, study):
        counts = _Counts(plan, jobs, command, watch)
        for done, total in make_folders(study, home, here=here, jobs=jobs, preload=plan.heavy):
            watch(Far("prepare", done, total))
        counts.start()
        ends = _Ends(study, plan)
        tuned = yield from _phase(study, plan.tuning, counts, ends)
        cells = table_cells(study, plan.site, table.chosen(study, tuned))
        tabled = yield from _phase(study, cells, counts, ends)
        findings = found.findings(study, [*tuned, *tabled])
        # As the study says it: the order of factors, and of the keys of a setting, says something.
        write_json(home / "findings.json", findings.model_dump(mode="json"), is_sorted=False)
        counts.write()


def _phase(
    study: Study, cells: Sequence[Played], counts: "_Counts", ends: "_Ends"
) -> Generator[Played, None, list[Played]]:
    """Play some cells; yields each as it ends, returns all in the order of the plan."""
    ended = {}
    here, preload = counts.plan.site.here, counts.plan.heavy
    told = play(study, cells, counts.tell, here=here, jobs=counts.jobs, preload=preload)
    with closing(told) as playing:
        for cell in playing:
            ended[cell.path] = cell
            counts.end(cell)
            yield cell
            ends.see(cell)
    return [ended[cell.path] for cell in cells]


class _Ends:
    """What is checked at each end of a cell, so that a study does not go on in vain."""

    def __init__(self, study: Study, plan: Plan) -> None:
        self._inputs = Inputs()
        self._by = Awaited(chosen_by(study), plan.tuning)
        self._asked = Awaited(asked(study), (*plan.tuning, *plan.tabled))

    def see(self, cell: Played) -> None:
        """A cell has ended."""
        self._inputs.see(cell)
        self._asked.see(cell)
        if cell.use == "tune":
            self._by.see(cell)


class _Counts:
    """How far a study is, and what it took so far."""

    def __init__(self, plan: Plan, jobs: int, command: str, watch: Watch) -> None:
        self.plan, self.jobs = plan, jobs
        self._home, self._command, self._watch = plan.site.home, command, watch
        self._before = read_made(self._home)
        self._facts = facts(plan.tabled[0].recipe)
        self._began = self._started = time.monotonic()
        self._done: dict[Path, int] = {}
        self._played, self._cpu_seconds = 0, 0.0
        self._commits: dict[str, None] = {}

    def start(self) -> None:
        """What is prepared is prepared; from here on rounds are played."""
        self._started = time.monotonic()

    def tell(self, cell: Played, t: int) -> None:
        """A cell has closed round t."""
        self._done[cell.path] = t + 1
        self._played += 1
        self._say()

    def end(self, cell: Played) -> None:
        """A cell has ended, in this attempt or in one before."""
        self._done[cell.path] = rounds_of(cell)
        if cell.result:
            self._cpu_seconds += cell.result.cpu_seconds
            self._commits |= {cell.result.commit: None} if cell.result.commit else {}
        if self._played:
            self.write()
        self._say()

    def write(self) -> None:
        """Write `made.json`; an attempt that plays nothing leaves the times that were written.

        Cells of several commits are all told.
        """
        before, beside = self._before, self._home / "made.json"
        minutes = (time.monotonic() - self._began) / 60
        commit = " and ".join(self._commits) or self._facts["commit"]
        if before and not self._played:
            made = before.model_copy(update={"command": self._command, "commit": commit})
        else:
            made = Made.model_validate(
                {
                    "command": self._command,
                    "date": datetime.now(UTC).isoformat(timespec="minutes"),
                    "commit": commit,
                    "versions": self._facts["versions"],
                    "minutes": minutes + (before.minutes if before else 0.0),
                    "cpu_minutes": self._cpu_seconds / 60,
                    "jobs": self.jobs,
                }
            )
        write_json(beside, made.model_dump(mode="json"))

    def _say(self) -> None:
        done, total = sum(self._done.values()), self.plan.rounds
        seconds = time.monotonic() - self._started
        left = (total - done) * seconds / self._played if self._played else None
        self._watch(Far("play", done, total, left))
