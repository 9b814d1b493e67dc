"""The work of a run: who is asked how often, and how many tokens are read, written and learnt.

Every number is a sum over all rounds. A count of calls is an upper bound; of tokens there is an
expectation, from mean lengths, and an upper bound.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from eva.config import Recipe
from eva.formulas.phases import evolved_of, evolved_share, parents_of
from eva.parts import PythonCall
from eva.parts.creators import Creator, StreamCreator
from eva.parts.evolvers import EvolInstruct, SelfInstruct
from eva.parts.learners import (
    Grpo,
    Offline,
    Online,
    OnlineDpo,
    Orpo,
    Rloo,
    Simpo,
    ToyOnline,
    Update,
)
from eva.parts.policies import ModelPart, PolicyPart, SelfPolicy, ToyPolicy
from eva.parts.rewards import (
    ClassifierReward,
    HttpReward,
    JudgeReward,
    LengthReward,
    PairwiseReward,
    RewardPart,
    RulesReward,
    SumReward,
)

TEMPLATE = 300
"""Tokens of an operator's template or of a rubric, around the prompt. Our guess."""
BORN = 1.0
"""Length of an evolved prompt, as a share of `Lengths.prompt`. Our guess."""


@dataclass(frozen=True)
class Sizes:
    """What a recipe's files hold."""

    prompts: int
    """|X_0|."""
    held_out: int | None = 0
    """Prompts in all held-out sets; None where a data set is not known yet."""


@dataclass(frozen=True)
class Lengths:
    """Mean lengths, in tokens."""

    prompt: float
    """Of a prompt, chat template included."""
    response: float | None = None
    """Of a response of the policy; None takes half of what it may have."""

    def expected(self, max_tokens: int) -> float:
        """Tokens of a policy's response."""
        return max_tokens / 2 if self.response is None else min(self.response, max_tokens)


@dataclass(frozen=True)
class Ask:
    """One model, asked in one stage."""

    stage: str
    """The stage: "answer", "evolve", "reward", ..."""
    who: PolicyPart | ModelPart | ClassifierReward | PairwiseReward | HttpReward | None
    """Whom; None for a Python function."""
    calls: int
    """Answers, verdicts, forward passes, requests or calls, at most."""
    read: float
    """Tokens that are read."""
    read_most: float
    """The same at most, with responses as long as they may be."""
    written: float = 0.0
    """Tokens that are written."""
    written_most: float = 0.0
    """The same at most."""


@dataclass(frozen=True)
class Learning:
    """What the learner does, over all rounds, at most."""

    groups: int = 0
    """Pairs, or online the groups of responses, that are learnt from; one that is learnt from twice
    counts twice."""
    steps: int = 0
    """Optimiser steps."""
    trained: float = 0.0
    """Tokens that go forward and backward."""
    trained_most: float = 0.0
    """The same with responses as long as they may be."""
    scored: float = 0.0
    """Tokens that go forward alone: under the reference, or again before samples are reused."""


@dataclass(frozen=True)
class Work:
    """All of it."""

    answered: int
    """Prompts that are answered for training."""
    samples: int
    """Responses to them."""
    tokens: int
    """New tokens of these responses, at most."""
    evolved: int | None
    """Children that are written; None where your own function decides."""
    held_out: int | None
    """Held-out responses; None where a set is not known yet."""
    asks: tuple[Ask, ...]
    """Who is asked what."""
    learning: Learning | None
    """None for a learner that is not eva's."""
    unknown: tuple[str, ...] = field(default=())
    """What cannot be counted, in words."""


def work(recipe: Recipe, sizes: Sizes, lengths: Lengths) -> Work:
    """What a run of a recipe does, from its first round to its last evaluation."""
    children = evolved(recipe, sizes.prompts)
    answers = answered(recipe, sizes.prompts)
    held_out = _held_out(recipe, sizes)
    asks = [
        *_sampled(recipe, "answer", answers, recipe.n, lengths),
        *_rewarded(recipe.reward, "reward", answers, recipe.n, recipe, lengths),
        *_written(recipe, children or 0, lengths),
        *_measured(recipe, sizes, lengths),
    ]
    learning = learnt(recipe, sizes.prompts, lengths)
    unknown = [] if children is not None else ["the evolver is your own function"]
    unknown += [] if held_out is not None else ["the size of a held-out set"]
    unknown += [] if learning else [f"the learner of kind {recipe.learner.kind!r} is not eva's own"]
    return Work(
        answered=answers,
        samples=answers * recipe.n,
        tokens=answers * recipe.n * recipe.sampling.max_tokens,
        evolved=children,
        held_out=held_out,
        asks=tuple(asks),
        learning=learning,
        unknown=tuple(unknown),
    )


# ---------------------------------------------------------------- prompts


