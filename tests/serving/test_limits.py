from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva import seeds
from eva.serving.limits import LONGEST_WAIT, STEPS, Limit, retry_after, wait

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def refused_in_a_row(limit, count, start=0.0):
    """The limit's own clock: each refusal is of a request that was just sent."""
    return [limit.refused(start + i, start + i) for i in range(count)]


def test_one_refusal_changes_nothing():
    limit = Limit(256)
    assert refused_in_a_row(limit, 1) == [False]
    assert limit.size == 256


def test_refusals_in_a_row_halve_the_limit_once_for_all_that_was_in_flight():
    # 1 - 0.98^k reaches 0.2 at k = ln 0.8 / ln 0.98 = 11.05: the twelfth refusal.
    limit = Limit(256)
    assert refused_in_a_row(limit, 12) == [False] * 11 + [True]
    assert limit.size == 128
    # What was sent before the shrinkage at time 11 is refused too, and says nothing new.
    assert not any(limit.refused(10.0, 20.0 + i) for i in range(200))
    assert limit.size == 128


def test_the_limit_grows_by_a_step_for_each_round_of_answers():
    limit = Limit(64)
    refused_in_a_row(limit, 12)
    assert limit.size == 32
    for _ in range(32):  # one round
        limit.answered()
    assert limit.size == 32 + 64 // STEPS - 1  # 2 less rounding, for the limit grows in between
    for _ in range(64 * STEPS):
        limit.answered()
    assert limit.size == 64


def test_the_limit_never_falls_below_one():
    limit = Limit(4)
    refused_in_a_row(limit, 200)
    assert limit.size == 1


def test_refusals_at_random_are_no_overload():
    limit, rng = Limit(256), seeds.rng(1, "limit")
    for i in range(50_000):
        if rng.random() < 0.05:
            assert not limit.refused(float(i), float(i))
        else:
            limit.answered()
    assert limit.size == 256


@given(st.integers(1, 100), st.floats(0, 0.999), st.floats(0, 100))
def test_a_wait_is_what_the_server_wants_and_a_share_of_the_bound(failures, draw, asked_for):
    bound = min(LONGEST_WAIT, 0.25 * 2 ** (failures - 1))
    assert wait(failures, draw, asked_for) == pytest.approx(asked_for + draw * bound)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("2", 2.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("inf", 0.0),
        ("nan", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        (format_datetime(NOW + timedelta(seconds=7), usegmt=True), 7.0),
        (format_datetime(NOW - timedelta(seconds=7), usegmt=True), 0.0),
        ("Tue, 01 Jan 2030 00:00:05", 5.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after(header, NOW) == seconds
