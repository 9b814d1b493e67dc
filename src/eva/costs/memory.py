"""What the devices of a run hold at the same time, in bytes, phase by phase.

What an update holds stands in `eva.costs.training`. Two phases of an offline round follow each
other, since the sampler and the reward give their memory back before the learner starts; online all
of it stands side by side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel

from eva.config import Recipe
from eva.costs.cards import GIB, Card, index
from eva.costs.counts import needs_reference
from eva.costs.launch import Launch, option
from eva.costs.shapes import Shape
from eva.costs.training import gathered, is_narrow, number_size, one_pass, passing, roots, state
from eva.parts.evolvers import EvolInstruct, SelfInstruct
from eva.parts.learners import Offline, Online, OnlineDpo, Trl, Update
from eva.parts.policies import HfPolicy, HttpPolicy, LanguageModel, ToyPolicy, VllmPolicy
from eva.parts.rewards import (
    ClassifierReward,
    JudgeReward,
    LengthReward,
    PairwiseReward,
    RewardPart,
    SumReward,
)

PREFILL = 2**16
"""Prompt tokens that the sampler encodes side by side (`eva.backends.hf`)."""
SLICE = 6 * 2**26
"""Bytes of scratch in which the next token is looked up (`eva.backends.pick`)."""
VLLM = 3 * GIB
"""What vLLM takes of its share for activations and graphs. Our guess."""

Models: TypeAlias = Mapping[str, Shape | None]
"""The shape of each model that a recipe names; None where it is not known."""


Named: TypeAlias = LanguageModel | ClassifierReward | PairwiseReward
"""A part that names a model."""


@dataclass(frozen=True)
class Setting:
    """What a run runs on, as far as memory goes."""

    card: Card | None
    """The GPU; None for none named."""
    gpus: int
    """How many."""
    launch: Launch
    """The learner's processes."""
    prompt: float
    """Tokens of the longest prompt."""
    response: int
    """Tokens of the longest response."""

    @property
    def chat(self) -> float:
        """Tokens of the longest prompt and response together."""
        return self.prompt + self.response


