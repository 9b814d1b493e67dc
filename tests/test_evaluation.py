"""The monitor: a held-out reward that shows over-optimisation, and may stop the run."""

import json

import numpy as np
import pytest

from eva.errors import StopRule
from eva.evaluation import mean_of_present, overoptimised
from tests.world import contents, played

CODE = """
def falls(prompt, response):
    return -float(response.text)

def rises(prompt, response):
    return float(response.text)

def missing(prompt, response):
    return None
"""


@pytest.fixture
def watch(tmp_path):
    (tmp_path / "watch.py").write_text(CODE)

    def overrides(name: str, stop: bool = False) -> tuple[str, ...]:
        return (
            "rounds=4",
            "evaluate.sets.easy.n=32",
            f"evaluate.monitor={{reward: {{kind: rules, call: 'watch:{name}'}}, stop: {stop}}}",
        )

    return overrides


def measured(run, t):
    return json.loads((run / f"evals/{t:03d}.json").read_bytes())


def test_a_monitor_that_falls_while_the_reward_rises_gives_the_alarm(tmp_path, watch):
    played(tmp_path / "run", *watch("falls"))
    found = measured(tmp_path / "run", 4)
    assert found["easy/sampled/overoptimised"] == 1.0
    assert found["easy/sampled/monitor"] < measured(tmp_path / "run", 0)["easy/sampled/monitor"]
    assert measured(tmp_path / "run", 0)["easy/sampled/overoptimised"] == 0.0
    logs = "".join(path.read_text() for path in (tmp_path / "run/logs").iterdir())
    assert "checkpoint 4 is over-optimised on the held-out set" in logs


def test_a_monitor_that_rises_too_gives_none(tmp_path, watch):
    played(tmp_path / "run", *watch("rises", stop=True))
    found = measured(tmp_path / "run", 4)
    assert found["easy/sampled/overoptimised"] == 0.0
    assert found["easy/sampled/monitor"] > measured(tmp_path / "run", 0)["easy/sampled/monitor"]


def test_a_monitor_without_rewards_says_nothing(tmp_path, watch):
    played(tmp_path / "run", *watch("missing"))
    found = measured(tmp_path / "run", 4)
    assert "easy/sampled/monitor" not in found
    assert found["easy/sampled/overoptimised"] == 0.0


def test_the_run_stops_at_the_alarm_again_and_again_until_it_is_told_to_go_on(tmp_path, watch):
    for _ in range(2):
        with pytest.raises(StopRule, match=r"to go on, run with --set evaluate\.monitor\.stop"):
            played(tmp_path / "run", *watch("falls", stop=True))
    assert not (tmp_path / "run/evals/004.json").exists()
    played(tmp_path / "run", *watch("falls"))
    played(tmp_path / "whole", *watch("falls"))
    left, whole = contents(tmp_path / "run"), contents(tmp_path / "whole")
    for name in ("recipe.yaml", "run.json"):  # they were written with stop: true
        del left[name], whole[name]
    assert left == whole


def test_what_the_monitor_says_is_kept_with_the_prompts(tmp_path, watch):
    played(tmp_path / "run", *watch("falls"))
    lines = (tmp_path / "run/evals/hard/monitor/002.jsonl").read_bytes().splitlines()
    answers = (tmp_path / "run/evals/hard/002.jsonl").read_bytes().splitlines()
    for line, answer in zip(lines, answers, strict=True):
        watched, rollout = json.loads(line), json.loads(answer)
        assert watched["prompt"] == rollout["prompt"]["id"]
        texts = [response["text"] for response in rollout["responses"]]
        assert watched["rewards"] == [-float(text) for text in texts]


def test_the_mean_of_what_is_present():
    rewards_P_G = np.array([[1.0, 3.0], [np.nan, 2.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(mean_of_present(rewards_P_G), [2.0, 2.0, np.nan])


@pytest.mark.parametrize(
    ("rise_P", "fall_P", "alarm"),
    [
        ([1.0, 1.2, 0.8, 1.0], [-1.0, -1.2, -0.8, -1.0], True),
        ([1.0, 1.2, 0.8, 1.0], [1.0, 1.2, 0.8, 1.0], False),
        ([-1.0, -1.2, -0.8, -1.0], [-1.0, -1.2, -0.8, -1.0], False),
        ([1.0, -1.2, 0.8, -1.0], [-1.0, -1.2, -0.8, -1.0], False),  # the rise is noise
        ([1.0, np.nan, np.nan, np.nan], [-1.0, -1.2, -0.8, -1.0], False),  # one pair is none
    ],
)
def test_the_alarm_needs_both_and_more_than_noise(rise_P, fall_P, alarm):
    old_P = np.array([0.1, 0.2, 0.3, 0.4])
    reward_P, monitor_P = old_P + np.array(rise_P), old_P + np.array(fall_P)
    assert overoptimised(reward_P, monitor_P, old_P, old_P, drop=2.0) is alarm
