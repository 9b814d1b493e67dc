from pathlib import Path

import pytest

from eva.reading import read_run, read_runs
from eva.records import Message, Prompt
from eva.report import measures


def test_the_final_table_begins_with_the_shared_start_and_marks_the_best(
    three_runs: list[Path],
) -> None:
    runs = read_runs(three_runs)
    table = measures.final_table(runs)
    assert table.sets == [("hard", 5), ("x0", 5)]
    assert [row.label for row in table.rows] == ["start", "static", "new", "eva"]
    column = table.columns.index(("hard", "sampled", "reward"))
    values = [row.cells[column].value for row in table.rows[1:]]
    assert values == [run.evals[4]["hard/sampled/reward"] for run in runs]
    best = [row.cells[column].best for row in table.rows[1:]]
    assert best == [value == max(v for v in values if v is not None) for value in values]


def test_runs_from_different_starts_have_no_start_in_common(three_runs: list[Path]) -> None:
    runs = list(read_runs(three_runs))
    other = {**runs[0].evals, 0: {"hard/sampled/reward": 0.1}}
    runs[0] = runs[0].model_copy(update={"evals": other})
    assert [row.label for row in measures.final_table(runs).rows] == ["static", "new", "eva"]


def test_tokens_and_prompts_are_summed_over_the_rounds(three_runs: list[Path]) -> None:
    run = read_run(three_runs[0])
    row = measures.final_table([run]).rows[-1]
    assert row.tokens == sum(played.metrics["tokens"] for played in run.rounds)
    assert row.prompts == 4 * 24  # four rounds of 24 prompts


def test_words_are_counted_over_all_turns(three_runs: list[Path]) -> None:
    played = read_run(three_runs[0]).rounds[0]
    turns = [("system", "be brief"), ("user", "odd up"), ("assistant", "1 3"), ("user", "more")]
    chat = Prompt(messages=tuple(Message(role=role, content=text) for role, text in turns))
    lesson = played.lessons[0].model_copy(update={"prompt": chat})
    # 2 + 2 + 2 + 1 words
    assert measures.mean_words(played.model_copy(update={"lessons": (lesson,)})) == 7
    assert measures.mean_words(played.model_copy(update={"lessons": ()})) is None


def test_moving_means_stay_within_their_round(three_runs: list[Path]) -> None:
    run = read_run(three_runs[0])
    raw, smooth = measures.step_series([run], "loss")
    assert len(raw["static"]) == len(smooth["static"]) == 4 * 24
    # 24 steps reach 24 // 8 = 3 to each side; step 24 opens round 1, so its mean is of 24 to 27.
    first = [value for place, value in raw["static"] if 24 <= place <= 27]
    assert dict(smooth["static"])[24] == pytest.approx(sum(first) / 4)
    assert measures.round_borders([run]) == {"static": [24.0, 48.0, 72.0]}


def test_many_steps_are_thinned(three_runs: list[Path]) -> None:
    raw, _ = measures.step_series([read_run(three_runs[0])], "loss", most=10)
    assert 0 < len(raw["static"]) <= 14


def test_every_child_has_a_fate(three_runs: list[Path]) -> None:
    run = read_run(three_runs[2])
    made = measures.creation(run, 0)
    assert made is not None
    assert made.written == sum(len(played.children) for played in run.rounds)
    assert made.admitted == sum(len(played.born) for played in run.rounds)
    assert sum(count for _, _, count in made.fate_counts) == made.written
    assert set(made.methods) == {"in-depth", "in-breadth"}


def test_a_run_without_children_has_no_creation(three_runs: list[Path]) -> None:
    assert measures.creation(read_run(three_runs[0]), 0) is None


def test_reasons_that_differ_in_a_quoted_word_or_a_number_are_one_reason() -> None:
    assert measures._reason("the constraint 'odd' is there twice") == (
        measures._reason("the constraint 'pal' is there twice")
    )
    assert measures._reason("12 constraints; at most 9 fit") == "… constraints; at most … fit"
    assert measures._reason(" \n ") == "no reason given"
