import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from torch import Tensor

from eva.formulas.pairing import bradley_terry_probabilities, win_probabilities
from eva.learn.losses import PairLogps, dpo, implicit_rewards, ipo, nll, orpo, simpo, sppo


@dataclass
class Row:
    """One pair in plain numbers, for formulas that are written down a second time below."""

    chosen: float
    rejected: float
    ref_chosen: float
    ref_rejected: float
    chosen_tokens: float
    rejected_tokens: float
    chosen_win: float = 1.0
    rejected_win: float = 0.0

    def ratios(self) -> tuple[float, float]:
        return self.chosen - self.ref_chosen, self.rejected - self.ref_rejected

    def averages(self) -> tuple[float, float]:
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


def tensors(rows: list[Row], dtype: torch.dtype) -> tuple[PairLogps, Tensor, Tensor]:
    """The pairs, and the win probabilities of chosen and of rejected."""
    names = [field.name for field in fields(Row)]
    columns = [torch.tensor([vars(row)[name] for row in rows], dtype=dtype) for name in names]
    return PairLogps(*columns[:6]), columns[6], columns[7]


def random_rows() -> list[Row]:
    """Twenty pairs of one to eight tokens; policies agree on some and differ on others."""
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(20):
        lengths = rng.integers(1, 9, size=2)
        logps = [-float(rng.exponential(1.5) * length) for length in lengths]
        refs = [logp + float(rng.normal()) for logp in logps]
        wins = rng.uniform(size=2).tolist()
        rows.append(Row(*logps, *refs, *lengths.tolist(), *wins))
    return rows


def log_sigmoid(h: float) -> float:
    return -math.log(1.0 + math.exp(-h))


def slow_dpo(row: Row) -> float:
    up, down = row.ratios()
    h = 0.3 * (up - down)
    return -0.9 * log_sigmoid(h) - 0.1 * log_sigmoid(-h)


def slow_ipo(row: Row) -> float:
    up, down = row.ratios()
    return (up / row.chosen_tokens - down / row.rejected_tokens - 1 / (2 * 0.6)) ** 2


def slow_summed_ipo(row: Row) -> float:
    up, down = row.ratios()
    return (up - down - 1 / (2 * 0.6)) ** 2


def slow_sppo(row: Row) -> float:
    up, down = row.ratios()
    up_target, down_target = (row.chosen_win - 0.5) / 0.1, (row.rejected_win - 0.5) / 0.1
    return (up - up_target) ** 2 + (down - down_target) ** 2


def slow_simpo(row: Row) -> float:
    up, down = row.averages()
    return -log_sigmoid(2.0 * (up - down) - 0.7)


def slow_orpo(row: Row) -> float:
    up, down = (math.exp(average) for average in row.averages())
    log_odds_ratio = math.log(up / (1 - up)) - math.log(down / (1 - down))
    return -math.log(up) - 0.2 * log_sigmoid(log_odds_ratio)


def slow_nll(row: Row) -> float:
    return -row.chosen / row.chosen_tokens


Loss = Callable[[PairLogps, Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, Callable[[Row], float]]] = {
    "dpo": (lambda logps, *_: dpo(logps, beta=0.3, label_smoothing=0.1), slow_dpo),
    "ipo": (lambda logps, *_: ipo(logps, beta=0.6), slow_ipo),
    "summed ipo": (
        lambda logps, *_: ipo(logps, beta=0.6, length_normalised=False),
        slow_summed_ipo,
    ),
    "sppo": (lambda logps, *wins: sppo(logps, *wins, beta=0.1), slow_sppo),
    "simpo": (lambda logps, *_: simpo(logps, beta=2.0, gamma=0.7), slow_simpo),
    "orpo": (lambda logps, *_: orpo(logps, beta=0.2), slow_orpo),
    "nll": (lambda logps, *_: nll(logps), slow_nll),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
def test_every_loss_equals_the_formula_written_in_plain_numbers(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    loss, slow = LOSSES[name]
    rows = random_rows()
    loss_B = loss(*tensors(rows, dtype))
    assert loss_B.dtype == dtype
    expected = [slow(row) for row in rows]
    assert loss_B.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_every_gradient_is_the_slope_of_the_formula_in_plain_numbers(name: str) -> None:
    loss, slow = LOSSES[name]
    rows = random_rows()
    logps, *wins = tensors(rows, torch.float64)
    logps.chosen.requires_grad_()
    logps.rejected.requires_grad_()
    loss(logps, *wins).sum().backward()
    for which, tensor in (("chosen", logps.chosen), ("rejected", logps.rejected)):
        grad = [0.0] * len(rows) if tensor.grad is None else tensor.grad.tolist()
        assert grad == pytest.approx([slope(slow, row, which) for row in rows], rel=1e-7, abs=1e-7)


def slope(slow: Callable[[Row], float], row: Row, which: str) -> float:
    """Central difference of five points, whose error is of order h^4."""
    h = 1e-3
    values = [
        slow(Row(**(vars(row) | {which: vars(row)[which] + step * h}))) for step in (-2, -1, 1, 2)
    ]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)


def logps(*rows: tuple[float, float, float, float], tokens: float = 1.0) -> PairLogps:
    """Pairs of (chosen, rejected, reference of chosen, reference of rejected), in float64."""
    columns = torch.tensor(rows, dtype=torch.float64).T
    return PairLogps(*columns, *torch.full((2, len(rows)), tokens, dtype=torch.float64))


def test_dpo_is_log_two_where_policy_and_reference_agree() -> None:
    loss_B = dpo(logps((-3.0, -5.0, -3.0, -5.0), (-9.0, -1.0, -9.0, -1.0)), beta=0.3)
    assert loss_B.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-15)


