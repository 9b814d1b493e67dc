"""The rewards of a recipe."""

from pathlib import Path
from typing import assert_never

import eva.toy
from eva import adapt
from eva.build.models import asked
from eva.extras import extra
from eva.named import called, named
from eva.parts import PythonCall
from eva.parts.rewards import (
    ClassifierReward,
    HttpReward,
    JudgeReward,
    LengthReward,
    PairwiseReward,
    PlaygroundReward,
    RewardPart,
    RulesReward,
    SumReward,
    ToyReward,
)
from eva.protocols import Reward


def reward(part: RewardPart, here: Path, cache: Path | None, place: str) -> Reward:
    """The reward that stands at a `place` of a recipe, such as "evaluate.reward".

    Paid answers are kept in the folder `cache`.
    """
    match part:
        case ToyReward():
            return eva.toy.reward
        case PlaygroundReward():
            from eva.playground import verify

            return verify.make_reward(part)
        case RulesReward():
            return adapt.per_response(named(part.call, here))
        case PythonCall():
            own: Reward = called(part, here)
            return own
        case SumReward():
            from eva.rewards import combined

            inner = [f"{place}.terms.{i}.reward" for i in range(len(part.terms))]
            terms = [
                (term.weight, reward(term.reward, here, cache, key))
                for term, key in zip(part.terms, inner, strict=True)
            ]
            return combined.WeightedSum(terms)
        case LengthReward():
            from eva.rewards import combined

            return combined.Shortened(part, reward(part.of, here, cache, f"{place}.of"))
        case PairwiseReward() if part.call is not None:
            return adapt.pairwise(named(part.call, here))
        case _:
            return _of_a_model(part, cache, place)


def _of_a_model(
    part: ClassifierReward | PairwiseReward | JudgeReward | HttpReward,
    cache: Path | None,
    place: str,
) -> Reward:
    match part:
        case ClassifierReward():
            with extra("hf", "reward kind 'hf'"):
                from eva.rewards import classifier
            return classifier.Classifier(part)
        case PairwiseReward():
            with extra("hf", "reward kind 'pairwise' with a model"):
                from eva.rewards import pairwise
            return pairwise.Pairwise(part)
        case JudgeReward():
            from eva.rewards import judge

            return judge.Judge(part, asked(part.by, cache, f"{place}.by"))
        case HttpReward():
            with extra("http", "reward kind 'http'"):
                from eva.rewards import service
            return service.Service(part, cache)
        case _:
            assert_never(part)
