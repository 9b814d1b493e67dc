"""Given prompts: files and data sets, read or refused with a reason."""

import json

import pytest

from eva import build
from eva.errors import RecipeError
from eva.parts.prompts import DatasetPrompts, FilePrompts


def jsonl(tmp_path, *lines, **options):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(
        b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines)
    )
    return build.prompts(FilePrompts(kind="jsonl", path=str(path), **options), seed=1)


def test_texts_and_chats_become_prompts_in_order(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u\u2028v"}]
    prompts, refused = jsonl(tmp_path, {"prompt": "a"}, b"", {"prompt": chat})
    assert [[(m.role, m.content) for m in p.messages] for p in prompts] == [
        [("user", "a")], [("system", "s"), ("user", "u\u2028v")],
    ]  # fmt: skip
    assert not refused
    assert prompts[0].by == "prompts.jsonl"


def test_turns_without_a_role_are_the_users_as_evaluation_sets_write_them(tmp_path):
    rows = [{"turns": ["a", "b"]}, {"turns": [{"content": "c"}]}]
    prompts, _ = jsonl(tmp_path, *rows, column="turns")
    assert [[(m.role, m.content) for m in p.messages] for p in prompts] == [
        [("user", "a"), ("user", "b")], [("user", "c")],
    ]  # fmt: skip


def test_columns_for_the_reward_become_data_and_others_are_left(tmp_path):
    row = {"question": "q", "answer": {"n": 7}, "noise": 1}
    prompts, _ = jsonl(tmp_path, row, column="question", data=("answer",))
    assert prompts[0].data == {"answer": {"n": 7}}


def test_duplicates_are_refused_with_both_row_numbers(tmp_path):
    prompts, refused = jsonl(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"})
    assert len(prompts) == 2
    assert [r.flaw for r in refused] == ["row 3 repeats row 1 of prompts.jsonl"]


def test_a_limit_takes_the_first(tmp_path):
    prompts, _ = jsonl(tmp_path, *({"prompt": str(i)} for i in range(9)), limit=4)
    assert [p.messages[0].content for p in prompts] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{", r"prompts\.jsonl:1 is no JSON .*expected one object per line"),
        (b"[1]", r"prompts\.jsonl:1 holds list; expected one object"),
        ({"text": "a", "b": 1}, r"row 1: no column 'prompt'; the columns are text, b"),
        ({}, r"no column 'prompt'; the columns are none"),
        ({"prompt": 3}, r"row 1: the column 'prompt' holds 3; expected a text or a list"),
        ({"prompt": ""}, r"holds ''; expected a text"),
        ({"prompt": []}, r"holds \[\]; expected a text"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, r"row 1: role: Input should be 'system'"),
        ({"prompt": [3]}, r"row 1: prompt: Input should be a valid dictionary"),
        (b'{"prompt": "a\\ud800"}', r"row 1: content: a lone surrogate U\+D800 at character 1"),
        (b"", r"holds no prompts; expected at least one row"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, line, sentence):
    with pytest.raises(RecipeError, match=sentence):
        jsonl(tmp_path, line)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_missing_file_is_one_sentence(kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(RecipeError, match=r"there is no file /nowhere; set prompts\.path"):
        build.prompts(FilePrompts(kind=kind, path="/nowhere"), seed=1)


def test_parquet_gives_the_same_prompts_as_json_lines(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"prompt": [{"role": "user", "content": str(i)}], "answer": i} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    part = FilePrompts(kind="parquet", path=str(tmp_path / "prompts.parquet"), data=("answer",))
    found, _ = build.prompts(part, seed=1)
    expected, _ = jsonl(tmp_path, *rows, data=("answer",))
    assert [p.id for p in found] == [p.id for p in expected]


def test_a_file_that_is_no_parquet_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x").write_text("{}")
    with pytest.raises(RecipeError, match="is no sound Parquet file"):
        build.prompts(FilePrompts(kind="parquet", path=str(tmp_path / "x")), seed=1)


@pytest.mark.parametrize("is_split", [True, False])
def test_a_saved_data_set_is_read_from_its_folder(tmp_path, is_split):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}])
    saved = datasets.DatasetDict({"train": rows}) if is_split else rows
    saved.save_to_disk(str(tmp_path / "set"))
    found, _ = build.prompts(DatasetPrompts(kind="dataset", path=str(tmp_path / "set")), seed=1)
    assert [p.messages[0].content for p in found] == ["a", "b"]


def test_a_data_set_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match="cannot load the split 'train' of the data set"):
        build.prompts(DatasetPrompts(kind="dataset", path=str(tmp_path / "nowhere")), seed=1)
    rows = datasets.DatasetDict({"test": datasets.Dataset.from_list([{"prompt": "a"}])})
    rows.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(RecipeError, match="cannot load the split 'train'"):
        build.prompts(DatasetPrompts(kind="dataset", path=str(tmp_path / "set")), seed=1)


def test_a_missing_number_of_a_table_is_null(tmp_path):
    prompts, _ = jsonl(tmp_path, b'{"prompt": "a", "answer": [NaN, {"b": NaN}]}', data=("answer",))
    assert prompts[0].data == {"answer": [None, {"b": None}]}
