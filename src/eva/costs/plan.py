"""The whole plan of a run on a machine: work, memory, hours, money, disk, and one sentence."""

from dataclasses import asdict, dataclass

from pydantic import JsonValue

from eva.config import Recipe
from eva.costs.bills import Bill, bills, disk
from eva.costs.cards import GIB
from eva.costs.counts import Lengths, Sizes, Work, work
from eva.costs.fitting import nearest, too_large
from eva.costs.gpus import needed
from eva.costs.hours import Machine, Stage, named, stages, wall
from eva.costs.launch import Launch
from eva.costs.memory import Load, Models, Setting, loads
from eva.parts.learners import Update
from eva.parts.policies import LanguageModel


@dataclass(frozen=True)
class Plan:
    """What a run does, needs and costs."""

    machine: Machine
    """The GPUs that it is planned on."""
    work: Work
    """Who is asked what."""
    loads: tuple[Load, ...]
    """What each device holds."""
    host: float | None
    """Bytes of main memory while the learner's processes read the model; None: not known."""
    stages: tuple[Stage, ...]
    """What takes time."""
    hours: float | None
    """Of all stages whose hours are known; None if no stage's are."""
    gpu_hours: float | None
    """Hours times all GPUs that are held."""
    gpu_money: float | None
    """What they cost."""
    bills: tuple[Bill, ...]
    """What servers charge."""
    disk: dict[str, float | None]
    """Bytes, by what they are."""
    sentence: str
    """Whether it fits, or what does not and the nearest setting that does."""

    def as_json(self) -> dict[str, JsonValue]:
        """All of it, for machines; models by their names."""
        asks: list[JsonValue] = [
            {
                "stage": ask.stage,
                "model": named(ask.who),
                "calls": ask.calls,
                "read": ask.read,
                "read_most": ask.read_most,
                "written": ask.written,
                "written_most": ask.written_most,
            }
            for ask in self.work.asks
        ]
        memory: list[JsonValue] = [
            {**asdict(load), "unknown": list(load.unknown), "total": load.total, "fits": load.fits}
            for load in self.loads
        ]
        return {
            "machine": asdict(self.machine),
            "asks": asks,
            "learning": asdict(self.work.learning) if self.work.learning else None,
            "unknown": list(self.work.unknown),
            "memory": memory,
            "host_memory": self.host,
            "stages": [{**asdict(stage), "hours": stage.hours} for stage in self.stages],
            "hours": self.hours,
            "gpu_hours": self.gpu_hours,
            "gpu_money": self.gpu_money,
            "bills": [{**asdict(bill), "verdict": bill.verdict} for bill in self.bills],
            "disk": dict(self.disk),
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Given:
    """What a plan is made for, beside the recipe."""

    sizes: Sizes
    """What the recipe's files hold."""
    lengths: Lengths
    """Mean lengths."""
    longest: float
    """Tokens of the longest prompt."""
    machine: Machine
    """The GPUs."""
    launch: Launch
    """The learner's processes."""
    gpu_price: float | None = None
    """Of a GPU for an hour."""


def planned(recipe: Recipe, models: Models, given: Given) -> Plan:
    """The plan of a recipe; `models` holds the shapes of all models that it names."""
    machine, launch = given.machine, given.launch
    found = work(recipe, given.sizes, given.lengths)
    setting = Setting(machine.card, machine.gpus, launch, given.longest, recipe.sampling.max_tokens)
    held = tuple(loads(recipe, models, setting))
    took = tuple(stages(recipe, found, models, given.lengths, (machine, launch)))
    hours = wall(took)
    gpu_hours = None if hours is None else hours * machine.gpus
    priced = gpu_hours is not None and given.gpu_price is not None
    return Plan(
        machine=machine,
        work=found,
        loads=held,
        host=_host(recipe, models, launch),
        stages=took,
        hours=hours,
        gpu_hours=gpu_hours,
        gpu_money=(gpu_hours or 0.0) * (given.gpu_price or 0.0) if priced else None,
        bills=tuple(bills(found)),
        disk=disk(recipe, found, models, given.sizes, given.lengths),
        sentence=_sentence(recipe, models, setting, held),
    )


def _host(recipe: Recipe, models: Models, launch: Launch) -> float | None:
    """Each of the learner's processes reads the whole model, in float32, before it is cut."""
    policy = recipe.policy
    shape = models.get(policy.model) if isinstance(policy, LanguageModel) else None
    if shape is None or not isinstance(recipe.learner, Update):
        return None
    return 4.0 * shape.parameters * launch.processes


def _sentence(recipe: Recipe, models: Models, setting: Setting, held: tuple[Load, ...]) -> str:
    """One sentence that says whether it fits."""
    unknown = sorted({name for load in held for name in load.unknown})
    told = f"; not known: {', '.join(unknown)}" if unknown else ""
    if not held:
        return "no language model of this run is held by eva, so there is nothing to fit"
    if all(load.device == "main memory" for load in held):
        return f"needs {sum(load.total for load in held) / GIB:.1f} GiB of main memory{told}"
    need = needed(recipe, setting.launch)
    if setting.card is None:
        more = f" (with --gpus {need.gpus}, for {need.who})" if need.gpus > setting.gpus else ""
        return f"name a GPU (--gpu or --gpu-memory) to see whether it fits{more}{told}"
    large = too_large(recipe, models, setting)
    if not large and need.gpus <= setting.gpus:
        return f"fits{told}"
    changes = nearest(recipe, models, setting)
    help_ = "no change that eva check knows makes it fit: take larger GPUs or a smaller model"
    if changes:
        help_ = f"the nearest setting that fits: {', '.join(changes)}"
    if need.gpus > setting.gpus:
        help_ += "; or ask for fewer in the recipe" if changes else ""
        return (
            f"does not fit: it needs {need.gpus} GPUs, for {need.who}, and --gpus is "
            f"{setting.gpus}; {help_}{told}"
        )
    first = max(large, key=lambda load: load.total - (load.room or 0.0))
    return (
        f"does not fit: {first.phase} needs {first.total / GIB:.1f} GiB of the "
        f"{(first.room or 0.0) / GIB:.1f} GiB on {first.device}; {help_}{told}"
    )
