import math

import pytest
import torch
from torch import Tensor

from eva.learn import losses
from eva.learn.losses import PairLogps, dpo, implicit_rewards, token_logprobs


def logps(*rows: tuple[float, float, float, float]) -> PairLogps:
    """Pairs of (chosen, rejected, reference of chosen, reference of rejected), in float64."""
    columns = torch.tensor(rows, dtype=torch.float64).T
    return PairLogps(*columns, *torch.ones(2, len(rows)))


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


def test_token_logprobs_equal_the_hand_derived_sum() -> None:
    # Uniform over 4 tokens: log 1/4 each, two tokens count. Then odds 3 : 1, the token has 3/4.
    logits = torch.zeros(2, 3, 4)
    logits[1, 0] = torch.tensor([math.log(3.0), 0.0, -torch.inf, -torch.inf])
    tokens = torch.tensor([[1, 2, 0], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = [2 * math.log(0.25), math.log(0.75)]
    assert token_logprobs(logits, tokens, mask).tolist() == pytest.approx(expected, abs=1e-6)


def random_case(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = (4.0 * torch.randn(3, 5, 11, generator=generator, dtype=torch.float64)).to(dtype)
    tokens = torch.randint(11, (3, 5), generator=generator)
    mask = torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [0] * 5])
    return logits.requires_grad_(), tokens, mask


def plain(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The slow formula: log-softmax of everything, in float64."""
    picked = logits.double().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return (picked * mask).sum(1)


@pytest.mark.parametrize("chunk", [1, 22, 40, 10**9])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
)
def test_token_logprobs_and_gradient_equal_float64_however_chunked(
    monkeypatch: pytest.MonkeyPatch, chunk: int, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr(losses, "CHUNK", chunk)
    logits, tokens, mask = random_case(dtype)
    weights = torch.tensor([1.0, -2.0, 3.0])

    logprobs = token_logprobs(logits, tokens, mask)
    (grad,) = torch.autograd.grad((logprobs * weights).sum(), logits)

    expected = plain(logits, tokens, mask)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), logits)
    assert grad.dtype == dtype
    assert logprobs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # The sum is float32 whatever the logits are; only the gradient is rounded to their type.
    torch.testing.assert_close(logprobs.double(), expected, atol=min(tolerance, 1e-4), rtol=0)
    torch.testing.assert_close(grad.double(), expected_grad.double(), atol=tolerance, rtol=0)


def test_token_logprobs_pass_the_numeric_gradient_check() -> None:
    logits, tokens, mask = random_case(torch.float64)
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, tokens, mask), (logits,))
