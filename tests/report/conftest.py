import shutil
from pathlib import Path

import pytest

pytest.importorskip("altair", reason="needs the extra: pip install 'eva-rlhf[report]'")
pytest.importorskip("vl_convert", reason="needs the extra: pip install 'eva-rlhf[report]'")

from tests.report.fake_runs import HOSTILE, hostile_prompts, write_run


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("three")
    return [write_run(root / arm, arm, rounds=4, prompts=24) for arm in ("static", "new", "eva")]


@pytest.fixture(scope="session")
def hostile_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("hostile")
    return [
        write_run(root / f"{n}", "eva", 2, prompts=4, given=hostile_prompts(text), keep=1.0)
        for n, text in enumerate(HOSTILE)
    ]


@pytest.fixture(scope="session")
def unfinished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unfinished") / "run"
    write_run(path, "eva", rounds=4, prompts=16)
    for number in (3, 4):
        shutil.rmtree(path / f"rounds/{number:03d}")
        (path / f"evals/{number:03d}.json").unlink()
    room = path / "rounds/002"
    shutil.rmtree(room / "learn")
    for name in ("lessons.jsonl", "checkpoint.jsonl", "metrics.json"):
        (room / name).unlink()
    return path
