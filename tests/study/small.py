"""A small study in the world of numbers, and ways to play it."""

from pathlib import Path

from eva.study import Played, Study, checked_study, run

FIELDS = {
    "name": "small",
    "question": "Which arm ends higher?",
    "base": "toy",
    "change": {
        "rounds": 2,
        "prompts": {"n": 8},
        "evaluate": {
            "sets": {"easy": {"n": 4}, "hard": {"n": 4}},
            "reward": {"kind": "toy"},  # whatever an arm trains on
        },
    },
    "arms": {"static": {"creator": None}, "eva": {}},
    "seeds": [1, 2],
    "against": "eva",
    "metrics": ["hard/sampled/reward"],
}
TUNED = {
    "factors": {"gain": {"fast": {}, "slow": {"learner": {"lr": 0.5}}}},
    "tune": {
        "seeds": [7],
        "grid": {"n": [3, 4]},
        "by": "hard/sampled/reward",
    },
}


def small(**keys: object) -> Study:
    """The small study with other keys."""
    return checked_study(FIELDS | keys, "small")


def played(study: Study, home: Path, jobs: int = 2, **keys: object) -> list[Played]:
    """Play a study to its end."""
    return list(run(study, home, here=home.parent, jobs=jobs, command="eva study", **keys))


def findings(home: Path) -> bytes:
    """What a study found."""
    return (home / "findings.json").read_bytes()
