"""Low-rank adapters: what is trained, what is written, and that it is PEFT's own arithmetic."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from eva.backends.hf import open_policy
from eva.backends.load import load_model
from eva.checkpoints import fingerprint
from eva.errors import BackEndError
from eva.learn.batches import prompt_tokens, response_tokens
from eva.learn.schedule import learning_rate, planned_steps
from eva.learn.scorer import Scorer
from eva.learn.weights import Weights, opened, saved
from eva.pairs import best_worst_pairs
from eva.parts.learners import Dpo, Lora
from eva.parts.policies import HfPolicy
from eva.records import Checkpoint, Message, Prompt, Rollout, Sampling
from tests.learn.runs import SEED, Learn, MakeConfig, MakeStart, file_bytes

pytestmark = pytest.mark.filterwarnings(
    # PEFT 0.21 asks transformers 5.23 by a name that it renames; drop this once PEFT does not.
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)

KINDS = ["llama", "qwen3", "gemma2", "gpt2"]
IDS = torch.tensor([[1, 5, 8, 9, 6]])
SMALL = Lora(rank=4, alpha=8.0)
MERGED = Lora(rank=4, alpha=8.0, merge=True)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def moved(weights: Weights) -> Weights:
    """As after some training: fresh adapters change nothing, for half of their matrices is 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in weights.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return weights


def written(weights: Weights, folder: Path) -> str:
    saved(weights, Accelerator(cpu=True), Scorer(weights.model, None), folder)
    return str(folder)


def full(uri: str) -> Any:
    return load_model(uri, None, torch.float32)


# ---------------------------------------------------------------- a fresh adapter


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_only_it_trains(
    make_start: MakeStart, kind: str
) -> None:
    start = make_start(kind).uri
    model = opened(start, None, SMALL).model
    assert torch.equal(logits(model), logits(full(start)))
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    # The output head gets none: it is the only linear layer outside the blocks.
    assert not any("lm_head" in name for name in trained)


def test_the_first_weights_of_an_adapter_come_from_a_named_seed(make_start: MakeStart) -> None:
    start = make_start().uri
    state = torch.random.get_rng_state()
    one, same, other = (opened(start, None, SMALL, seed=s).model for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(one.get_parameter(name), same.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))


def test_a_name_that_no_linear_layer_has_is_refused(make_start: MakeStart) -> None:
    with pytest.raises(BackEndError, match=r'names "qproj", expected .*: down_proj, .*, q_proj'):
        opened(make_start().uri, None, Lora(targets=("v_proj", "qproj")))


def test_a_head_that_shares_the_embeddings_is_refused(make_start: MakeStart) -> None:
    with pytest.raises(BackEndError, match=r'names "lm_head", expected .* share no weights'):
        opened(make_start("gpt2").uri, None, Lora(targets=("lm_head",)))


def test_named_targets_alone_get_adapters(make_start: MakeStart) -> None:
    model = opened(make_start().uri, None, Lora(targets=("q_proj", "lm_head"))).model
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    places = [f"model.layers.{k}.self_attn.q_proj" for k in range(2)] + ["lm_head"]
    assert trained == {f"{place}.lora_{side}.default.weight" for place in places for side in "AB"}


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_and_the_merged_model_compute_what_was_trained(
    make_start: MakeStart, tmp_path: Path, kind: str
) -> None:
    start = make_start(kind).uri
    weights = moved(opened(start, None, MERGED))
    expected, before = logits(weights.model), file_bytes(Path(start))
    assert float((expected - logits(full(start))).abs().max()) > 0.1
    whole = written(weights, tmp_path / "checkpoint")
    adapter = str(tmp_path / "adapter")

    assert torch.equal(logits(weights.model), expected)  # still as it was
    assert file_bytes(Path(start)) == before
    torch.testing.assert_close(logits(full(whole)), expected, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(logits(full(adapter)), expected, rtol=0.0, atol=1e-5)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), adapter)
    assert torch.equal(logits(theirs), expected)
    merged: Any = theirs.merge_and_unload()
    ours = full(whole).state_dict()
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(ours[name], weight, rtol=0.0, atol=1e-6)
    names = {"adapter_config.json", "adapter_model.safetensors"}
    assert set(file_bytes(tmp_path / "adapter")) == names
    assert {"config.json", "model.safetensors"} <= set(file_bytes(Path(whole)))
    assert not names & set(file_bytes(Path(whole)))


