"""Studies: arms that differ by a few lines, on the same seeds, at equal budget, with intervals.

A study is a file (`written`, `plan`). Its cells are runs (`cells`), each played in a process of its
own (`play`, `forks`) and read once (`results`); what they share is prepared (`prepare`), and all of
it lies in one directory (`folder`). Arms must be comparable (`fair`), have read the same (`inputs`)
and measure what the study names (`asked`). `phases` takes a study from its plan to `findings.json`,
which is a function of the runs alone (`found`, from `table`, `spent`, `claims`), and `page` prints
that.

    from eva.study import load, run
    for cell in run(load(Path("study.yaml")), Path("runs/study"), here=Path(), jobs=4, ...):
        print(cell.within, cell.failed or "done")
"""

from eva.study.phases import Far, Plan, planned, run
from eva.study.plan import Played, Study, checked_study, grid
from eva.study.written import load

__all__ = ["Far", "Plan", "Played", "Study", "checked_study", "grid", "load", "planned", "run"]
