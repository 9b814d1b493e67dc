"""What a checkpoint of the playground can do, measured with nothing but transformers.

These are the numbers of the model card of theta_0. eva's own sampler is not used, so they also
serve to check it.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from transformers import GPT2LMHeadModel

from eva.parts.rewards import PlaygroundReward
from eva.playground.policy import NEW_TOKENS
from eva.playground.verify import make_reward
from eva.records import Prompt, Response

Tokenizer: TypeAlias = Any
"""What `AutoTokenizer.from_pretrained` returns; its own types say less than its documentation."""


def measure(
    model: GPT2LMHeadModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    samples: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Mean graded reward and share of right answers, greedy and sampled at temperature 1.

    Args:
        model: A policy of the playground, as `AutoModelForCausalLM` loads it.
        tokenizer: Its tokenizer.
        prompts: What is asked.
        samples: Sampled responses of each prompt, beside the greedy one.
        seed: Names the samples.

    Returns:
        "greedy_reward", "greedy_accuracy", "reward" and "accuracy", each in [0, 1].
    """
    reward = make_reward(PlaygroundReward(kind="playground"))
    greedy_P_1 = reward(prompts, answers(model, tokenizer, prompts, samples=0, seed=seed))
    sampled_P_G = reward(prompts, answers(model, tokenizer, prompts, samples=samples, seed=seed))
    return {
        "greedy_reward": float(greedy_P_1.mean()),
        "greedy_accuracy": float((greedy_P_1 == 1.0).mean()),
        "reward": float(sampled_P_G.mean()),
        "accuracy": float((sampled_P_G == 1.0).mean()),
    }


def answers(
    model: GPT2LMHeadModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    seed: int,
) -> list[list[Response]]:
    """Responses of a model: `samples` for each prompt, or the greedy one if `samples` is 0."""
    inputs = tokenizer.apply_chat_template(
        [[message.model_dump() for message in prompt.messages] for prompt in prompts],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    group = max(1, samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokens_N_T = model.generate(  # type: ignore[misc]  # theirs: no model fits its protocol
            **inputs, do_sample=samples > 0, num_return_sequences=group, max_new_tokens=NEW_TOKENS
        )
    new_N_T = tokens_N_T[:, inputs["input_ids"].shape[1] :]
    ended_N = (new_N_T == tokenizer.eos_token_id).any(dim=1).tolist()
    texts = tokenizer.batch_decode(new_N_T, skip_special_tokens=True)
    flat = [
        Response(text=text, finish="stop" if ended else "length")
        for text, ended in zip(texts, ended_N, strict=True)
    ]
    return [flat[start : start + group] for start in range(0, len(flat), group)]