def test_an_adapter_goes_on_as_it_was(make_start: MakeStart, tmp_path: Path) -> None:
    weights = moved(opened(make_start().uri, None, SMALL))
    folder = written(weights, tmp_path / "checkpoint")
    again = opened(folder, None, SMALL)
    assert torch.equal(logits(again.model), logits(weights.model))
    trained = {name for name, weight in again.model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    # Written again it has the same bytes: base, scale and weights are the same.
    assert fingerprint(Path(written(again, tmp_path / "again"))) == fingerprint(Path(folder))


def test_an_adapter_without_lora_in_the_recipe_is_merged_and_trained_whole(
    make_start: MakeStart, tmp_path: Path
) -> None:
    weights = moved(opened(make_start().uri, None, SMALL))
    model = opened(written(weights, tmp_path / "checkpoint")).model
    assert all(weight.requires_grad for weight in model.parameters())
    torch.testing.assert_close(logits(model), logits(weights.model), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        (Lora(rank=8, alpha=8.0), r"r 4 not 8"),
        (Lora(rank=4, alpha=9.0), r"lora_alpha 8\.0 not 9\.0"),
        (Lora(rank=4, alpha=8.0, targets=("q_proj",)), r"learner\.lora\.targets .* tensors"),
    ],
)
def test_an_adapter_that_the_recipe_does_not_describe_is_refused(
    make_start: MakeStart, tmp_path: Path, lora: Lora, told: str
) -> None:
    folder = written(opened(make_start().uri, None, SMALL), tmp_path / "checkpoint")
    with pytest.raises(BackEndError, match=told):
        opened(folder, None, lora)


def test_the_identity_of_an_adapter_is_also_that_of_its_base_and_scale(
    make_start: MakeStart, tmp_path: Path
) -> None:
    starts = [make_start("llama").uri, make_start("qwen3").uri]
    loras = [SMALL, Lora(rank=4, alpha=9.0)]
    weights = [opened(starts[0], None, loras[0]), opened(starts[0], None, loras[1])]
    with torch.no_grad():
        full_start = full(starts[0])
        next(full_start.parameters()).add_(1.0)
    full_start.save_pretrained(starts[0] + "-moved")
    weights[0].tokenizer.save_pretrained(starts[0] + "-moved")
    weights.append(opened(starts[0] + "-moved", None, loras[0]))
    folders = [Path(written(w, tmp_path / f"checkpoint-{k}")) for k, w in enumerate(weights)]
    tensors = [safetensors.torch.load_file(f / "adapter_model.safetensors") for f in folders]
    for name, tensor in tensors[0].items():
        assert all(torch.equal(tensor, others[name]) for others in tensors)
    assert len({fingerprint(folder) for folder in folders}) == 3


