import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from eva.formulas.advantages import group_advantages, loo_advantages
from eva.learn.policy_gradient import TokenLogps, grpo, kl_k1, kl_k3, rloo

MASK = ((1, 1, 1, 1, 1), (1, 1, 0, 0, 0), (1, 0, 1, 0, 1), (0, 0, 0, 0, 0), (1, 1, 1, 1, 0))
"""Five responses of up to five tokens: whole, short, with a gap, empty, cut."""
ADVANTAGES = (1.5, -0.7, 0.0, 2.0, -1.2)
Numbers = list[list[float]]


def random_numbers() -> tuple[Numbers, Numbers, Numbers]:
    """Log-probabilities under new, old and ref; most ratios of tokens lie in [0.6, 1.7]."""
    rng = np.random.default_rng(8)
    old = -rng.exponential(1.5, size=(5, 5))
    new, ref = (old + 0.25 * rng.normal(size=(5, 5)) for _ in range(2))
    return new.tolist(), old.tolist(), ref.tolist()


def tensors(
    new: Numbers, old: Numbers, ref: Numbers | None, dtype: torch.dtype, mask: object = MASK
) -> TokenLogps:
    columns = [None if x is None else torch.tensor(x, dtype=dtype) for x in (new, old, ref)]
    assert columns[0] is not None and columns[1] is not None
    columns[0].requires_grad_()
    return TokenLogps(columns[0], columns[1], columns[2], torch.tensor(mask, dtype=dtype))


def clipped(ratio: float, advantage: float, low: float | None, high: float | None) -> float:
    within = ratio
    if low is not None and ratio < 1 - low:
        within = 1 - low
    if high is not None and ratio > 1 + high:
        within = 1 + high
    return -min(ratio * advantage, within * advantage)


def slow_rloo(new: Numbers, old: Numbers, epsilon: float | None) -> list[float]:
    losses = []
    for row, old_row, mask, advantage in zip(new, old, MASK, ADVANTAGES, strict=True):
        log_ratio = sum(a - b for a, b, m in zip(row, old_row, mask, strict=True) if m)
        losses.append(clipped(math.exp(log_ratio), advantage, epsilon, epsilon))
    return losses


def slow_grpo(
    new: Numbers, old: Numbers, ref: Numbers, low: float | None, high: float | None, kl: float
) -> Numbers:
    losses = []
    for i, advantage in enumerate(ADVANTAGES):
        losses.append([0.0] * 5)
        for t in range(5):
            if MASK[i][t]:
                ratio = math.exp(new[i][t] - old[i][t])
                other = math.exp(ref[i][t]) / math.exp(new[i][t])
                k3 = other - math.log(other) - 1
                losses[i][t] = clipped(ratio, advantage, low, high) + kl * k3
    return losses


def slope(total: Callable[[Numbers], float], new: Numbers) -> Numbers:
    """Central differences of five points in each entry, whose error is of order h^4."""

    def moved(i: int, t: int, by: float) -> float:
        rows = [list(row) for row in new]
        rows[i][t] += by
        return total(rows)

    h = 1e-3
    return [
        [
            sum(w * moved(i, t, s * h) for s, w in ((-2, 1), (-1, -8), (1, 8), (2, -1))) / (12 * h)
            for t in range(5)
        ]
        for i in range(5)
    ]


def flat(rows: Numbers) -> list[float]:
    return [x for row in rows for x in row]


DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-5)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
@pytest.mark.parametrize("epsilon", [None, 0.2])
def test_rloo_equals_the_formula_written_in_plain_numbers(
    dtype: torch.dtype, tolerance: float, epsilon: float | None
) -> None:
    new, old, _ = random_numbers()
    logps = tensors(new, old, None, dtype)
    loss_B = rloo(logps, torch.tensor(ADVANTAGES, dtype=dtype), epsilon=epsilon)
    assert loss_B.dtype == dtype
    assert loss_B.tolist() == pytest.approx(
        slow_rloo(new, old, epsilon), rel=tolerance, abs=tolerance
    )
    (grad,) = torch.autograd.grad(loss_B.sum(), logps.new)
    expected = slope(lambda rows: sum(slow_rloo(rows, old, epsilon)), new)
    assert flat(grad.tolist()) == pytest.approx(flat(expected), rel=1e-4, abs=1e-5)


