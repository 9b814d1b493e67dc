"""All that a study found, from its runs alone."""

from collections.abc import Sequence

from eva.findings import Cell, Findings
from eva.study import claims, spent, table
from eva.study.plan import Played, Study


def findings(study: Study, played: Sequence[Played]) -> Findings:
    """The tables, budgets, verdicts, curves and grids of a study.

    Nothing of it depends on the machine, or on how often the study was stopped: the same results
    give the same findings, byte for byte.

    Args:
        study: The study.
        played: Its runs, for tuning and for the table, in the order of the plan.
    """
    results = table.tabled_results(study, played)
    verdicts, unjudged = claims.verdicts(study, results)
    return Findings(
        name=study.name,
        question=study.question,
        arms=tuple(study.arms),
        factors={name: tuple(levels) for name, levels in study.factors.items()},
        pooled=study.pool,
        axes=study.axes,
        metrics=study.metrics,
        rows=tuple(table.rows(study, results)),
        spent=tuple(spent.spent(study, results)),
        unequal=tuple(spent.unequal(study, results)),
        equal=tuple(spent.equal(study, results)),
        verdicts=tuple(verdicts),
        unjudged=tuple(unjudged),
        lines=tuple(table.lines(study, results)),
        tuned=tuple(table.tuned(study, played)),
        tuned_by=study.tune.by if study.tune else None,
        tuned_within=study.tune.within if study.tune else 0.0,
        cells=tuple(_cell(one) for one in played),
    )


def _cell(one: Played) -> Cell:
    return Cell(
        place=one.place,
        arm=one.arm,
        setting=one.setting,
        seed=one.seed,
        use=one.use,
        path=one.within,
        failed=one.failed,
    )