@dataclass(frozen=True)
class Load:
    """What one device holds at the same time."""

    phase: str
    """When."""
    device: str
    """Where."""
    parts: dict[str, float]
    """Bytes, by what they are."""
    room: float | None
    """Bytes that there are; None where no GPU was named, or the device is none."""
    unknown: tuple[str, ...] = field(default=())
    """Models whose shape is not known; they need memory that is not counted."""

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None if that is not known."""
        if self.room is None:
            return None
        return False if self.total > self.room else None if self.unknown else True


def loads(recipe: Recipe, models: Models, setting: Setting) -> list[Load]:
    """What each device holds in each phase; nothing for a run without language models."""
    if isinstance(recipe.policy, ToyPolicy):
        return []
    beside = _by_device(recipe, models, setting)
    sampler = _sampler(recipe, models, setting)
    if isinstance(recipe.learner, Online):
        return _joined("sample, reward and learn", [_online(recipe, models, setting), *beside])
    learner = _learner(recipe, models, setting)
    return [
        *_joined("sample and reward", [*sampler, *beside]),
        *([learner] if learner else []),
    ]


def models_of(part: object) -> Iterator[Named]:
    """Every model that a part of a recipe names, the part itself included."""
    if isinstance(part, LanguageModel | ClassifierReward | PairwiseReward):
        yield part
    if isinstance(part, BaseModel):
        part = dict(part)
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple):
        for inner in part:
            yield from models_of(inner)


def _joined(phase: str, found: list[Load]) -> list[Load]:
    """One load for each device, in the order in which they come."""
    joined: dict[str, Load] = {}
    for one in found:
        known = joined.get(one.device, Load(phase, one.device, {}, one.room))
        joined[one.device] = Load(
            phase, one.device, known.parts | one.parts, one.room, known.unknown + one.unknown
        )
    return list(joined.values())


def _place(device: str, setting: Setting) -> tuple[str, float | None]:
    """A device of a recipe as it is shown, and the bytes that it has."""
    number = index(device)
    if number is None:
        return "main memory", None
    room = setting.card.usable if setting.card else None
    if room and number >= setting.gpus:
        return f"GPU {number} (--gpus {setting.gpus}: there is none)", 0.0
    return f"GPU {number}", room


# ---------------------------------------------------------------- sampling


def _sampler(recipe: Recipe, models: Models, setting: Setting) -> list[Load]:
    """The policy, opened for a round. Servers that eva does not start keep their own house."""
    part = recipe.policy
    if isinstance(part, HfPolicy):
        return [_asked("policy", part, recipe.sampling.max_tokens, recipe.n, models, setting)]
    if isinstance(part, VllmPolicy):
        return list(_vllm("policy", part, models, setting))
    assert isinstance(part, HttpPolicy)  # a toy policy holds nothing
    return list(_served("policy", part, models, setting))


def _by_device(recipe: Recipe, models: Models, setting: Setting) -> list[Load]:
    """All other models of this process."""
    found = list(_rewards(recipe.reward, "reward", models, setting))
    if recipe.evaluate and recipe.evaluate.reward:
        found += _rewards(recipe.evaluate.reward, "held-out reward", models, setting)
    if recipe.evaluate and recipe.evaluate.monitor:
        found += _rewards(recipe.evaluate.monitor.reward, "monitor", models, setting)
    creator = recipe.creator
    if creator and isinstance(creator.evolve, EvolInstruct | SelfInstruct):
        found += _model("evolver", creator.evolve.by, creator.evolve.sampling.max_tokens,
                        models, setting)  # fmt: skip
    if creator and creator.gates and creator.gates.answerable:
        judge = creator.gates.answerable
        found += _model("answerable", judge.by, judge.sampling.max_tokens, models, setting)
    return found


def _rewards(part: RewardPart, role: str, models: Models, setting: Setting) -> Iterator[Load]:
    """The models behind a reward."""
    match part:
        case SumReward():
            for number, term in enumerate(part.terms, 1):
                yield from _rewards(term.reward, f"{role} {number}", models, setting)
        case LengthReward():
            yield from _rewards(part.of, role, models, setting)
        case JudgeReward():
            yield from _model(role, part.by, part.sampling.max_tokens, models, setting)
        case ClassifierReward() | PairwiseReward() if part.model is not None:
            yield _classifier(role, part, part.model, models, setting)
        case _:
            return


def _model(
    role: str, part: object, max_tokens: int, models: Models, setting: Setting
) -> Iterator[Load]:
    """A model that is only asked, where it is in this process."""
    if isinstance(part, HfPolicy):
        yield _asked(role, part, max_tokens, 1, models, setting)
    elif isinstance(part, VllmPolicy):
        yield from _vllm(role, part, models, setting)
    elif isinstance(part, HttpPolicy):
        yield from _served(role, part, models, setting)


def _asked(
    role: str, part: HfPolicy, max_tokens: int, n: int, models: Models, setting: Setting
) -> Load:
    """Weights, keys and values of all rows at full length, logits, prompts being encoded."""
    device, room = _place(part.device, setting)
    shape = models.get(part.model)
    if shape is None:
        return Load("", device, {}, room, (part.model,))
    size = number_size(part.dtype, part.device)
    parts = {f"{role}: weights": size * shape.parameters}
    parts |= _rows(role, part.rows, max_tokens, n, shape, setting, size)
    return Load("", device, parts, room)


def _rows(
    role: str, rows: int, max_tokens: int, n: int, shape: Shape, setting: Setting, size: float
) -> dict[str, float]:
    """What `rows` responses side by side need beside the weights; `size` bytes for a number."""
    length = min(setting.prompt + max_tokens, shape.context)
    prompts = min(PREFILL, -(-rows // n) * setting.prompt)
    return {
        f"{role}: keys and values of {rows} rows": rows * length * shape.cache(size),
        f"{role}: logits": rows * shape.vocab * size + SLICE,
        f"{role}: prompts being read": prompts * passing(shape, setting.prompt) * size / 2,
    }


@dataclass(frozen=True)
class _Engine:
    """A vLLM, in this process or as a server that eva starts."""

    model: str
    share: float
    """Of the GPU's memory."""
    parallel: int
    """GPUs that share a copy of the weights."""
    length: float
    """Longest prompt and response together, in tokens."""
    size: float
    """Bytes of a number."""


def _vllm(role: str, part: VllmPolicy, models: Models, setting: Setting) -> Iterator[Load]:
    """An engine in this process."""
    length, size = part.context or setting.chat, number_size(part.dtype, "cuda")
    engine = _Engine(part.model, part.memory, part.tensor_parallel, length, size)
    yield from _engine(role, engine, models, setting)


def _served(role: str, part: HttpPolicy, models: Models, setting: Setting) -> Iterator[Load]:
    """The first of the servers that eva starts, on the first GPU, if it is vLLM's."""
    words = part.serve.command if part.serve else ()
    if words[:2] != ("vllm", "serve"):
        return
    share = float(option(words, ("--gpu-memory-utilization",)) or 0.9)
    parallel = int(option(words, ("--tensor-parallel-size", "-tp")) or 1)
    length = float(option(words, ("--max-model-len",)) or setting.chat)
    size = number_size(part.dtype, "cuda")
    yield from _engine(role, _Engine(part.model, share, parallel, length, size), models, setting)