def test_the_base_is_found_from_any_directory(
    make_start: MakeStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Path(make_start().uri)
    monkeypatch.chdir(start.parent)
    folder = written(moved(opened(start.name, None, SMALL)), tmp_path / "checkpoint")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert full(folder).num_parameters() == full(str(start)).num_parameters()


# ---------------------------------------------------------------- the update


def peft_update(start: Checkpoint, lessons: Sequence[Rollout], config: Dpo) -> Any:
    """PEFT's own model after the same steps by plain torch, one unpadded sequence at a time."""
    weights = opened(start.uri)
    assert config.lora
    described = LoraConfig(
        r=config.lora.rank,
        lora_alpha=int(config.lora.alpha),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(start.uri), described)
    first = opened(start.uri, None, config.lora, seed=SEED).model
    with torch.no_grad():
        for name, weight in first.named_parameters():
            if weight.requires_grad:
                model.get_parameter(f"base_model.model.{name}").copy_(weight)
    pairs = best_worst_pairs(lessons).pairs
    prompts = prompt_tokens([pair.prompt for pair in pairs], weights.tokenizer)
    answers = [
        [response_tokens(y, weights.tokenizer) for y in (p.chosen, p.rejected)] for p in pairs
    ]

    def logp(i: int, side: int) -> torch.Tensor:
        prompt, answer = prompts[i], answers[i][side]
        rows = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        places = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return rows[places, torch.tensor(answer)].sum()

    with torch.no_grad():
        reference = [[logp(i, side) for side in (0, 1)] for i in range(len(pairs))]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=config.betas, weight_decay=0.0)
    plan = planned_steps([1] * len(pairs), config, SEED)
    for k, step in enumerate(plan):
        for i in step:
            margin = logp(i, 0) - reference[i][0] - logp(i, 1) + reference[i][1]
            (-torch.nn.functional.logsigmoid(config.beta * margin) / len(step)).backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip or np.inf)
        optimizer.param_groups[0]["lr"] = learning_rate(k, len(plan), config)
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_two_steps_are_those_of_peft_and_plain_torch(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn, lessons: list[Rollout]
) -> None:
    start, config = make_start(), make_config(lora=SMALL, steps=2)
    checkpoint, _ = learn(start, config)
    theirs = peft_update(start, lessons, config)
    tensors = safetensors.torch.load_file(Path(checkpoint.uri) / "adapter_model.safetensors")
    first = opened(start.uri, None, SMALL, seed=SEED).model
    assert len(tensors) == sum(weight.requires_grad for weight in theirs.parameters())
    moves = []
    for name, tensor in tensors.items():
        inside = name.removesuffix("weight") + "default.weight"
        torch.testing.assert_close(tensor, theirs.get_parameter(inside), rtol=0.0, atol=1e-6)
        begun = first.get_parameter(inside.removeprefix("base_model.model."))
        moves.append(float((tensor - begun).detach().abs().max()))
    assert min(moves) > 1e-4  # A hundred times the tolerance, in every matrix.


@pytest.mark.parametrize("merge", [False, True])
def test_rounds_go_on_from_each_other(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn, merge: bool
) -> None:
    start = make_start()
    config = make_config(lora=MERGED if merge else SMALL)
    one, log = learn(start, config)
    two, more = learn(one, config)
    assert (Path(one.uri) / "config.json").exists() == merge
    assert (Path(one.uri).parent / "adapter").exists() == merge
    # The reference of an update is where it starts, so its first loss is that of no margin at all.
    assert log[0]["loss"] == more[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert len({start.id, one.id, two.id}) == 3
    if not merge:
        named = json.loads((Path(two.uri) / "adapter_config.json").read_bytes())
        assert named["base_model_name_or_path"] == start.uri
        name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
        matrices = [
            safetensors.torch.load_file(Path(c.uri) / "adapter_model.safetensors")[name]
            for c in (one, two)
        ]
        # The second round moves the first's adapter by a few small steps; a fresh one is far off.
        assert 0.0 < float((matrices[0] - matrices[1]).abs().max()) < 0.01


def test_an_update_is_made_again_to_the_byte(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start, config = make_start(), make_config(lora=Lora(rank=4, dropout=0.2, merge=True))
    one, log = learn(start, config)
    two, more = learn(start, config)
    assert log == more
    folders = [Path(checkpoint.uri).parent for checkpoint in (one, two)]
    for name in ("checkpoint", "adapter"):
        assert file_bytes(folders[0] / name) == file_bytes(folders[1] / name)


def test_what_is_frozen_stays_and_the_merged_model_moves(
    make_start: MakeStart, make_config: MakeConfig, learn: Learn
) -> None:
    start = make_start()
    checkpoint, _ = learn(start, make_config(lora=Lora(rank=4, targets=("q_proj",), merge=True)))
    before, after = full(start.uri).state_dict(), full(checkpoint.uri).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{k}.self_attn.q_proj.weight" for k in range(2)}


def test_a_policy_answers_by_its_adapter(make_start: MakeStart, tmp_path: Path) -> None:
    start = make_start().uri
    weights = moved(opened(start, None, MERGED))
    whole, adapter = written(weights, tmp_path / "checkpoint"), str(tmp_path / "adapter")
    prompt = Prompt(messages=(Message(role="user", content="w1 w2"),))
    greedy = Sampling(temperature=0.0, max_tokens=12)

    def answer(uri: str) -> str:
        config = HfPolicy(model=start, device="cpu")
        with open_policy(Checkpoint(uri=uri, id="x"), config) as policy:
            return policy([prompt], 1, sampling=greedy, seed=0)[0][0].text

    assert answer(adapter) == answer(whole) != answer(start)
