"""How long a run takes on given GPUs, and what is billed for it: estimates from public peaks.

Decoding reads all weights and the cache for each token of all rows, so memory's bandwidth bounds
it; reading prompts, rewards and learning are matrix products, so the peak does. Either is reached
in part: `DECODE` and `COMPUTE`. eva's stages follow one another, so hours add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eva.config import Recipe
from eva.costs.cards import Card
from eva.costs.counts import Ask, Learning, Lengths, Work
from eva.costs.launch import Launch
from eva.costs.memory import Models
from eva.costs.shapes import Shape
from eva.costs.training import number_size
from eva.parts.learners import Offline, Update
from eva.parts.policies import HfPolicy, HttpPolicy, LanguageModel, VllmPolicy
from eva.parts.rewards import ClassifierReward, PairwiseReward

DECODE = 0.5
"""Share of the memory's bandwidth that decoding reaches. Our assumption."""
COMPUTE = 0.4
"""Share of the peak that large matrix products reach. Our assumption."""


@dataclass(frozen=True)
class Machine:
    """What a run may use."""

    gpus: int = 1
    """How many GPUs are held for the whole run."""
    card: Card | None = None
    """Of which kind."""
    tokens_per_second: float | None = None
    """Tokens that the policy writes in a second, all its GPUs or servers together, where that was
    measured; None estimates it."""


@dataclass(frozen=True)
class Stage:
    """The hours of one stage, over all rounds."""

    name: str
    """The stage and the model."""
    tokens: float
    """Tokens that are written, or for what writes nothing, read."""
    speed: float | None
    """Of these tokens in a second; None where it is not known."""
    gpus: int
    """GPUs that work; the others wait. 0 where it is served elsewhere."""

    @property
    def hours(self) -> float | None:
        """Its time."""
        return None if self.speed is None else self.tokens / self.speed / 3600


def stages(
    recipe: Recipe, work: Work, models: Models, lengths: Lengths, where: tuple[Machine, Launch]
) -> list[Stage]:
    """The stages of a run, each with what it takes."""
    machine, launch = where
    found = [
        _stage(ask, recipe, models, lengths, machine)
        for ask in work.asks
        if ask.written or ask.read
    ]
    policy, part = recipe.policy, recipe.learner
    if work.learning and work.learning.trained and isinstance(part, Update):
        assert isinstance(policy, LanguageModel)  # the recipe was checked
        shape = models.get(policy.model)
        found.append(_learning(work.learning, part, shape, machine, launch))
    return found


def _stage(ask: Ask, recipe: Recipe, models: Models, lengths: Lengths, machine: Machine) -> Stage:
    who = ask.who
    name = f"{ask.stage}: {named(who)}"
    gpus = _gpus(who, machine)
    if isinstance(who, ClassifierReward | PairwiseReward):
        shape = models.get(who.model or "")
        return Stage(name, ask.read, forward(shape, machine.card, gpus), gpus)
    assert isinstance(who, LanguageModel)  # of the others, none reads or writes
    if who == recipe.policy and machine.tokens_per_second:
        return Stage(name, ask.written, machine.tokens_per_second, gpus)
    shape = models.get(who.model)
    reading = forward(shape, machine.card, gpus)
    if shape is None or machine.card is None or reading is None:
        return Stage(name, ask.written, None, gpus)
    # A prompt is read once for all its responses, but stands before each of them.
    context = max(lengths.prompt, ask.read / ask.calls) + ask.written / ask.calls / 2
    rows = min(_rows(who, shape, context, machine.card, gpus), ask.calls)
    writing = decode(shape, machine.card, gpus, rows=rows, context=context)
    seconds = ask.written / writing + ask.read / reading
    return Stage(name, ask.written, ask.written / seconds, gpus)


def _gpus(who: object, machine: Machine) -> int:
    """How many GPUs a model works on: servers that eva starts may take all of them."""
    if isinstance(who, HttpPolicy):
        return min(who.serve.count, machine.gpus) if who.serve else 0
    return min(who.tensor_parallel, machine.gpus) if isinstance(who, VllmPolicy) else 1


def _rows(part: LanguageModel, shape: Shape, context: float, card: Card, gpus: int) -> int:
    """Responses side by side; a server takes as many as its memory holds."""
    if isinstance(part, HfPolicy):
        return part.rows
    wanted = part.concurrency * gpus if isinstance(part, HttpPolicy) else 256
    if isinstance(part, VllmPolicy):
        wanted = part.rows
    copies = gpus if isinstance(part, HttpPolicy) else 1
    size = number_size(part.dtype, "cuda")
    left = gpus * card.usable * 0.9 - copies * size * shape.parameters
    return max(1, min(wanted, int(left / (context * shape.cache(size)))))


def named(who: object) -> str:
    """A model as it is shown."""
    if isinstance(who, HttpPolicy):
        return who.name or who.model
    if isinstance(who, LanguageModel | ClassifierReward | PairwiseReward):
        return who.model or "a function"
    return "a function" if who is None else "a service"


def decode(shape: Shape, card: Card, gpus: int, *, rows: float, context: float) -> float:
    """Tokens a second that are written, with `rows` responses of a mean length `context`.

    A step gives `rows` tokens and takes the longer of ``(2 N + rows context cache) / (gpus
    bandwidth u)`` and ``2 N rows / (gpus peak c)``. The numbers of the card must be known.
    """
    assert card.bandwidth is not None
    assert card.peak is not None
    weights = 2.0 * shape.parameters
    read = (weights + rows * context * shape.cache(2.0)) / (gpus * card.bandwidth * DECODE)
    multiplied = 2.0 * shape.multiplied * rows / (gpus * card.peak * COMPUTE)
    return rows / max(read, multiplied)


def forward(shape: Shape | None, card: Card | None, gpus: int) -> float | None:
    """Tokens a second that are read: ``gpus peak c / 2 N``."""
    if shape is None or card is None or card.peak is None or not gpus:
        return None
    return gpus * card.peak * COMPUTE / (2.0 * shape.multiplied)


def operations(part: Update) -> float:
    """Operations for each parameter and trained token: 6, 8 with checkpointing, 2 fewer with LoRA.

    Forward 2, backward 2 for the inputs and 2 for the weights, and 2 to compute again.
    """
    return 6.0 + (2.0 if part.gradient_checkpointing else 0.0) - (2.0 if part.lora else 0.0)


def _learning(
    learning: Learning, part: Update, shape: Shape | None, machine: Machine, launch: Launch
) -> Stage:
    """The optimiser's passes, and the reference's."""
    gpus = min(launch.processes, machine.gpus)
    if isinstance(part, Offline) and part.batch_tokens is None:
        gpus = min(gpus, part.batch)  # a step's pairs are shared out, one at least to each
    reading = forward(shape, machine.card, gpus)
    if reading is None:
        return Stage("learn", learning.trained, None, gpus)
    seconds = (learning.trained * operations(part) / 2 + learning.scored) / reading
    return Stage("learn", learning.trained, learning.trained / seconds, gpus)


def wall(found: Sequence[Stage]) -> float | None:
    """Hours of the run as far as they are known, stage after stage; None if no stage's are."""
    known = [stage.hours for stage in found if stage.hours is not None]
    return sum(known) if known else None
