import numpy as np
import pytest
import torch

from eva.backends import pick as module
from eva.backends.pick import draw, pick
from eva.records import Sampling

# The chi-square quantile at 1 - 1e-6: a right sampler fails one seed in a million, and the seed is
# fixed. Wilson and Hilferty (1931): df * (1 - 2/(9 df) + z * sqrt(2/(9 df)))**3 with z = 4.7534.


def bound(df):
    return df * (1 - 2 / (9 * df) + 4.7534 * (2 / (9 * df)) ** 0.5) ** 3


def uniforms(rows, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(rows))


def statistic(tokens, probs):
    """Pearson's chi-square over the entries that are expected at least five times."""
    counts = np.bincount(tokens.numpy(), minlength=len(probs))
    assert counts[probs == 0].sum() == 0
    expected = probs * len(tokens)
    often = expected >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    return float(((observed - wanted) ** 2 / wanted).sum()), len(wanted) - 1


def slow_probs(logits, temperature, top_p):
    """The nucleus of the tempered softmax by the definition, in float64, one entry at a time."""
    exact = np.exp(logits.double().numpy() / temperature)
    probs, kept, mass = exact / exact.sum(), np.zeros(len(exact)), 0.0
    for i in np.argsort(-probs):
        if mass < top_p:
            kept[i] = probs[i]
            mass += probs[i]
    return kept / kept.sum()


@pytest.mark.parametrize("vocabulary", [3, 38, 300, 5000])
@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.8), (1.7, 0.95)]
)
def test_tokens_are_drawn_as_often_as_the_softmax_says(vocabulary, temperature, top_p):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    sampling = Sampling(temperature=temperature, top_p=top_p)
    rows = min(100_000, 30_000_000 // vocabulary)

    tokens, logprobs = pick(logits.expand(rows, -1), uniforms(rows), sampling)

    chi2, df = statistic(tokens, slow_probs(logits, temperature, top_p))
    assert chi2 < bound(df)
    assert torch.allclose(logprobs, logits.log_softmax(-1)[tokens], atol=1e-5)


def test_zero_temperature_takes_the_most_probable_token():
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = pick(logits, uniforms(50), Sampling(temperature=0.0))
    assert tokens.equal(logits.argmax(-1))
    assert torch.allclose(logprobs, logits.log_softmax(-1).amax(-1))


def test_each_uniform_falls_into_its_slice_of_the_unit_interval():
    # p = 0.5, 0, 0.25, 0.25: the cumulated sums are 0.5, 0.5, 0.75, 1.
    probs = torch.tensor([[0.5, 0.0, 0.25, 0.25]])
    numbers = torch.tensor([0.0, 0.25, 0.4999, 0.5, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    tokens = draw(probs.expand(7, -1), numbers[:, None])[:, 0]
    assert tokens.tolist() == [0, 0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("vocabulary", [5, 5000])
def test_a_token_without_mass_is_never_drawn(vocabulary):
    # The ends of the table are empty; the extreme uniforms would land there by rounding.
    probs = torch.zeros(1, vocabulary)
    probs[0, vocabulary // 2] = 0.3
    probs[0, vocabulary // 2 + 1] = 1e-7
    numbers = torch.tensor([[0.0], [0.5], [1 - 1e-16]], dtype=torch.float64)
    tokens = draw(probs.expand(3, -1), numbers)
    assert set(tokens.flatten().tolist()) <= {vocabulary // 2, vocabulary // 2 + 1}


def test_the_blocks_of_a_wide_vocabulary_draw_what_one_table_draws(monkeypatch):
    probs = torch.randn(200, 5000, generator=torch.Generator().manual_seed(2)).mul(3).softmax(-1)
    numbers = uniforms(200)[:, None]
    in_blocks = draw(probs, numbers)
    monkeypatch.setattr(module, "FLAT", 10_000)
    # A uniform within 1e-7 of a boundary may fall to either side of it.
    assert (draw(probs, numbers) == in_blocks).float().mean() > 0.98


def test_the_token_of_a_row_does_not_depend_on_the_rows_beside_it(monkeypatch):
    # Sharp rows end their nucleus within 64 tokens, flat ones need all 20,000.
    scale = torch.tensor([0.0, 1.0, 3.0, 8.0])[:, None]
    logits = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(3)) * scale
    numbers, sampling = uniforms(4), Sampling(temperature=1.0, top_p=0.9)

    together, _ = pick(logits, numbers, sampling)
    alone = [int(pick(logits[i : i + 1], numbers[i : i + 1], sampling)[0]) for i in range(4)]
    monkeypatch.setattr(module, "SLICE", 20_000)
    sliced, _ = pick(logits, numbers, sampling)

    assert together.tolist() == alone == sliced.tolist()