def answered(recipe: Recipe, size: int) -> int:
    """Prompts that are answered: mini-batches online, else the pool and, beside it, the batch."""
    if isinstance(recipe.learner, Online | ToyOnline):
        return recipe.rounds * recipe.learner.steps * recipe.learner.batch
    return size * (recipe.rounds + _fresh_rounds(recipe))


def evolved(recipe: Recipe, size: int) -> int | None:
    """Children that are written; None where your own function decides how many."""
    creator = recipe.creator
    if creator is None or creator.evolve is None:
        return 0
    if isinstance(creator.evolve, PythonCall):
        return None
    if isinstance(creator, StreamCreator):
        return _parents_online(recipe, creator) * creator.evolve.children
    parents = max(1, round(size * creator.select.keep))
    return _awake(recipe, creator) * parents * creator.evolve.children


def _parents_online(recipe: Recipe, creator: StreamCreator) -> int:
    """Parents that are drawn, one mini-batch ahead, for all mini-batches but the first."""
    assert isinstance(recipe.learner, Online | ToyOnline)  # the recipe was checked
    planned, batch = recipe.rounds * recipe.learner.steps, recipe.learner.batch
    share = partial(
        evolved_share,
        steps=planned,
        warmup=creator.warmup,
        mixup=creator.mixup,
        evolved=creator.evolved,
        bootstrap=creator.bootstrap,
    )
    return sum(
        parents_of(creator.select.keep, evolved_of(share(step), batch))
        for step in range(1, planned)
    )


def _fresh_rounds(recipe: Recipe) -> int:
    """Rounds in which the pool is answered beside the batch; without an evolver it is the batch."""
    creator = recipe.creator
    if not isinstance(creator, Creator) or creator.evolve is None:
        return 0
    awake = _awake(recipe, creator)
    reused = creator.estimate == "last"
    return (1 if creator.start == 0 and awake else 0) if reused else awake


def _awake(recipe: Recipe, creator: Creator) -> int:
    """Rounds in which the creator is awake."""
    return max(0, recipe.rounds - creator.start)


def _held_out(recipe: Recipe, sizes: Sizes) -> int | None:
    if recipe.evaluate is None:
        return 0
    if sizes.held_out is None:
        return None
    return sizes.held_out * _measurements(recipe) * (recipe.evaluate.samples + 1)


def _measurements(recipe: Recipe) -> int:
    """How many checkpoints are measured."""
    every = recipe.evaluate.every if recipe.evaluate else 1
    return len({*range(0, recipe.rounds, every), recipe.rounds})


# ---------------------------------------------------------------- models that are asked


def _sampled(recipe: Recipe, stage: str, prompts: int, n: int, lengths: Lengths) -> Iterator[Ask]:
    """The policy answers; a prompt is read once for all its responses, over HTTP too."""
    if isinstance(recipe.policy, ToyPolicy) or not prompts:
        return
    longest = recipe.sampling.max_tokens
    read = prompts * lengths.prompt
    calls = prompts * n
    yield Ask(
        stage, recipe.policy, calls, read, read, calls * lengths.expected(longest), calls * longest
    )


def _written(recipe: Recipe, children: int, lengths: Lengths) -> Iterator[Ask]:
    """The evolver writes, and a judge says what can be answered."""
    creator = recipe.creator
    if creator is None or not children or isinstance(recipe.policy, ToyPolicy):
        return
    part = creator.evolve
    if isinstance(part, EvolInstruct | SelfInstruct):
        examples = part.examples if isinstance(part, SelfInstruct) else 1
        who = recipe.policy if isinstance(part.by, SelfPolicy) else part.by
        read = TEMPLATE + examples * lengths.prompt
        yield _asked("evolve", who, children, read, read, part.sampling.max_tokens)
    gates = creator.gates
    if gates and gates.answerable:
        read = TEMPLATE + BORN * lengths.prompt
        judge = gates.answerable
        yield _asked("answerable", judge.by, children, read, read, judge.sampling.max_tokens)


def _asked(
    stage: str,
    who: PolicyPart | ModelPart,
    calls: int,
    read: float,
    read_most: float,
    max_tokens: int,
) -> Ask:
    """A model that is asked for texts, half as long as they may be."""
    return Ask(
        stage, who, calls, calls * read, calls * read_most, calls * max_tokens / 2,
        calls * max_tokens,
    )  # fmt: skip


def _measured(recipe: Recipe, sizes: Sizes, lengths: Lengths) -> Iterator[Ask]:
    """Held-out prompts, answered and scored."""
    part = recipe.evaluate
    if part is None or not sizes.held_out:
        return
    prompts, n = sizes.held_out * _measurements(recipe), part.samples + 1
    yield from _sampled(recipe, "evaluate", prompts, n, lengths)
    reward = part.reward or recipe.reward
    yield from _rewarded(reward, "evaluate: reward", prompts, n, recipe, lengths)
    if part.monitor:
        yield from _rewarded(part.monitor.reward, "evaluate: monitor", prompts, n, recipe, lengths)


