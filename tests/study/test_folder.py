"""A study directory belongs to one study, which may grow."""

import pytest

from eva.errors import RunDirError
from eva.study import load
from eva.study.folder import held, must_be_same, read_made
from tests.study.small import TUNED, small

CLAIM = {"better": "eva", "than": "static", "on": "hard/sampled/reward"}
GAIN = {"fast": {}, "slow": {"learner": {"lr": 0.5}}}


def test_the_study_is_written_out_and_one_process_holds_it(tmp_path):
    home = tmp_path / "home"
    with held(home, small()):
        assert load(home / "study.yaml") == small()
        with (
            pytest.raises(RunDirError, match=r"home is being written by process .* since .*; wait"),
            held(home, small()),
        ):
            pass
    with held(home, small(seeds=[1, 2, 3])):
        assert load(home / "study.yaml").seeds == (1, 2, 3)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with (
        pytest.raises(RunDirError, match=r"holds other files \(thesis.tex\)"),
        held(tmp_path, small()),
    ):
        pass  # fmt: skip
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "lock").write_text("")
    (tmp_path / "study.yaml.part").write_text("torn")
    with held(tmp_path, small()):
        pass


@pytest.mark.parametrize("name", ["1e3", "010", "yes", "1_000", "0x10", "null", "2024-01-01"])
def test_a_study_with_odd_names_and_texts_goes_on(tmp_path, name):
    arms = {name: {"creator": None}, "eva": {}}
    study = small(arms=arms, question=name, factors={name: {name: {}, "b": {"n": 3}}})
    for _ in range(2):
        with held(tmp_path / "home", study):
            assert load(tmp_path / "home/study.yaml") == study


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunDirError, match=r"cannot write .*lock"),
        held(tmp_path / "file" / "home", small()),
    ):
        pass  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {"arms": {"static": {"creator": None}, "eva": {}, "new": {"n": 3}}},
        {"seeds": [3, 1, 2]},
        {"factors": {"gain": GAIN | {"slower": {"learner": {"lr": 0.1}}}}},
        {"claims": [CLAIM]},
        {"metrics": ["easy/sampled/reward"], "curves": ["round/words"]},
        {"question": "?", "against": None, "keep": "all", "pool": ["gain"]},
        {"prepare": {"b": "make {out}"}},
        {"tune": TUNED["tune"] | {"by": "easy/sampled/reward"}},
    ],
)
def test_a_study_may_grow_and_may_be_read_otherwise(tmp_path, keys):
    must_be_same(small(**TUNED), small(**(TUNED | keys)), tmp_path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "other"}, "name is 'small' there and 'other' here"),
        ({"arms": {"eva": {}}}, r"arms\.static\.creator is None there and absent here"),
        ({"arms": {"static": {"creator": None}, "eva": {"n": 3}}}, r"arms\.eva"),
        ({"seeds": [1]}, r"seeds is \[1, 2\] there and \[1\] here"),
        ({"change": small().change | {"rounds": 3}}, r"change\.rounds is 2 there and 3 here"),
        ({"factors": {}}, r"factors\.gain\.fast is \{\} there"),
        ({"factors": {"gain": {"fast": {}}}}, r"factors\.gain\.slow\.learner\.lr is 0\.5 there"),
        ({"factors": {"gain": GAIN, "new": {"x": {}}}}, r"factors\.new\.x is absent there"),
        (
            {"factors": {"gain": {"slow": GAIN["slow"], "fast": {}}}},
            "the first level of gain is 'fast' there and 'slow' here",
        ),
        ({"tune": None}, r"tune\.seeds is \[7\] there"),
        ({"tune": TUNED["tune"] | {"grid": {"n": [3]}}}, r"tune\.grid\.1\.n is 4 there and absent"),
        ({"prepare": {"a": "other {out}"}}, r"prepare\.a is 'make \{out\}' there"),
        ({"probe": {"kind": "python", "call": "a:b"}}, r"probe\.call is absent there and 'a:b'"),
    ],
)
def test_another_study_is_refused_with_the_keys_that_differ(tmp_path, keys, said):
    fields = {**TUNED, "prepare": {"a": "make {out}"}, "against": None}
    with pytest.raises(RunDirError, match="was made by another study") as error:
        must_be_same(small(**fields), small(**(fields | keys)), tmp_path)
    assert error.match(said)


def test_what_was_made_is_read_or_said_to_be_damaged(tmp_path):
    assert read_made(tmp_path) is None
    (tmp_path / "made.json").write_text("{}")
    with pytest.raises(RunDirError, match=r"made\.json is damaged; delete it"):
        read_made(tmp_path)