GRPO = [(None, None, 0.0), (0.2, None, 0.0), (0.2, 0.5, 0.0), (0.1, None, 0.04), (None, 0.3, 1.0)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
@pytest.mark.parametrize(("epsilon", "epsilon_high", "kl"), GRPO)
def test_grpo_equals_the_formula_written_in_plain_numbers(
    dtype: torch.dtype,
    tolerance: float,
    epsilon: float | None,
    epsilon_high: float | None,
    kl: float,
) -> None:
    high = epsilon if epsilon_high is None else epsilon_high
    new, old, ref = random_numbers()
    logps = tensors(new, old, ref, dtype)
    advantages_B = torch.tensor(ADVANTAGES, dtype=dtype)
    loss_B_R = grpo(logps, advantages_B, epsilon=epsilon, epsilon_high=epsilon_high, kl=kl)
    expected = slow_grpo(new, old, ref, epsilon, high, kl)
    assert loss_B_R.dtype == dtype
    assert flat(loss_B_R.tolist()) == pytest.approx(flat(expected), rel=tolerance, abs=tolerance)
    (grad,) = torch.autograd.grad(loss_B_R.sum(), logps.new)
    slopes = slope(lambda rows: sum(flat(slow_grpo(rows, old, ref, epsilon, high, kl))), new)
    assert flat(grad.tolist()) == pytest.approx(flat(slopes), rel=1e-4, abs=1e-5)


def test_clipping_stops_what_the_advantage_asks_for_and_nothing_else() -> None:
    # Ratios e^0.5 = 1.65 and e^-0.5 = 0.61 lie outside [0.8, 1.2]. A good response is not made
    # likelier than 1.2, a bad one not less likely than 0.8; the other two ways stay open, where
    # d loss / d log pi = -A ratio.
    new = torch.tensor([[0.5], [0.5], [-0.5], [-0.5]], requires_grad=True)
    logps = TokenLogps(new, torch.zeros(4, 1), None, torch.ones(4, 1))
    loss_B = rloo(logps, torch.tensor([1.0, -1.0, 1.0, -1.0]), epsilon=0.2)
    expected = [-1.2, math.exp(0.5), -math.exp(-0.5), 0.8]
    assert loss_B.tolist() == pytest.approx(expected, rel=1e-6)
    (grad,) = torch.autograd.grad(loss_B.sum(), new)
    assert flat(grad.tolist()) == pytest.approx([0.0, math.exp(0.5), -math.exp(-0.5), 0.0])


@pytest.mark.parametrize("epsilon", [None, 0.2])
def test_on_fresh_samples_the_gradient_is_that_of_reinforce(epsilon: float | None) -> None:
    # d (-A log pi(y|x)) / d log pi(y_t) = -A at every token of the response.
    old = random_numbers()[1]
    advantages_B = torch.tensor(ADVANTAGES, dtype=torch.float64)
    expected = [[-a * m for m in row] for a, row in zip(ADVANTAGES, MASK, strict=True)]
    logps = tensors(old, old, None, torch.float64)
    for loss in (
        rloo(logps, advantages_B, epsilon=epsilon),
        grpo(logps, advantages_B, epsilon=epsilon, epsilon_high=None, kl=0.0),
    ):
        (grad,) = torch.autograd.grad(loss.sum(), logps.new)
        assert flat(grad.tolist()) == pytest.approx(flat(expected), abs=1e-15)


def test_a_response_is_one_action_of_rloo_and_each_token_one_of_grpo() -> None:
    # Ratios of tokens 2 and 1/2: of the response 2 x 1/2 = 1, which nothing clips.
    new = torch.tensor([[math.log(2.0), -math.log(2.0)]], dtype=torch.float64)
    logps = TokenLogps(new, torch.zeros_like(new), None, torch.ones_like(new))
    advantage = torch.ones(1, dtype=torch.float64)
    assert rloo(logps, advantage, epsilon=0.2).tolist() == pytest.approx([-1.0])
    loss_B_R = grpo(logps, advantage, epsilon=0.2, epsilon_high=None, kl=0.0)
    assert flat(loss_B_R.tolist()) == pytest.approx([-1.2, -0.5])


def test_the_penalty_does_not_depend_on_the_advantage_and_its_slope_is_one_minus_the_ratio() -> (
    None
):
    # d/d new of exp(d) - d - 1 with d = ref - new = log 3 is 1 - 3; the value is 3 - log 3 - 1.
    new = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    ref = torch.full_like(new, math.log(3.0)).detach()
    logps = TokenLogps(new, torch.zeros_like(ref), ref, torch.ones_like(ref))
    loss = grpo(logps, torch.zeros(1), epsilon=0.2, epsilon_high=None, kl=0.5).sum()
    assert loss.item() == pytest.approx(0.5 * (2.0 - math.log(3.0)), abs=1e-15)
    assert torch.autograd.grad(loss, new)[0].item() == pytest.approx(0.5 * (1.0 - 3.0), abs=1e-15)


@pytest.mark.parametrize("anything", [-1e30, -200.0, 0.0, 200.0, 1e30, 3e38])
def test_what_stands_at_padding_counts_for_nothing(anything: float) -> None:
    def losses(padding: float) -> list[Tensor]:
        new, old, ref = random_numbers()
        for rows, sign in ((new, 1), (old, -1), (ref, -1)):
            for row, mask in zip(rows, MASK, strict=True):
                row[:] = [x if m else sign * padding for x, m in zip(row, mask, strict=True)]
        logps = tensors(new, old, ref, torch.float32)
        assert logps.ref is not None
        advantages_B = torch.tensor(ADVANTAGES)
        found = [
            rloo(logps, advantages_B, epsilon=0.2),
            grpo(logps, advantages_B, epsilon=0.2, epsilon_high=None, kl=0.1),
            kl_k1(logps.new, logps.ref, logps.mask),
        ]
        return found + [torch.autograd.grad(loss.sum(), logps.new)[0] for loss in found]

    for loss, expected in zip(losses(anything), losses(-1.0), strict=True):
        assert torch.equal(loss, expected)


@pytest.mark.parametrize("epsilon", [None, 0.2])
@pytest.mark.parametrize("log_ratio", [-1e4, -100.0, 100.0, 1e4])
def test_huge_ratios_stay_finite(epsilon: float | None, log_ratio: float) -> None:
    new = torch.full((3, 1), log_ratio, requires_grad=True)
    logps = TokenLogps(new, torch.zeros(3, 1), None, torch.ones(3, 1))
    loss_B = rloo(logps, torch.tensor([1.0, 0.0, -1.0]), epsilon=epsilon)
    assert loss_B.isfinite().all()
    assert torch.autograd.grad(loss_B.sum(), new)[0].isfinite().all()


@pytest.mark.parametrize(
    ("advantages", "rewards", "expected"),
    [
        (loo_advantages, [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]),  # all equal: nothing is learnt
        (loo_advantages, [4.0, 1.0], [3.0, -3.0]),  # n = 2
        (loo_advantages, [1.0, 0.0, 0.0], [1.0, -0.5, -0.5]),  # binary
        (loo_advantages, [5.0, np.nan, 1.0], [4.0, -4.0]),  # one missing, which is left out
        (loo_advantages, [1e6, -1e6], [2e6, -2e6]),
        ("scaled", [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]),
        ("scaled", [4.0, 1.0], [0.5**0.5, -(0.5**0.5)]),
        ("scaled", [1.0, 0.0, 0.0], [2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5]),
        ("scaled", [5.0, np.nan, 1.0], [0.5**0.5, -(0.5**0.5)]),
        ("scaled", [1e6, -1e6], [0.5**0.5, -(0.5**0.5)]),
    ],
)
def test_on_fresh_samples_the_loss_is_minus_the_advantage_that_the_rewards_set(
    advantages: Callable[..., np.ndarray] | str, rewards: list[float], expected: list[float]
) -> None:
    rewards_1_G = np.array([rewards])
    if isinstance(advantages, str):
        A_G = group_advantages(rewards_1_G, scaled=True)[0]
    else:
        A_G = advantages(rewards_1_G)[0]
    A_B = torch.from_numpy(A_G[~np.isnan(A_G)]).float()
    old = -torch.ones(len(A_B), 2)
    logps = TokenLogps(old.clone(), old, None, torch.ones_like(old))
    assert rloo(logps, A_B, epsilon=0.2).tolist() == pytest.approx([-a for a in expected])
    loss_B_R = grpo(logps, A_B, epsilon=0.2, epsilon_high=None, kl=0.0)
    assert flat(loss_B_R.tolist()) == pytest.approx([-a for a in expected for _ in range(2)])


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=str)
def test_kl_estimates_equal_the_formulas_written_in_plain_numbers(
    dtype: torch.dtype, tolerance: float
) -> None:
    new, _, ref = random_numbers()
    logps = tensors(new, new, ref, dtype)
    assert logps.ref is not None
    k1 = [
        sum(a - b for a, b, m in zip(*rows, strict=True) if m)
        for rows in zip(new, ref, MASK, strict=True)
    ]
    k3 = [math.exp(b - a) - (b - a) - 1 for a, b in zip(flat(new), flat(ref), strict=True)]
    assert kl_k1(logps.new, logps.ref, logps.mask).tolist() == pytest.approx(k1, abs=tolerance)
    assert flat(kl_k3(logps.new, logps.ref).tolist()) == pytest.approx(k3, abs=tolerance)


