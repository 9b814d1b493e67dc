"""A study from its plan to its findings."""

import json
import shutil

import pytest

from eva.errors import EvaError, RecipeError, RunDirError
from eva.findings import read_findings
from eva.study import planned, run
from eva.study.folder import read_made
from tests.study.small import TUNED, findings, played, small

REWARD = "hard/sampled/reward"


def test_settings_are_chosen_on_tuning_seeds_and_tabled_on_fresh_ones(tmp_path):
    home = tmp_path / "home"
    cells = played(small(**TUNED), home)
    tuning = [cell for cell in cells if cell.use == "tune"]
    tabled = [cell for cell in cells if cell.use == "table"]
    assert {cell.seed for cell in tuning} == {7}
    assert {cell.seed for cell in tabled} == {1, 2}
    for arm in ("static", "eva"):
        ends = {
            cell.setting["n"]: cell.result.evals[2][REWARD] for cell in tuning if cell.arm == arm
        }
        best = max(ends, key=lambda n: ends[n])
        assert {cell.setting["n"] for cell in tabled if cell.arm == arm} == {best}
    found, made = read_findings(home)
    assert len(found.cells) == len(cells) == 4 + 8
    assert [cell.use for cell in found.cells] == ["tune"] * 4 + ["table"] * 8
    assert made.jobs == 2
    assert made.cpu_minutes == pytest.approx(sum(cell.result.cpu_seconds for cell in cells) / 60)


def test_progress_counts_the_rounds_of_all_cells_and_says_what_is_left(tmp_path):
    told = []
    study = small(prepare={"b": "eva new {out}"})
    played(study, tmp_path / "home", watch=told.append)
    assert (told[0].stage, told[0].done, told[0].total) == ("prepare", 1, 1)
    rounds = [far.done for far in told if far.stage == "play"]
    assert rounds == sorted(rounds)
    assert {far.total for far in told[1:]} == {4 * 3}
    assert rounds[-1] == 12
    assert told[-1].left == 0.0
    again = []
    played(study, tmp_path / "home", watch=again.append)
    assert {far.left for far in again} == {None}
    assert again[-1].done == 12


def test_a_finished_study_finds_the_same_again_and_plays_nothing(tmp_path):
    home = tmp_path / "home"
    played(small(), home)
    before, made = findings(home), (home / "made.json").read_bytes()
    logs = sorted(home.glob("cells/*/*/*/logs/*"))
    (home / "findings.json").unlink()
    played(small(), home)
    assert findings(home) == before
    assert (home / "made.json").read_bytes() == made
    assert sorted(home.glob("cells/*/*/*/logs/*")) == logs


def test_minutes_add_up_over_attempts(tmp_path):
    home = tmp_path / "home"
    cells = run(small(), home, here=tmp_path, jobs=1, command="eva study")
    next(cells)
    next(cells)
    cells.close()
    first = read_made(home)
    assert not (home / "findings.json").exists()
    played(small(), home)
    _, made = read_findings(home)
    assert made.minutes > first.minutes > 0
    assert made.cpu_minutes > first.cpu_minutes


def test_a_study_that_grows_keeps_its_cells(tmp_path):
    home = tmp_path / "home"
    first = played(small(), home)
    arms = {"static": {"creator": None}, "eva": {}, "greedy": {"creator": {"info": "avg"}}}
    more = played(small(arms=arms, seeds=[1, 2, 3]), home)
    assert len(more) == 9
    assert {cell.within: cell.result for cell in first}.items() <= {
        cell.within: cell.result for cell in more
    }.items()


def test_cells_that_fail_are_found_as_such(tmp_path):
    home = tmp_path / "home"
    own = {"kind": "python", "call": "own:reward"}
    study = small(arms={"static": {"creator": None}, "eva": {"reward": own}})
    played(study, home)
    found, _ = read_findings(home)
    assert {cell.arm for cell in found.cells if cell.failed} == {"eva"}
    assert [row.arm for row in found.rows if row.values and not row.minus][-1] == "static"

    (tmp_path / "own.py").write_text("from eva.toy import reward\n")
    played(study, home)
    found, _ = read_findings(home)
    assert not any(cell.failed for cell in found.cells)


