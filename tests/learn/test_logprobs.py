"""Log-probabilities from hidden states, against the plain log-softmax of all logits."""

import pytest
import torch
from torch import Tensor

from eva.learn import logprobs
from eva.learn.logprobs import Head, token_logprobs

N, H, V = 7, 5, 11


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias, tokens and an upstream gradient."""
    generator = torch.Generator().manual_seed(3)
    hidden, weight, bias, grad = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((N, H), (V, H), (V,), (N,))
    )
    tokens = torch.randint(V, (N,), generator=generator)
    return hidden, weight, bias, tokens, grad


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, cap: float | None
) -> Tensor:
    logits = hidden @ weight.T
    logits = logits if bias is None else logits + bias
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return logits.log_softmax(1)[torch.arange(len(tokens)), tokens]


@pytest.fixture(params=[(10**9, 10**9), (1, 10**9), (3 * V, 0), (1, 0)])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One chunk or many, logits kept or made again."""
    chunk, kept = request.param
    monkeypatch.setitem(logprobs.CHUNK, "cpu", chunk)
    monkeypatch.setitem(logprobs.KEPT, "cpu", kept)


@pytest.mark.usefixtures("_sizes")
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_values_and_gradients_are_those_of_the_log_softmax(
    has_bias: bool, cap: float | None
) -> None:
    hidden, weight, bias, tokens, grad = drawn()
    leaves = [hidden, weight, *([bias] if has_bias else [])]
    for leaf in leaves:
        leaf.requires_grad_()
    chosen = bias if has_bias else None
    expected = plain(hidden, weight, chosen, tokens, cap)
    slopes = torch.autograd.grad(expected, leaves, grad)

    found = token_logprobs(hidden, tokens, Head(weight, chosen, cap))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for ours, slope in zip(torch.autograd.grad(found, leaves, grad), slopes, strict=True):
        torch.testing.assert_close(ours, slope, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_sizes")
def test_a_frozen_head_gets_no_gradient_and_its_input_does() -> None:
    hidden, weight, _, tokens, grad = drawn()
    hidden.requires_grad_()
    token_logprobs(hidden, tokens, Head(weight)).backward(grad)
    assert weight.grad is None
    (slope,) = torch.autograd.grad(plain(hidden, weight, None, tokens, None), hidden, grad)
    torch.testing.assert_close(hidden.grad, slope, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_sizes")
def test_narrow_products_keep_float32_sums_and_the_types_of_the_inputs() -> None:
    hidden, weight, _, tokens, grad = drawn(torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    narrow = token_logprobs(hidden.bfloat16(), tokens, Head(weight, dtype=torch.bfloat16))
    assert narrow.dtype == torch.float32
    narrow.backward(grad)
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    wide = plain(hidden, weight, None, tokens, None)
    torch.testing.assert_close(narrow, wide, rtol=0.02, atol=0.05)
    (slope,) = torch.autograd.grad(wide, weight, grad)
    torch.testing.assert_close(weight.grad, slope, rtol=0.1, atol=0.1)


def test_no_tokens_give_no_logprobs() -> None:
    hidden, weight, *_ = drawn()
    none = hidden[:0].requires_grad_()
    found = token_logprobs(none, torch.zeros(0, dtype=torch.int64), Head(weight))
    assert found.shape == (0,)
    found.sum().backward()
    assert none.grad is not None
    assert none.grad.shape == (0, H)


def test_logits_beyond_the_range_of_exp_are_safe() -> None:
    hidden = torch.tensor([[1e4]])
    weight = torch.tensor([[1.0], [-1.0]])
    found = token_logprobs(hidden, torch.tensor([1]), Head(weight))
    assert found.tolist() == [-2e4]