def _engine(role: str, engine: _Engine, models: Models, setting: Setting) -> Iterator[Load]:
    """The share that vLLM takes of a GPU, and what it has to hold there."""
    device, room = _place("cuda:0", setting)
    shape = models.get(engine.model)
    share = engine.share * setting.card.memory * GIB if setting.card else None
    if share is not None or shape is None:
        taken = {} if share is None else {f"{role}: vLLM's share": share}
        yield Load("", device, taken, room, () if shape else (engine.model,))
    if shape is not None:
        length = min(engine.length, shape.context)
        inside = {
            f"{role}: weights": engine.size * shape.parameters / engine.parallel,
            f"{role}: one row's keys and values": length
            * shape.cache(engine.size)
            / engine.parallel,
            f"{role}: activations and graphs": VLLM,
        }
        yield Load("", f"vLLM's share of {device}", inside, share)


def _classifier(
    role: str,
    part: ClassifierReward | PairwiseReward,
    model: str,
    models: Models,
    setting: Setting,
) -> Load:
    """Weights, and a layer of one forward pass."""
    device, room = _place(part.device, setting)
    shape = models.get(model)
    if shape is None:
        return Load("", device, {}, room, (model,))
    size = number_size(part.dtype, part.device)
    tokens = max(part.batch_tokens, setting.chat)
    parts = {
        f"{role}: weights": size * shape.parameters,
        f"{role}: forward pass": tokens * passing(shape, setting.chat) * size / 2,
    }
    return Load("", device, parts, room)


# ---------------------------------------------------------------- learning


def _learner(recipe: Recipe, models: Models, setting: Setting) -> Load | None:
    """What a process of an offline learner holds; None for a learner that is not eva's."""
    part, policy = recipe.learner, recipe.policy
    assert isinstance(policy, LanguageModel)
    launch = setting.launch
    first, room = _place(policy.device, setting)
    device = first if launch.processes == 1 else f"each of {launch.processes} processes"
    shape = models.get(policy.model)
    if not isinstance(part, Offline | Trl):
        return None
    if shape is None:
        return Load("learn", device, {}, room, (policy.model,))
    if isinstance(part, Trl):
        whole = {"weights, gradients and two moments, float32": 16.0 * shape.parameters}
        reference = {"reference, float32": 4.0 * shape.parameters}
        return Load("learn", device, whole | reference, room, ("the passes of TRL's trainer",))
    parts = state(part, shape, launch) | gathered(part, shape, launch)
    pairs = -(-part.batch // launch.processes)
    tokens = _tokens(part, 2 * setting.chat, pairs if part.batch_tokens is None else None)
    passed = one_pass(part, shape, tokens, setting.chat, policy.device)
    stepped = roots(part, shape, launch)
    parts |= passed if sum(passed.values()) >= sum(stepped.values()) else stepped
    return Load("learn", device, parts, room)


def _has_its_base(part: Online, rounds: int) -> bool:
    """Whether the reference is always what lies below the adapter, and so needs no memory."""
    if part.lora is None:
        return False
    return rounds == 1 or (part.reference == "theta_0" and not part.lora.merge)


def _online(recipe: Recipe, models: Models, setting: Setting) -> Load:
    """One process samples and learns: weights in float32, whose cache stays between samples."""
    part, policy = recipe.learner, recipe.policy
    assert isinstance(part, Online)
    assert isinstance(policy, HfPolicy)
    device, room = _place(policy.device, setting)
    shape = models.get(policy.model)
    if shape is None:
        return Load("", device, {}, room, (policy.model,))
    narrow = is_narrow(part, policy.device)
    group = (2 if isinstance(part, OnlineDpo) else recipe.n) * setting.chat
    parts = state(part, shape, Launch())
    if needs_reference(part) and not _has_its_base(part, recipe.rounds):
        parts["reference, float32"] = 4.0 * shape.parameters
    # Rotated keys are in float32, values as the products are.
    size = 3.0 if narrow else 4.0
    rows = _rows("policy", policy.rows, recipe.sampling.max_tokens, recipe.n, shape, setting, size)
    tokens = _tokens(part, group, part.batch)
    learning = one_pass(part, shape, tokens, setting.chat, policy.device)
    sampling = {name: rows.pop(name) for name in [*rows][1:]}
    if narrow and part.lora is None:
        sampling["policy: bfloat16 copies while it samples"] = 2.0 * shape.parameters
    peak = max(sampling, learning, key=lambda side: sum(side.values()))
    return Load("", device, parts | rows | peak, room)


def _tokens(part: Update, group: float, groups: int | None) -> float:
    """Padded tokens of the largest pass: a group at least, and no more than all of them."""
    bound = part.micro_tokens if groups is None else min(part.micro_tokens, group * groups)
    return max(group, bound)
