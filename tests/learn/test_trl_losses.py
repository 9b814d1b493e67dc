"""Values of the losses against TRL's, where TRL is installed; it is no dependency of eva.

Its trainers get tiny models and token ids of ours, and are asked for the loss of one batch. Our
log-probabilities are made one response at a time, by copies of the models that TRL never sees.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva.formulas.advantages import group_advantages, loo_advantages
from eva.learn.losses import PairLogps, ipo, nll, orpo, simpo, sppo
from eva.learn.policy_gradient import TokenLogps, grpo, kl_k1, rloo
from tests.tiny import PAD, SHAPE, SPECIAL, tiny_llama

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="needs trl: pip install trl==1.16"
    ),
    pytest.mark.filterwarnings("ignore"),  # TRL's own, which are not ours to mend
]

Pair = tuple[list[int], list[int], list[int]]
"""Tokens of a prompt, of its chosen and of its rejected response."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def policy(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def reference(folder: Path) -> Any:
    """The policy with a little noise on every weight, always the same."""
    model = policy(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def random_pairs(prompt_tokens: int | None = None) -> list[Pair]:
    """Six pairs of many lengths, or with prompts of one length."""
    rng = np.random.default_rng(2)

    def tokens(length: int) -> list[int]:
        return rng.integers(len(SPECIAL), SHAPE["vocab_size"], size=length).tolist()

    lengths = [(1, 1, 5), (4, 3, 2), (2, 7, 7), (5, 2, 1), (3, 6, 4), (2, 4, 8)]
    return [(tokens(prompt_tokens or x), tokens(up), tokens(down)) for x, up, down in lengths]


@torch.no_grad()
def token_logps(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    """log p of each token of a response, shape [R]."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def pair_logps(folder: Path, pairs: Sequence[Pair]) -> PairLogps:
    ours, theirs = policy(folder), reference(folder)
    columns = [
        torch.stack([token_logps(model, pair[0], pair[which]).sum() for pair in pairs])
        for model in (ours, theirs)
        for which in (1, 2)
    ]
    lengths = [torch.tensor([len(pair[which]) for pair in pairs]) for which in (1, 2)]
    return PairLogps(*columns, *lengths)


def arguments(out: Path, batch: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }


def rows_of(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [
        {"prompt": "", "chosen": "", "rejected": ""}
        | {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for prompt, chosen, rejected in pairs
    ]


def dpo_trainer_loss(
    folder: Path, out: Path, pairs: Sequence[Pair], beta: float, loss_type: str
) -> float:
    """The mean loss of a batch by TRL's DPOTrainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """TRL would tokenise text again; it takes ids as well."""
            return dataset

    trainer = OnTokens(
        policy(folder),
        ref_model=reference(folder),
        args=DPOConfig(
            **arguments(out, len(pairs)), beta=beta, loss_type=loss_type, max_length=None
        ),
        train_dataset=Dataset.from_list(rows_of(pairs)),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    (batch,) = trainer.get_train_dataloader()
    return trainer.compute_loss(trainer.model, batch).item()


def test_ipo_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    pairs = random_pairs()
    theirs = dpo_trainer_loss(folder, tmp_path, pairs, 0.3, "ipo")
    assert ipo(pair_logps(folder, pairs), beta=0.3).mean().item() == pytest.approx(theirs, rel=1e-5)


def test_sppo_with_hard_labels_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    pairs = random_pairs()
    win_B = torch.ones(len(pairs))
    ours_B = sppo(pair_logps(folder, pairs), win_B, 1.0 - win_B, beta=0.1)
    theirs = dpo_trainer_loss(folder, tmp_path, pairs, 0.1, "sppo_hard")
    assert ours_B.mean().item() == pytest.approx(theirs, rel=1e-5)


def test_nll_of_a_single_pair_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    # Over several pairs TRL averages all tokens, and we each response first.
    for pair in random_pairs():
        theirs = dpo_trainer_loss(folder, tmp_path, [pair], 0.1, "sft")
        assert nll(pair_logps(folder, [pair])).item() == pytest.approx(theirs, rel=1e-5)


def experimental_trainer(folder: Path, out: Path, name: str, **options: Any) -> Any:
    """TRL's CPO or ORPO trainer; both tokenise text, so that their batches are made by hand."""
    from datasets import Dataset

    module = importlib.import_module(f"trl.experimental.{name.lower()}")
    config, trainer = (getattr(module, f"{name}{what}") for what in ("Config", "Trainer"))
    text = {"prompt": "w1", "chosen": "w2", "rejected": "w3"}
    return trainer(
        policy(folder),
        args=config(**arguments(out, 1), remove_unused_columns=False, **options),
        train_dataset=Dataset.from_list([text]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def text_batch(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """What TRL's collator makes of pairs: prompt and response in one row, labels on the latter."""
    batch = {}
    for which, name in ((1, "chosen"), (2, "rejected")):
        ids = [torch.tensor([*pair[0], *pair[which]]) for pair in pairs]
        labels = [torch.tensor([-100] * len(pair[0]) + pair[which]) for pair in pairs]
        ones = [torch.ones_like(row) for row in ids]
        batch[f"{name}_input_ids"] = pad_sequence(ids, batch_first=True, padding_value=PAD)
        batch[f"{name}_attention_mask"] = pad_sequence(ones, batch_first=True)
        batch[f"{name}_labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    return batch


def test_simpo_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    pairs = random_pairs()
    trainer = experimental_trainer(
        folder, tmp_path, "CPO", loss_type="simpo", cpo_alpha=0.0, beta=2.5, simpo_gamma=1.4
    )
    theirs, _ = trainer.get_batch_loss_metrics(trainer.model, text_batch(pairs))
    ours_B = simpo(pair_logps(folder, pairs), beta=2.5, gamma=1.4)
    assert ours_B.mean().item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_odds_ratio_of_orpo_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    # Theirs is the term that is subtracted: beta log sigmoid.
    trainer = experimental_trainer(folder, tmp_path, "ORPO", beta=0.2)
    logps = pair_logps(folder, random_pairs())
    averages = logps.chosen / logps.chosen_tokens, logps.rejected / logps.rejected_tokens
    theirs_B = trainer.odds_ratio_loss(*averages)[0]
    torch.testing.assert_close(orpo(logps, beta=0.2) - nll(logps), -theirs_B, rtol=1e-5, atol=1e-6)


def test_orpo_is_that_of_trl_where_its_likelihood_counts_the_response_alone(
    folder: Path, tmp_path: Path
) -> None:
    # Theirs counts prompt and response but for the first token, over all pairs of a batch at once:
    # with prompts of one token, and a single pair, it is the response.
    trainer = experimental_trainer(folder, tmp_path, "ORPO", beta=0.2)
    for pair in random_pairs(prompt_tokens=1):
        theirs, _ = trainer.get_batch_loss_metrics(trainer.model, text_batch([pair]))
        ours = orpo(pair_logps(folder, [pair]), beta=0.2)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


REWARDS = [
    [1.0, 2.5, -0.5, 4.0],
    [3.0, 3.0, 3.0, 3.0],  # all equal
    [1.0, 0.0, 0.0, 1.0],  # binary
    [0.5, None, 2.0, 1.0],  # one is missing
    [None, None, 2.0, None],  # one alone
    [1e6, -1e6, 0.0, 1e6],
]
FINITE = np.array(REWARDS, dtype=np.float64)  # None becomes NaN
LENGTHS = (6, 1, 3, 5, 2, 4)
"""Of responses in turn: cut by hand, so that there is padding."""


def group_trainer(folder: Path, out: Path, name: str, **options: Any) -> Any:
    """TRL's RLOO or GRPO trainer in evaluation mode, which takes a batch as it is."""
    import trl
    from datasets import Dataset

    def reward(completions: list[str], **_: Any) -> list[float | None]:
        assert len(completions) == len(REWARDS) * 4
        return [r for group in REWARDS for r in group]

    config, trainer = (getattr(trl, f"{name}{what}") for what in ("Config", "Trainer"))
    sampling = {"num_generations": 4, "max_completion_length": max(LENGTHS)}
    made = trainer(
        model=policy(folder),
        reward_funcs=reward,
        args=config(**arguments(out, 4), **sampling, **options),
        train_dataset=Dataset.from_list([{"prompt": "w1"}]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    if made.ref_model is not None:
        made.ref_model.load_state_dict(reference(folder).state_dict())
    made.model.eval()
    return made


def sampled(trainer: Any) -> dict[str, Any]:
    """TRL's batch of four responses to each of six prompts of one to six words."""
    prompts = [" ".join(f"w{3 * i + j}" for j in range(i + 1)) for i in range(len(REWARDS))]
    torch.manual_seed(5)
    return trainer._prepare_inputs([{"prompt": prompt} for prompt in prompts for _ in range(4)])


def batch_logps(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """log p of each token of TRL's batch, shape [B, R], 0 at padding."""
    columns = (
        inputs[f"{of}_{what}"] for of in ("prompt", "completion") for what in ("ids", "mask")
    )
    rows = [
        token_logps(model, x[x_mask == 1].tolist(), y[y_mask == 1].tolist())
        for x, x_mask, y, y_mask in zip(*columns, strict=True)
    ]
    wide = [torch.nn.functional.pad(row, (0, max(LENGTHS))) for row in rows]
    return pad_sequence(wide, batch_first=True)[:, : inputs["completion_ids"].shape[1]]


def cut(inputs: dict[str, Any]) -> None:
    """Shortens responses by hand, in place."""
    for i, mask in enumerate(inputs["completion_mask"]):
        mask[LENGTHS[i % len(LENGTHS)] :] = 0


@pytest.mark.parametrize("kl", [0.0, 0.07])
def test_rloo_advantages_are_those_of_trl(folder: Path, tmp_path: Path, kl: float) -> None:
    # Theirs are 0 where a reward is missing or alone; we leave such a response out.
    inputs = sampled(group_trainer(folder, tmp_path, "RLOO", beta=kl))
    rewards_P_G = FINITE.copy()
    if kl:
        ours, theirs = (batch_logps(make(folder), inputs) for make in (policy, reference))
        kl_B = kl_k1(ours, theirs, inputs["completion_mask"])
        assert kl_B.abs().max() > 0.1  # the reference is another one
        rewards_P_G -= kl * kl_B.double().view(-1, 4).numpy()
    np.testing.assert_allclose(
        np.nan_to_num(loo_advantages(rewards_P_G)),
        inputs["advantages"].view(-1, 4),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_grpo_advantages_are_those_of_trl_but_for_what_it_adds_to_the_deviation(
    folder: Path, tmp_path: Path, scaled: bool
) -> None:
    options = {"scale_rewards": "group" if scaled else "none"}
    theirs_B = sampled(group_trainer(folder, tmp_path, "GRPO", beta=0.0, **options))["advantages"]
    expected_P_G = group_advantages(FINITE, scaled=scaled)
    if scaled:  # they divide by s + 1e-4, with s the sample's standard deviation
        s_P = np.nanstd(FINITE, axis=1, ddof=1)
        expected_P_G *= (s_P / (s_P + 1e-4))[:, None]
    np.testing.assert_allclose(
        np.nan_to_num(expected_P_G), theirs_B.view(-1, 4), rtol=1e-5, atol=1e-5
    )


def test_clipped_rloo_loss_is_that_of_trl(folder: Path, tmp_path: Path) -> None:
    # given ratios of responses from e^-0.6 to e^0.6, and advantages of both signs
    trainer = group_trainer(folder, tmp_path, "RLOO", beta=0.0, epsilon=0.2)
    inputs = sampled(trainer)
    cut(inputs)
    new_B_R, mask_B_R = batch_logps(policy(folder), inputs), inputs["completion_mask"]
    old_B_R = new_B_R.clone()
    old_B_R[:, 0] += torch.linspace(-0.6, 0.6, len(new_B_R))
    advantages_B = signs(len(new_B_R)) * torch.linspace(2.0, 1.0, len(new_B_R))

    # when asked for the loss
    given = {"old_logps": (old_B_R * mask_B_R).sum(1), "advantages": advantages_B}
    theirs = trainer._compute_loss(trainer.model, inputs | given)
    logps = TokenLogps(new_B_R, old_B_R, None, mask_B_R)
    ours = rloo(logps, advantages_B, epsilon=0.2).mean()

    # then it is theirs, and not what it would be without the clip
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert abs(ours - rloo(logps, advantages_B, epsilon=None).mean()) > 1e-2


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_clipped_grpo_loss_is_that_of_trl(folder: Path, tmp_path: Path, kl: float) -> None:
    # given ratios of tokens around 1, and advantages of both signs; without the ratio by which they
    # multiply the penalty by default, and the paper does not
    options = {"epsilon": 0.2, "epsilon_high": 0.3, "use_bias_correction_kl": False}
    trainer = group_trainer(folder, tmp_path, "GRPO", beta=kl, loss_type="grpo", **options)
    inputs = sampled(trainer)
    cut(inputs)
    new_B_R, ref_B_R = (batch_logps(make(folder), inputs) for make in (policy, reference))
    mask_B_R = inputs["completion_mask"]
    noise_B_R = 0.3 * torch.randn(new_B_R.shape, generator=torch.Generator().manual_seed(6))
    advantages_B = signs(len(new_B_R)) * torch.linspace(2.0, 1.0, len(new_B_R))

    # when asked for the loss
    given = {"old_per_token_logps": new_B_R + noise_B_R, "advantages": advantages_B}
    theirs = trainer._compute_loss(trainer.model, inputs | given)
    logps = TokenLogps(new_B_R, new_B_R + noise_B_R, ref_B_R, mask_B_R)

    def mean(epsilon: float | None, epsilon_high: float | None, kl: float) -> float:
        """Of each response by its own length, then of responses."""
        loss_B_R = grpo(logps, advantages_B, epsilon=epsilon, epsilon_high=epsilon_high, kl=kl)
        return (loss_B_R.sum(1) / mask_B_R.sum(1)).mean().item()

    # then it is theirs, and not what it would be without the clip, its upper bound or the penalty
    ours = mean(0.2, 0.3, kl)
    assert ours == pytest.approx(theirs.item(), rel=1e-5)
    others = [mean(None, None, kl), mean(0.2, None, kl), mean(0.2, 0.3, kl + 0.1)]
    assert all(abs(ours - other) > 1e-3 for other in others)


def signs(size: int) -> Tensor:
    """1, -1, 1, -1, ..."""
    return 1.0 - 2.0 * (torch.arange(size) % 2)
