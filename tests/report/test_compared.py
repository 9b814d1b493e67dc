from pathlib import Path

from eva.reading import read_runs
from eva.report import compared


def test_arms_are_told_in_words(three_runs: list[Path]) -> None:
    static, new, eva = (compared.arm(run.recipe) for run in read_runs(three_runs))
    assert static == "trains on the given prompts, again in every round."
    assert new.startswith("trains on new prompts in every round")
    assert "draws 25 % of the pool by a_min (proportional)" in eva
    assert "80 % of its lessons are newborn" in eva


def test_a_creator_that_does_not_evolve_says_so() -> None:
    creator = {"select": {"kind": "greedy", "keep": 0.5}, "info": "avg", "evolve": None}
    assert compared.arm({"creator": creator}) == (
        "draws 50 % of the pool by avg (greedy) and trains on them as they are."
    )


def test_a_stream_is_told_apart_from_a_pool() -> None:
    creator = {
        "kind": "stream",
        "info": "a_avg",
        "select": {"kind": "rank"},
        "evolve": {"kind": "toy"},
        "evolved": 0.5,
        "bootstrap": 0.8,
    }
    assert compared.arm({"creator": creator}) == (
        "draws parents from its buffer by a_avg (rank) after every mini-batch and rewrites them "
        "with the toy evolver; up to 50 % of a mini-batch are evolved prompts, and 80 % after the "
        "mix-up."
    )


def test_keys_that_differ_are_found_and_the_others_are_shared(three_runs: list[Path]) -> None:
    found = compared.settings(read_runs(three_runs))
    differ = {setting.key for setting in found if setting.differs}
    assert {"name", "creator", "new_prompts", "creator.info"} <= differ
    assert "learner.lr" not in differ
    assert compared.differences(read_runs(three_runs)) == (True, [])


def test_one_run_differs_from_nothing(three_runs: list[Path]) -> None:
    assert compared.differences(read_runs(three_runs[:1])) == (False, [])
