"""The creator of a recipe: estimate, sample, evolve, judge."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

import eva.toy
from eva.build.given import HELD_OUT, prompts
from eva.build.models import asked, writer
from eva.evolve.spread import Shared, Spread
from eva.extras import extra
from eva.formulas import selection
from eva.formulas.informativeness import INFO
from eva.formulas.phases import evolved_share
from eva.game import Creator, StreamCreator
from eva.named import called
from eva.parts import PythonCall
from eva.parts.creators import CreatorPart, InfoName, OtherSelect, Proportional, SelectPart
from eva.parts.creators import StreamCreator as StreamPart
from eva.parts.evolvers import (
    EvolInstruct,
    EvolvePart,
    PlaygroundEvolver,
    SelfInstruct,
    ToyEvolver,
)
from eva.parts.gates import Gates
from eva.parts.policies import HttpPolicy
from eva.protocols import Evolver, Info, Screen, Select, Share
from eva.records import Prompt


def creator(
    part: CreatorPart, held_out: Mapping[str, Sequence[Prompt]], here: Path, cache: Path | None
) -> Creator | StreamCreator:
    """The creator of a recipe; `held_out` are the prompts that checkpoints are measured on."""
    if isinstance(part, StreamPart):
        return StreamCreator(
            info=info(part.info, here),
            select=select(part.select),
            evolver=evolver(part.evolve, here, cache),
            share=share(part),
            keep=part.select.keep,
            buffer=part.buffer,
            max_age=part.max_age,
            screens=screens(part.gates, held_out, cache),
        )
    return Creator(
        info=info(part.info, here),
        select=select(part.select),
        evolver=evolver(part.evolve, here, cache) if part.evolve else None,
        keep=part.select.keep,
        fresh=part.fresh,
        replay=part.replay,
        estimate=part.estimate,
        start=part.start,
        screens=screens(part.gates, held_out, cache),
    )


def share(part: StreamPart) -> Share:
    """The phases of an online run."""
    return partial(
        evolved_share,
        warmup=part.warmup,
        mixup=part.mixup,
        evolved=part.evolved,
        bootstrap=part.bootstrap,
    )


def info(part: InfoName | PythonCall, here: Path) -> Info:
    """The informativeness metric of a name or of your own function."""
    return called(part, here) if isinstance(part, PythonCall) else INFO[part]


def select(part: SelectPart) -> Select:
    """How parents are drawn."""
    if isinstance(part, Proportional):
        return partial(selection.proportional, floor=part.floor)
    assert isinstance(part, OtherSelect)
    return {
        "rank": selection.rank,
        "greedy": selection.greedy,
        "stratified": selection.stratified,
        "uniform": selection.uniform,
    }[part.kind]


def evolver(part: EvolvePart, here: Path, cache: Path | None) -> Evolver:
    """Who rewrites the parents."""
    match part:
        case ToyEvolver():
            return eva.toy.make_evolver(part)
        case PlaygroundEvolver():
            from eva.playground import evolve

            return evolve.make_evolver(part)
        case EvolInstruct() | SelfInstruct():
            build = partial(instruct, part, cache)
            alone = build()  # it reads its templates: a wrong one is told at once
            if part.processes == 1:
                return alone
            return Spread(build, part.processes)
        case PythonCall():
            own: Evolver = called(part, here)
            return own
        case _:
            assert_never(part)


def instruct(part: EvolInstruct | SelfInstruct, cache: Path | None) -> Shared:
    """A language model as an evolver; of several processes, what each of them has."""
    from eva.evolve import evol_instruct, self_instruct

    by = part.by
    if isinstance(by, HttpPolicy):
        by = by.model_copy(update={"concurrency": by.concurrency // part.processes})
    if isinstance(part, SelfInstruct):
        return self_instruct.SelfInstruct(part, writer(by, cache))
    return evol_instruct.EvolInstruct(part, writer(by, cache))


def screens(
    part: Gates | None, held_out: Mapping[str, Sequence[Prompt]], cache: Path | None
) -> tuple[Screen, ...]:
    """The gates of a recipe; `held_out` are the prompts that checkpoints are measured on."""
    if part is None:
        return ()
    from eva.gates import order

    apart = dict(held_out)
    if part.contamination:
        for name, inner in part.contamination.sets.items():
            apart[name] = prompts(inner, HELD_OUT)[0]
    place = "creator.gates.answerable.by"
    judge = asked(part.answerable.by, cache, place) if part.answerable else None
    with extra("gates", "creator.gates"):
        return order.screens(part, apart, judge)
