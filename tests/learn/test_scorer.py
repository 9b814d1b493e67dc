"""Log-probabilities of responses, against the model's own logits one response at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from eva.learn.batches import TokenGroup, padded_batch
from eva.learn.scorer import Scorer, on_device, sharing_window
from tests.learn.runs import MakeStart
from tests.tiny import SHAPE, SPECIAL

CPU = torch.device("cpu")


def groups() -> list[TokenGroup]:
    """Four prompts with one to three responses; one is empty, one prompt has a single token."""
    rng = np.random.default_rng(6)

    def tokens(length: int) -> list[int]:
        return rng.integers(len(SPECIAL), SHAPE["vocab_size"], size=length).tolist()

    sizes = [(5, [3, 7]), (1, [2, 4]), (9, [1, 6, 2]), (3, [0, 5])]
    return [
        TokenGroup(tokens(p), tuple(map(tokens, lengths)), (0.0,) * len(lengths))
        for p, lengths in sizes
    ]


def slow(model: Any, given: list[TokenGroup]) -> torch.Tensor:
    """log pi of every response token, from unpadded sequences and all logits."""
    found = []
    for group in given:
        for response in group.responses:
            row = torch.tensor([[*group.prompt, *response]])
            logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0]
            logprobs = logits.log_softmax(-1)
            at = len(group.prompt) - 1
            found += [logprobs[at + t, token] for t, token in enumerate(response)]
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("shared", [False, True])
def test_values_and_gradients_equal_those_of_single_sequences(
    make_start: MakeStart, kind: str, shared: bool
) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_start(kind).uri)
    if (
        kind != "gemma2"
    ):  # eager attention makes NaN of a padding row in float64, for min + x = -inf
        model = model.double()
    weights = list(model.parameters())
    expected = slow(model, groups())
    upstream = torch.randn(len(expected), generator=torch.Generator().manual_seed(1))
    upstream = upstream.to(expected.dtype)
    slopes = torch.autograd.grad(expected, weights, upstream)

    scorer = Scorer(model, None)
    found = scorer(on_device(padded_batch(groups(), shared=shared), CPU))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    for ours, slope in zip(torch.autograd.grad(found, weights, upstream), slopes, strict=True):
        torch.testing.assert_close(ours, slope, rtol=1e-4, atol=1e-5)


def test_a_model_that_scales_its_logits_is_asked_for_them() -> None:
    shape = {name: SHAPE[name] for name in ("vocab_size", "hidden_size")}
    config = CohereConfig(
        **shape, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, logit_scale=0.3
    )
    model = CohereForCausalLM(config).double().eval()
    scorer = Scorer(model, None)
    for shared in (False, True):
        found = scorer(on_device(padded_batch(groups(), shared=shared), CPU))
        torch.testing.assert_close(found, slow(model, groups()), rtol=0, atol=1e-6)


def test_the_head_alone_is_used_where_it_agrees(
    make_start: MakeStart, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All logits are never made: the whole model is not called once it is known to come apart.
    model = AutoModelForCausalLM.from_pretrained(make_start("gemma2").uri)
    scorer = Scorer(model, None)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the whole model was called")

    monkeypatch.setattr(type(model), "forward", refused)
    assert len(scorer(on_device(padded_batch(groups(), shared=False), CPU))) == 30


def test_prompts_are_shared_as_far_as_the_memory_of_the_model_reaches(
    make_start: MakeStart, tmp_path: Path
) -> None:
    def window(kind: str) -> float:
        return sharing_window(AutoModelForCausalLM.from_pretrained(make_start(kind).uri))

    assert window("llama") == window("gpt2") == float("inf")
    gemma = AutoModelForCausalLM.from_pretrained(make_start("gemma2").uri)
    assert sharing_window(gemma) == gemma.config.sliding_window
    mamba = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1))
    assert sharing_window(mamba) == 0.0


def test_bfloat16_products_leave_the_weights_in_float32(make_start: MakeStart) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_start().uri)
    batch = on_device(padded_batch(groups(), shared=False), CPU)
    rough = Scorer(model, torch.bfloat16)(batch)
    exact = Scorer(model, None)(batch)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