def _rewarded(
    part: RewardPart, stage: str, prompts: int, n: int, recipe: Recipe, lengths: Lengths
) -> Iterator[Ask]:
    """Who is asked for the rewards of `prompts` groups of n responses."""
    short, long = lengths.expected(recipe.sampling.max_tokens), recipe.sampling.max_tokens
    responses, duels = prompts * n, prompts * n * (n - 1)

    def each(calls: int, texts: int, more: int = 0) -> tuple[int, float, float]:
        """Calls that read the prompt, so many responses, and what stands around them."""
        return calls, more + lengths.prompt + texts * short, more + lengths.prompt + texts * long

    match part:
        case SumReward():
            for term in part.terms:
                yield from _rewarded(term.reward, stage, prompts, n, recipe, lengths)
        case LengthReward():
            yield from _rewarded(part.of, stage, prompts, n, recipe, lengths)
        case JudgeReward():
            is_single = part.mode == "points"
            calls, read, most = each(
                (responses if is_single else duels) * part.votes, 1 if is_single else 2, TEMPLATE
            )
            yield _asked(stage, part.by, calls, read, most, part.sampling.max_tokens)
        case PairwiseReward() if part.model is not None:
            calls, read, most = each(duels, 2)
            yield Ask(stage, part, calls, calls * read, calls * most)
        case ClassifierReward():
            calls, read, most = each(responses, 1)
            yield Ask(stage, part, calls, calls * read, calls * most)
        case HttpReward():
            yield Ask(stage, part, prompts, 0.0, 0.0)
        case PairwiseReward():
            yield Ask(stage, None, duels, 0.0, 0.0)
        case PythonCall() | RulesReward():
            calls = responses if isinstance(part, RulesReward) else prompts
            yield Ask(stage, None, calls, 0.0, 0.0)
        case _:  # eva's small worlds
            return


# ---------------------------------------------------------------- the learner


def needs_reference(part: Update) -> bool:
    """Whether the loss reads log-probabilities of a reference policy."""
    if isinstance(part, Rloo | Grpo):
        return part.kl > 0
    return not isinstance(part, Simpo | Orpo)


def learnt(recipe: Recipe, size: int, lengths: Lengths) -> Learning | None:
    """What eva's own learner does; None for another one. Toy learners do nothing to count."""
    part = recipe.learner
    short, long = lengths.expected(recipe.sampling.max_tokens), recipe.sampling.max_tokens
    if isinstance(part, Offline):
        return _offline(part, [_lessons(recipe, size, t) for t in range(recipe.rounds)], lengths,
                        (short, long))  # fmt: skip
    if isinstance(part, Online):
        rows = 2 if isinstance(part, OnlineDpo) else recipe.n
        batches = recipe.rounds * part.steps
        passes = needs_reference(part) + (part.reuse > 1)
        once, most = (batches * part.batch * rows * (lengths.prompt + y) for y in (short, long))
        return Learning(
            groups=batches * part.batch * part.reuse,
            steps=batches * part.reuse,
            trained=once * part.reuse,
            trained_most=most * part.reuse,
            scored=once * passes,
        )
    return Learning() if part.kind in ("toy", "toy_online") else None


def _lessons(recipe: Recipe, size: int, t: int) -> int:
    """Prompts in the lessons of round t; without an evolver they are the parents."""
    creator = recipe.creator
    if isinstance(creator, Creator) and creator.evolve is None and t >= creator.start:
        return max(1, round(size * creator.select.keep))
    return size


def _offline(
    part: Offline, lessons: list[int], lengths: Lengths, responses: tuple[float, float]
) -> Learning:
    """Pairs of each round, `epochs` times or for so many `steps`; a tie would make them fewer."""
    pair, pair_most = (2 * (lengths.prompt + y) for y in responses)
    batch = max(1, int(part.batch_tokens // pair)) if part.batch_tokens else part.batch
    if part.epochs is None:
        steps = [part.steps or 0 for _ in lessons]
        visits = [batch * one for one in steps]
    else:
        visits = [max(1, round(part.epochs * pairs)) for pairs in lessons]
        steps = [math.ceil(one / batch) for one in visits]
    groups = sum(visits)
    distinct = sum(min(pairs, seen) for pairs, seen in zip(lessons, visits, strict=True))
    return Learning(
        groups=groups,
        steps=sum(steps),
        trained=groups * pair,
        trained_most=groups * pair_most,
        scored=distinct * pair if needs_reference(part) else 0.0,
    )