def test_kl_estimates_have_the_divergence_as_their_mean_and_k3_is_never_negative() -> None:
    # Over three tokens, weighted by pi: sum_v pi_v (log pi_v - log ref_v) = KL(pi || ref).
    pi, ref = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    divergence = sum(p * math.log(p / q) for p, q in zip(pi, ref, strict=True))
    new_B_R, ref_B_R = (torch.tensor(x, dtype=torch.float64).log()[:, None] for x in (pi, ref))
    weights = torch.tensor(pi, dtype=torch.float64)
    k1_B, k3_B = kl_k1(new_B_R, ref_B_R, torch.ones(3, 1)), kl_k3(new_B_R, ref_B_R)[:, 0]
    assert (weights * k1_B).sum().item() == pytest.approx(divergence)
    assert (weights * k3_B).sum().item() == pytest.approx(divergence)
    assert (k3_B >= 0).all() and k1_B.min() < 0


def test_k3_keeps_its_digits_where_the_policies_are_close() -> None:
    # exp(d) - d - 1 = d^2 / 2 + d^3 / 6 + ...; in float32 exp(1e-3) alone is off by 6e-8.
    d = 1e-3
    k3 = kl_k3(torch.tensor([[0.0]]), torch.tensor([[d]]))
    assert k3.item() == pytest.approx(d**2 / 2 + d**3 / 6, rel=1e-3)


def test_a_penalty_without_a_reference_is_our_own_mistake() -> None:
    new, old, _ = random_numbers()
    logps = tensors(new, old, None, torch.float32)
    with pytest.raises(AssertionError, match="needs one"):
        grpo(logps, torch.tensor(ADVANTAGES), epsilon=0.2, epsilon_high=None, kl=0.1)
