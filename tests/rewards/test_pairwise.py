"""A classifier of two responses: each duel by itself, both orders averaged."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from eva.errors import RecipeError
from eva.learn.objectives import objective
from eva.parts.learners import Sppo
from eva.parts.rewards import PairwiseReward
from eva.records import Rollout
from eva.rewards.pairwise import Pairwise
from tests.rewards.models import (
    PROMPTS,
    RESPONSES,
    alive,
    bert_classifier,
    failed,
    group,
    llama_classifier,
)

TEXT = "{prompt} w1 {first} w2 {second}"


def pairwise(path, **choices) -> Pairwise:
    part = PairwiseReward(
        kind="pairwise", model=str(path), device="cpu", **{"text": TEXT, **choices}
    )
    return Pairwise(part)


def by_hand(path, prompt: str, texts: list[str]) -> list[float]:
    """The mean chance to beat the others, one duel at a time, without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)

    def p(first: str, second: str) -> float:
        ids = tokenizer(f"{prompt} w1 {first} w2 {second}", return_tensors="pt").input_ids
        with torch.no_grad():
            return float(torch.sigmoid(model(ids).logits[0, 0]))

    return [
        float(
            np.mean(
                [
                    (p(texts[i], texts[j]) + 1.0 - p(texts[j], texts[i])) / 2.0
                    for j in range(len(texts))
                    if j != i
                ]
            )
        )
        for i in range(len(texts))
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairwise")
    return {
        "bert": bert_classifier(folder / "bert"),
        "llama": llama_classifier(folder / "llama", pad_token_id=None),
    }


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_it_is_the_loop_over_duels_whatever_the_batches(folders, kind, batch_tokens):
    found = pairwise(folders[kind], batch_tokens=batch_tokens)(PROMPTS[::2], RESPONSES[::2])
    expected = [
        by_hand(folders[kind], PROMPTS[p].messages[0].content, [y.text for y in RESPONSES[p]])
        for p in (0, 2)
    ]
    assert float(np.ptp(expected)) > 0.01
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-5)


def test_the_order_of_a_group_changes_nothing(folders):
    reward = pairwise(folders["bert"])
    found = reward(PROMPTS, RESPONSES)
    turned = reward(PROMPTS, [group_[::-1] for group_ in RESPONSES])
    np.testing.assert_allclose(turned[:, ::-1], found, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(found.mean(axis=1), 0.5, rtol=0.0, atol=1e-12)
    assert found[2, 1] == found[2, 2]  # equal texts


def test_sppo_takes_its_rewards_as_the_win_probabilities_that_they_are(folders):
    rewards_P_G = pairwise(folders["bert"])(PROMPTS[:1], RESPONSES[:1])
    rollout = Rollout(
        prompt=PROMPTS[0],
        responses=tuple(RESPONSES[0]),
        rewards=tuple(rewards_P_G[0].tolist()),
        policy="theta",
        round=0,
    )
    (lesson,) = objective(Sppo(kind="sppo", labels="rewards"), 8).taught([rollout]).lessons
    assert lesson.signals == (rewards_P_G.max(), rewards_P_G.min())
    assert 0.0 < lesson.signals[1] < 0.5 < lesson.signals[0] < 1.0


def test_a_response_that_is_an_error_has_no_reward_and_beats_nobody(folders):
    reward = pairwise(folders["bert"])
    two = reward(PROMPTS[:1], [RESPONSES[0][:2]])
    three = reward(PROMPTS[:1], [[*RESPONSES[0][:2], failed()]])
    assert np.isnan(three[0, 2])
    np.testing.assert_allclose(three[:, :2], two, rtol=0.0, atol=1e-6)


def test_responses_that_are_too_long_together_are_missing(folders, caplog):
    # Its context is 64, and so are <bos>, 3 words of the prompt, the two marks and 58 words.
    texts = group("w5 " * 29, "w6 " * 29, "w7 " * 30)
    with caplog.at_level(logging.WARNING, "eva"):
        found = pairwise(folders["bert"])(PROMPTS[:1], [texts])
    assert np.isnan(found).tolist() == [[False, False, True]]
    assert "4 of 6 duels" in caplog.text


def test_a_placeholder_in_a_response_is_text(folders):
    texts = ["{second} w1", "w2 w3"]
    found = pairwise(folders["bert"])(PROMPTS[:1], [group(*texts)])
    expected = by_hand(folders["bert"], "w0 w1 w2", texts)
    np.testing.assert_allclose(found, [expected], rtol=0.0, atol=1e-6)
    expanded = by_hand(folders["bert"], "w0 w1 w2", ["w2 w3 w1", "w2 w3"])
    assert float(np.abs(found - [expanded]).max()) > 1e-4


def test_a_template_without_a_response_is_refused(folders):
    with pytest.raises(RecipeError, match=r"reward\.text .* lacks \{second\}"):
        pairwise(folders["bert"], text="{prompt} {first}")


def test_release_frees_the_model(folders):
    held = len(alive("BertModel"))
    reward = pairwise(folders["bert"])
    before = reward(PROMPTS, RESPONSES)
    loaded = alive("BertModel")
    assert len(loaded) == held + 1
    reward.release()
    assert len(loaded) == held
    assert np.array_equal(reward(PROMPTS, RESPONSES), before)