def test_dpo_equals_the_hand_derived_value() -> None:
    # r+ = 0.5 (-2 + 3) = 0.5, r- = 0.5 (-5 + 4) = -0.5, h = 1: log(1 + e^-1) = 0.31326168751822286
    pairs = logps((-2.0, -5.0, -3.0, -4.0))
    chosen, rejected = implicit_rewards(pairs, beta=0.5)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert dpo(pairs, beta=0.5).item() == pytest.approx(0.31326168751822286, abs=1e-15)


def test_label_smoothing_mixes_the_losses_of_both_orders() -> None:
    # h = 1 as above; the other order costs log(1 + e^1) = 1.3132616875182228.
    loss = dpo(logps((-2.0, -5.0, -3.0, -4.0)), beta=0.5, label_smoothing=0.1)
    assert loss.item() == pytest.approx(0.9 * 0.31326168751822286 + 0.1 * 1.3132616875182228)


def test_dpo_is_finite_for_margins_that_overflow_the_exponential() -> None:
    loss_B = dpo(logps((0.0, -1e4, 0.0, 0.0), (-1e4, 0.0, 0.0, 0.0)), beta=1.0)
    assert loss_B.tolist() == [0.0, 1e4]  # -log sigmoid(h) is 0 and -h in these limits


def test_dpo_gradient_is_that_of_the_paper() -> None:
    # d loss / d log pi(y+) = -beta sigmoid(-h) = -0.5 / (1 + e), the opposite for y-.
    base = logps((-2.0, -5.0, -3.0, -4.0))
    chosen, rejected = base.chosen.requires_grad_(), base.rejected.requires_grad_()
    dpo(base, beta=0.5).sum().backward()
    expected = -0.5 / (1.0 + math.e)
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(expected, abs=1e-15)
    assert rejected.grad.item() == pytest.approx(-expected, abs=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_passes_the_numeric_gradient_check(smoothing: float) -> None:
    torch.manual_seed(1)
    inputs = tuple(torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(4))

    def loss(*columns: Tensor) -> Tensor:
        pairs = PairLogps(*columns, *torch.ones(2, 4))
        return dpo(pairs, beta=0.7, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(loss, inputs)


def test_ipo_is_zero_at_its_target_and_symmetric_around_it() -> None:
    # beta = 1/4: the target is 2. Log-ratios of 4 tokens: (8 - 0)/4 = 2; then 2 + 1/2 and 2 - 1/2.
    pairs = logps((-8.0, -3.0, -16.0, -3.0), (-6.0, -3.0, -16.0, -3.0), (-10.0, -3.0, -16.0, -3.0))
    four = PairLogps(*(getattr(pairs, f.name) for f in fields(pairs)[:4]), *torch.full((2, 3), 4.0))
    assert ipo(four, beta=0.25).tolist() == [0.0, 0.25, 0.25]


def test_sppo_pushes_each_response_to_a_target_of_its_own() -> None:
    # d loss / d log pi(y) = 2 (log-ratio - (P - 1/2) / beta). Targets: (3/4 - 1/2)/0.1 = 2.5 for
    # both, which DPO would not move apart; log-ratios 1 and 4: one is to rise, the other to fall.
    pairs = logps((-2.0, -1.0, -3.0, -5.0))
    chosen, rejected = pairs.chosen.requires_grad_(), pairs.rejected.requires_grad_()
    win = torch.tensor([0.75], dtype=torch.float64)
    sppo(pairs, win, win, beta=0.1).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(2 * (1.0 - 2.5))
    assert rejected.grad.item() == pytest.approx(2 * (4.0 - 2.5))


@pytest.mark.parametrize(
    ("probabilities", "rewards", "wins"),
    [
        (win_probabilities, [2.0, 2.0, 2.0], (0.5, 0.5)),  # all equal: nobody is pushed
        (bradley_terry_probabilities, [2.0, 2.0, 2.0], (0.5, 0.5)),
        (win_probabilities, [1.0, 0.0, np.nan], (1.0, 0.0)),  # one missing
        (bradley_terry_probabilities, [math.log(3), 0.0, np.nan], (0.75, 0.25)),
        (win_probabilities, [1.0, 0.0, 1.0, 0.0], (5 / 6, 1 / 6)),  # binary: 2 1/2 of 3 and 1/2
        (bradley_terry_probabilities, [math.log(3), 0.0], (0.75, 0.25)),  # n = 2
        (bradley_terry_probabilities, [1e6, -1e6], (1.0, 0.0)),  # a huge scale: hard labels
    ],
)
def test_sppo_starts_from_the_targets_that_the_rewards_set(
    probabilities: Callable[..., np.ndarray], rewards: list[float], wins: tuple[float, float]
) -> None:
    # Where the policy is the reference, the loss is the sum of squared targets.
    win_G = torch.from_numpy(probabilities(np.array([rewards]))[0])
    loss = sppo(logps((-2.0, -5.0, -2.0, -5.0)), win_G[:1], win_G[1:2], beta=0.001)
    expected = sum(((win - 0.5) / 0.001) ** 2 for win in wins)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_simpo_is_log_two_at_its_margin() -> None:
    # Averages over 2 tokens: -1 and -3; beta (-1 + 3) = 5 = gamma.
    pairs = logps((-2.0, -6.0, 0.0, 0.0), tokens=2.0)
    assert simpo(pairs, beta=2.5, gamma=5.0).item() == pytest.approx(math.log(2), abs=1e-15)


@pytest.mark.parametrize("loss", [simpo, orpo, nll])
def test_losses_without_a_reference_do_not_read_it(loss: Callable[..., Tensor]) -> None:
    options = {simpo: {"beta": 2.0, "gamma": 0.5}, orpo: {"beta": 0.1}, nll: {}}[loss]
    with_zeros = loss(logps((-2.0, -6.0, 0.0, 0.0)), **options)
    assert torch.equal(with_zeros, loss(logps((-2.0, -6.0, -9.0, torch.nan)), **options))


@pytest.mark.parametrize("average", [-1e-6, -1e-3, -0.69, -0.7, -5.0, -50.0, -1e4])
def test_orpo_keeps_its_digits_from_certain_to_impossible_responses(average: float) -> None:
    # log odds of e^a are a - log(1 - e^a); of a rejected response with p = 1/2 they are 0.
    pairs = PairLogps(*(torch.tensor([x]) for x in (average, math.log(0.5), 0.0, 0.0, 1.0, 1.0)))
    log_odds = average - math.log(-math.expm1(average))
    expected = -average + (math.log1p(math.exp(-log_odds)) if log_odds > -700 else -log_odds)
    assert orpo(pairs, beta=1.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("empty", ["chosen", "rejected", "both"])
def test_empty_responses_give_finite_losses_and_gradients(
    name: str, dtype: torch.dtype, empty: str
) -> None:
    # An empty response has probability 1: its log-probabilities are 0, and so is its length.
    row = Row(-2.0, -5.0, -3.0, -4.0, 2.0, 3.0)
    for which in ("chosen", "rejected") if empty == "both" else (empty,):
        vars(row).update({which: 0.0, f"ref_{which}": 0.0, f"{which}_tokens": 0.0})
    pairs, *wins = tensors([row], dtype)
    inputs = pairs.chosen.requires_grad_(), pairs.rejected.requires_grad_()
    loss_B = LOSSES[name][0](pairs, *wins)
    grads = torch.autograd.grad(loss_B.sum(), inputs, allow_unused=True)
    assert loss_B.isfinite().all()
    assert all(grad is None or grad.isfinite().all() for grad in grads)


def test_the_average_of_an_empty_response_is_zero() -> None:
    # IPO: chosen 0, rejected (-5 + 4)/1 = -1; (0 + 1 - 1/2)^2. SimPO: 0 - (-5) - 0 = 5.
    pairs = PairLogps(*(torch.tensor([x]) for x in (0.0, -5.0, 0.0, -4.0, 0.0, 1.0)))
    assert ipo(pairs, beta=1.0).item() == 0.25
    assert simpo(pairs, beta=1.0, gamma=0.0).item() == pytest.approx(math.log1p(math.exp(-5)))
    assert nll(pairs).item() == 0.0


def test_log_sigmoid_losses_are_finite_for_margins_that_overflow_the_exponential() -> None:
    pairs = logps((-1.0, -1e6, 0.0, 0.0), (-1e6, -1.0, 0.0, 0.0))
    # SimPO: h = +-(1e6 - 1) costs 0 and 1e6 - 1. ORPO: NLL 1 and 1e6; the log odds of 1e-434294
    # are -1e6, of 1/e they are -log(e - 1).
    assert simpo(pairs, beta=1.0, gamma=0.0).tolist() == [0.0, 1e6 - 1.0]
    expected = [1.0, 1e6 + (1e6 - math.log(math.e - 1.0))]
    assert orpo(pairs, beta=1.0).tolist() == pytest.approx(expected, rel=1e-15)