def test_an_arm_whose_tuning_failed_is_not_tabled(tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    arms = {"static": {"creator": None}, "eva": {"reward": own}}
    cells = played(small(arms=arms, **TUNED), tmp_path / "home")
    assert {(cell.arm, cell.use) for cell in cells if cell.failed} == {("eva", "tune")}
    assert {cell.arm for cell in cells if cell.use == "table"} == {"static"}


def test_a_study_of_which_every_cell_failed_has_findings_without_numbers(tmp_path):
    change = small().change | {"reward": {"kind": "python", "call": "own:reward"}}
    cells = played(small(change=change), tmp_path / "home")
    assert all(cell.failed for cell in cells)
    found, _ = read_findings(tmp_path / "home")
    assert not any(row.values for row in found.rows)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"metrics": [REWARD, "hard/sampled/rewrad"]},
            "metrics names 'hard/sampled/rewrad', which no run measured; did you mean 'hard/sam",
        ),
        (
            {"metrics": ["hart/sampled/reward"]},
            "names 'hart/sampled/reward', which no run measures",
        ),
        ({"metrics": ["hard/samples/reward"]}, "did you mean 'hard/sampled'?"),
        ({"curves": ["hard/sampled/"]}, "curves names 'hard/sampled/', which no run measures"),
        ({"curves": ["round/word"]}, "curves names 'round/word', which .* mean 'round/words'"),
        (
            {"claims": [{"better": "eva", "than": "static", "on": "x"}]},
            "claims.0.on names 'x', which no run measures: .* known: easy/greedy, easy/sampled",
        ),
        ({**TUNED, "tune": TUNED["tune"] | {"by": "x"}}, "tune.by names 'x', which no run"),
        (
            {**TUNED, "tune": TUNED["tune"] | {"by": "round/wrods"}},
            "tune.by names 'round/wrods', which no run measured",
        ),
    ],
)
def test_a_metric_that_no_run_measured_is_named_and_can_be_mended(tmp_path, keys, said):
    home = tmp_path / "home"
    with pytest.raises(RecipeError, match=said):
        played(small(**keys), home)
    mended = small(**({**TUNED} if "tune" in keys else {}))
    played(mended, home)
    assert (home / "findings.json").exists()


def test_a_typo_of_a_metric_stops_the_study_as_soon_as_it_can_be_seen(tmp_path):
    for name, most in (("hard/sampled/rewrad", 1), ("round/wrods", 2)):
        ended = []
        with pytest.raises(RecipeError, match=name):
            for cell in run(
                small(metrics=[name], seeds=[1, 2, 3]), tmp_path / name, here=tmp_path, jobs=1,
                command="eva study",
            ):  # fmt: skip
                ended.append(cell.within)
        assert len(ended) == most  # each evaluation, each arm, once
        assert len(list((tmp_path / name).rglob("result.json"))) <= most


def test_a_metric_that_only_runs_which_failed_could_measure_stops_nothing(tmp_path):
    own = {"kind": "python", "call": "own:reward"}
    study = small(
        arms={"static": {"creator": None}, "eva": {"reward": own}},
        curves=["round/parents"],
        claims=[{"better": "eva", "than": "static", "on": "round/parents"}],
    )
    played(study, tmp_path / "home")
    found, _ = read_findings(tmp_path / "home")
    assert found.lines == ()
    assert len(found.unjudged) == 1


def test_without_evaluation_a_held_out_metric_is_refused_at_once(tmp_path):
    change = small().change | {"evaluate": None}
    with pytest.raises(RecipeError, match=r"set/mode/metric\); no recipe has evaluate"):
        planned(small(change=change), tmp_path, tmp_path)
    planned(small(change=change, metrics=["round/words"]), tmp_path, tmp_path)


def test_what_was_found_stands_in_the_order_of_the_study(tmp_path):
    factors = {"z": {"y": {}, "b": {"n": 3}}, "a": {"x": {}}}
    tune = TUNED["tune"] | {"grid": {"learner.lr": [0.5], "chunk": [3]}}
    played(small(factors=factors, tune=tune, seeds=[1]), tmp_path / "home")
    found = json.loads(findings(tmp_path / "home"))
    assert list(found)[:3] == ["name", "question", "arms"]
    assert list(found["factors"]) == ["z", "a"]
    assert list(found["cells"][0]["setting"]) == ["learner.lr", "chunk"]


