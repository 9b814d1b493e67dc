"""How many evolved prompts a mini-batch of an online run holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.formulas.phases import evolved_of, evolved_share, parents_of


def test_a_run_warms_up_mixes_up_and_bootstraps():
    # 10 steps: W = 2, M = round(0.6 * 10) - 2 = 4, so that the mix-up is 1/4, 2/4, 3/4, 4/4 of 0.8.
    lengths = {"warmup": 0.2, "mixup": 0.4, "evolved": 0.8, "bootstrap": 1.0}
    shares = [evolved_share(step, 10, **lengths) for step in range(12)]
    assert shares == pytest.approx([0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def test_a_run_without_warm_up_and_mix_up_bootstraps_at_once():
    lengths = {"warmup": 0.0, "mixup": 0.0, "evolved": 0.8, "bootstrap": 0.5}
    assert {evolved_share(step, 4, **lengths) for step in range(4)} == {0.5}


def test_a_whole_run_of_warm_up_never_evolves():
    lengths = {"warmup": 1.0, "mixup": 0.0, "evolved": 0.8, "bootstrap": 0.5}
    assert {evolved_share(step, 4, **lengths) for step in range(4)} == {0.0}


@given(
    st.integers(1, 500),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_shares_lie_in_bounds_and_rise_through_the_mix_up(steps, warmup, rest, evolved, bootstrap):
    mixup = rest * (1 - warmup)
    shares = [
        evolved_share(s, steps, warmup=warmup, mixup=mixup, evolved=evolved, bootstrap=bootstrap)
        for s in range(steps)
    ]
    assert all(0 <= share <= 1 for share in shares)
    W, end = round(warmup * steps), round((warmup + mixup) * steps)
    mixing = shares[W:end]
    assert mixing == sorted(mixing)
    assert not mixing or mixing[-1] == pytest.approx(evolved)


def test_evolved_prompts_and_parents_are_whole_numbers():
    # 0.8 * 64 = 51.2, of which a quarter is 12.75.
    assert evolved_of(0.8, 64) == 51
    assert parents_of(0.25, 51) == 13
    assert parents_of(1.0, 0) == 0