def test_what_runs_read_must_not_change_while_a_study_grows(tmp_path):
    home, file = tmp_path / "home", tmp_path / "hard.jsonl"
    lines = [json.dumps({"prompt": f"0.{k}"}) + "\n" for k in range(5)]
    file.write_text("".join(lines[:4]))
    sets = {"hard": {"kind": "jsonl", "path": "hard.jsonl"}, "easy": {"n": 4}}
    change = small().change | {"evaluate": {"sets": sets}}
    played(small(change=change), home)
    file.write_text("".join(lines))
    with pytest.raises(RunDirError, match=r"has changed: evaluate.sets.hard of cells/\w+/as-is/se"):
        played(small(change=change, seeds=[1, 2, 3]), home)
    file.write_text("".join(lines[:4]))
    for seed in home.glob("cells/*/*/seed3"):
        shutil.rmtree(seed)
    played(small(change=change, seeds=[1, 2, 3]), home)


def test_runs_of_several_commits_are_all_told(tmp_path):
    home = tmp_path / "home"
    played(small(), home)
    for number, file in enumerate(sorted(home.rglob("result.json"))):
        written = json.loads(file.read_text()) | {"commit": "ab"[number % 2]}
        file.write_text(json.dumps(written))
    played(small(), home)
    assert read_findings(home)[1].commit == "a and b"
    played(small(seeds=[1, 2, 3]), home)
    commits = read_findings(home)[1].commit.split(" and ")
    assert commits[:2] == ["a", "b"]
    assert len(commits) in (2, 3)  # and that of the new ones, in a checkout


def test_results_of_an_older_eva_are_taken_as_they_are(tmp_path):
    home = tmp_path / "home"
    played(small(), home)
    before = findings(home)
    for file in home.rglob("result.json"):
        written = json.loads(file.read_text())
        for key in ("is_whole", "commit", "inputs"):
            del written[key]
        file.write_text(json.dumps(written))
    told = sorted(home.rglob("run.json"))
    told[0].unlink()
    cells = played(small(), home)
    assert findings(home) == before
    assert sum(cell.result.inputs is not None for cell in cells) == 3
    assert len(list(home.rglob("lessons.jsonl"))) == 4  # of the first seed, both arms


def test_what_is_wrong_leaves_nothing_behind(tmp_path):
    home = tmp_path / "home"
    for keys, said in (
        ({"change": {"round": 3}}, "unknown key 'round'"),
        ({"probe": {"kind": "python", "call": "gone:probe"}}, "'gone' cannot be imported"),
        ({"prepare": {"a": "make"}}, "does not say where its folder is"),
        ({"tune": {"seeds": [7], "grid": {"n": [4, 1]}, "by": REWARD}}, "n: input should be gr"),
    ):
        with pytest.raises(RecipeError, match=said):
            played(small(**keys), home)
    assert not home.exists()


def test_two_studies_do_not_share_a_folder(tmp_path):
    played(small(), tmp_path / "home")
    with pytest.raises(RunDirError, match="made by another study: name is 'small' there and 'b'"):
        played(small(name="b"), tmp_path / "home")


def test_what_cannot_be_prepared_stops_the_study(tmp_path):
    study = small(prepare={"a": "false {out}"}, change={"chunk": 3})
    with pytest.raises(EvaError, match=r"prepare\.a failed: false \{out\}: it left with 1"):
        played(study, tmp_path / "home")


def test_a_plan_has_the_cells_of_the_table_at_their_first_settings(tmp_path):
    plan = planned(small(**TUNED), tmp_path, tmp_path)
    assert [cell.setting for cell in plan.tuning] == [{"n": 3}] * 2 + [{"n": 4}] * 2
    assert {tuple(cell.setting.items()) for cell in plan.tabled} == {(("n", 3),)}
    assert plan.rounds == (4 + 8) * 3
