"""What devices hold, and the nearest setting that fits."""

import pytest

from eva.costs.cards import GIB, Card, card
from eva.costs.fitting import nearest, too_large
from eva.costs.launch import Launch, launched
from eva.costs.memory import Setting, loads
from eva.costs.shapes import KNOWN
from eva.errors import RecipeError
from tests.costs.plans import (
    API,
    EVOLVE,
    LLAMA,
    PROMPTS,
    RLOO,
    SCORER,
    SMALL,
    WHOLE,
    models,
    recipe,
)

P = KNOWN[SMALL].parameters
JUDGE = {"kind": "judge", "by": {"kind": "hf", "model": SMALL, "rows": 8}}
ROWS = {"kind": "hf", "model": SMALL}
STREAM = {"kind": "stream", "evolve": {"kind": "toy"}}
SERVE = ["vllm", "serve", "{model}", "--gpu-memory-utilization", "0.5", "--max-model-len", "1000"]


def setting(gpu="H100", gpus=1, launch=None, response=200):
    return Setting(card(gpu) if gpu else None, gpus, launch or Launch(), 100.0, response)


def held(one, where=None):
    """What each device holds while the policy is sampled."""
    found = loads(one, models(one), where or setting())
    return {load.device: load for load in found if load.phase != "learn"}


def phases(one, where=None):
    return {load.phase: load for load in loads(one, models(one), where or setting())}


def test_a_round_samples_and_then_learns():
    found = phases(recipe())
    sample, learn = found["sample and reward"], found["learn"]
    assert sample.parts["policy: weights"] == 2 * P
    # 64 rows of 300 tokens; 2 x 28 layers x 8 heads x 128 numbers x 2 bytes.
    assert sample.parts["policy: keys and values of 64 rows"] == 64 * 300 * 114_688
    # The reward model has no output head, and one output.
    assert sample.parts["reward: weights"] == 2 * KNOWN[SCORER["model"]].parameters
    assert learn.parts["weights, float32"] == learn.parts["gradients, float32"] == 4 * P
    assert learn.parts["moments of adamw"] == 8 * P
    assert learn.fits is True


def test_a_pass_holds_a_pair_at_least_and_all_pairs_at_most():
    few = phases(recipe(learner={"kind": "dpo", "batch": 2}))["learn"]
    assert "activations of 1200 tokens" in few.parts  # 2 pairs of 2 x 300
    small = phases(recipe(learner={"kind": "dpo", "micro_tokens": 1}))["learn"]
    assert "activations of 600 tokens" in small.parts
    tokens = phases(recipe(learner={"kind": "dpo", "batch_tokens": 9000}))["learn"]
    assert "activations of 16384 tokens" in tokens.parts


def test_checkpointing_keeps_the_input_of_each_layer_alone():
    plain = phases(recipe())["learn"].parts
    saving = phases(recipe(learner={"kind": "dpo", "gradient_checkpointing": True}))["learn"].parts
    name = "activations of 16384 tokens"
    assert saving[name] < plain[name] / 10
    assert plain["bfloat16 copies of the weights"] == 2 * P
    assert "bfloat16 copies of the weights" not in saving


def test_adapters_have_the_gradients_and_the_frozen_weights_none():
    lora = phases(recipe(learner={"kind": "dpo", "lora": {"rank": 8}}))["learn"].parts
    adapter = KNOWN[SMALL].adapter(8)
    assert lora["weights, float32"] == 4 * (P + adapter)
    assert lora["moments of adamw"] == 8 * adapter
    assert "gradient of the output head" not in lora


def test_rmsprop_has_one_moment_and_makes_its_roots_in_a_step():
    tiny = {"kind": "sppo", "micro_tokens": 1, "gradient_checkpointing": True, "batch": 1}
    one = recipe(learner=tiny, policy={"kind": "hf", "model": LLAMA, "rows": 4})
    parts = phases(one)["learn"].parts
    weights = KNOWN[LLAMA].parameters
    assert parts["moments of rmsprop"] == 4 * weights
    assert parts["roots of the moments in a step"] == 4 * weights
    lora = phases(recipe(learner={"kind": "sppo", "lora": {"rank": 8}}))["learn"].parts
    assert "roots of the moments in a step" not in lora


def test_processes_hold_all_or_a_shard_of_the_weights():
    whole = phases(recipe(), setting(launch=Launch(4)))["learn"]
    assert whole.device == "each of 4 processes"
    assert whole.parts["gradients being exchanged"] == 4 * P
    shards = phases(recipe(), setting(launch=Launch(4, is_sharded=True)))["learn"].parts
    assert shards["weights, float32"] == P
    assert shards["layers and tables, gathered"] == 8 * (
        2 * KNOWN[SMALL].layer + KNOWN[SMALL].table
    )


def test_a_reward_may_lie_on_another_gpu_which_must_exist():
    one = recipe(reward={**SCORER, "device": "cuda:1"})
    assert "reward: weights" in held(one, setting(gpus=2))["GPU 1"].parts
    alone = [load for device, load in held(one).items() if device.startswith("GPU 1")]
    assert [load.fits for load in alone] == [False]


def test_on_a_cpu_numbers_are_float32_and_there_is_no_verdict():
    policy = {"kind": "hf", "model": SMALL, "device": "cpu"}
    found = phases(recipe(policy=policy, reward={**SCORER, "device": "cpu"}))
    sample = found["sample and reward"]
    assert sample.device == "main memory"
    assert sample.parts["policy: weights"] == 4 * P
    assert sample.fits is None
    assert "bfloat16 copies of the weights" not in found["learn"].parts


def test_all_models_of_this_process_are_held_side_by_side():
    terms = [{"reward": SCORER}, {"reward": {"kind": "length", "of": JUDGE, "penalty": 1.0}}]
    evolve = {**EVOLVE, "by": {"kind": "hf", "model": SMALL, "rows": 8}}
    one = recipe(
        reward={"kind": "sum", "terms": terms},
        creator={
            "evolve": evolve,
            "gates": {"answerable": {"by": {"kind": "vllm", "model": SMALL}}},
        },
        evaluate={"sets": {"a": PROMPTS}, "reward": SCORER, "monitor": {"reward": SCORER}},
    )
    names = {name.partition(":")[0] for name in held(one)["GPU 0"].parts}
    assert names == {
        "policy", "reward 1", "reward 2", "evolver", "answerable", "held-out reward", "monitor",
    }  # fmt: skip


def test_vllm_takes_its_share_and_must_fit_into_it():
    one = recipe(policy={"kind": "vllm", "model": LLAMA, "memory": 0.5})
    found = held(one)
    assert found["GPU 0"].parts["policy: vLLM's share"] == 40 * GIB
    inside = found["vLLM's share of GPU 0"]
    assert inside.room == 40 * GIB
    assert inside.parts["policy: weights"] == 2 * KNOWN[LLAMA].parameters
    assert "policy: vLLM's share" not in held(one, setting(gpu=None))["GPU 0"].parts
    unknown = held(recipe(policy={"kind": "vllm", "model": "org/x"}))
    assert unknown["GPU 0"].unknown == ("org/x",)


def test_servers_that_eva_starts_share_the_first_gpu():
    policy = {"kind": "http", "model": LLAMA, "serve": {"command": SERVE, "count": 8}}
    found = held(recipe(policy=policy), setting(gpus=8))
    assert found["GPU 0"].parts["policy: vLLM's share"] == 40 * GIB
    row = found["vLLM's share of GPU 0"].parts["policy: one row's keys and values"]
    assert row == 1000 * KNOWN[LLAMA].cache(2.0)
    own = {**policy, "serve": {"command": ["serve-it"]}}
    assert set(held(recipe(policy=own))["GPU 0"].parts) == {
        "reward: weights", "reward: forward pass",
    }  # fmt: skip
    judge = {"kind": "judge", "by": policy}
    assert "reward: vLLM's share" in held(recipe(reward=judge))["GPU 0"].parts
    judge = {"kind": "judge", "by": API}
    assert held(recipe(policy=API, reward=judge)) == {}


def test_what_is_not_known_is_named_and_not_counted():
    one = recipe(policy={"kind": "hf", "model": "org/x"}, reward={**SCORER, "model": "org/y"})
    sample = phases(one)["sample and reward"]
    assert sample.unknown == ("org/x", "org/y")
    assert sample.fits is None
    assert phases(one)["learn"].unknown == ("org/x",)
    assert phases(recipe(reward={"kind": "pairwise", "model": "org/z"}))[
        "sample and reward"
    ].unknown


def test_an_online_learner_holds_everything_at_once():
    one = recipe(learner={**RLOO, "kl": 0.1}, sampling=WHOLE, creator=STREAM)
    [load] = loads(one, models(one), setting())
    assert load.parts["reference, float32"] == 4 * P
    # Keys in float32, values in bfloat16: 3 bytes on average.
    assert load.parts["policy: keys and values of 64 rows"] == 64 * 300 * 114_688 * 1.5
    assert "reward: weights" in load.parts


def test_online_the_greater_of_sampling_and_learning_counts():
    small = {**RLOO, "batch": 1, "gradient_checkpointing": True}
    many = {"kind": "hf", "model": SMALL, "rows": 4096}
    one = recipe(learner=small, policy=many, sampling=WHOLE, creator=STREAM)
    [load] = loads(one, models(one), setting())
    assert load.parts["policy: bfloat16 copies while it samples"] == 2 * P
    wide = {"kind": "hf", "model": SMALL, "rows": 4096, "device": "cpu"}
    lora = {**small, "dtype": "float32", "lora": {"rank": 4}}
    one = recipe(learner=lora, policy=wide, sampling=WHOLE, creator=STREAM)
    loaded = held(one)["main memory"]
    assert "policy: bfloat16 copies while it samples" not in loaded.parts
    unknown = recipe(
        learner={"kind": "online_dpo"}, policy={"kind": "hf", "model": "org/x"}, creator=STREAM
    )
    assert held(unknown)["GPU 0"].unknown == ("org/x",)


def test_trl_holds_a_reference_beside_and_a_strange_learner_is_not_known():
    parts = phases(recipe(learner={"kind": "trl"}))["learn"].parts
    assert sum(parts.values()) == 20 * P
    assert "learn" not in phases(recipe(learner={"kind": "command", "run": ["x"]}))


def test_a_toy_holds_nothing():
    toy = recipe(policy={"kind": "toy"}, learner={"kind": "toy"}, reward={"kind": "toy"})
    assert loads(toy, {}, setting()) == []


# ---------------------------------------------------------------- what fits


def fitted(one, **where):
    return nearest(one, models(one), setting(**where))


def test_what_fits_needs_no_change():
    assert fitted(recipe()) == ()


def test_fewer_rows_are_named_with_a_number():
    one = recipe(policy={"kind": "hf", "model": SMALL, "rows": 4096})
    [change] = fitted(one)
    assert change == "policy.rows: 2048"
    assert too_large(one, models(one), setting())
    assert not too_large(recipe(policy={**ROWS, "rows": 2048}), models(one), setting())


def test_free_changes_come_before_those_that_cost_time():
    learner = {"kind": "dpo", "micro_tokens": 65536, "batch": 512}
    assert fitted(recipe(learner=learner)) == ("learner.micro_tokens: 16384",)
    long = recipe(learner=learner, sampling={"max_tokens": 8000})
    assert "learner.gradient_checkpointing: true" in fitted(long, gpu="RTX-4090", response=8000)


def test_a_large_model_is_sharded_where_there_are_gpus_and_else_takes_adapters():
    policy = {"kind": "vllm", "model": LLAMA, "memory": 0.5}
    one = recipe(policy=policy, learner={"kind": "dpo", "gradient_checkpointing": True})
    [change] = fitted(one, gpus=8)
    assert change.startswith("learner.launch over 4 GPUs")
    assert fitted(one) == ("learner.lora: {rank: 64, alpha: 128}",)


def test_the_reward_can_move_and_vllm_can_share_otherwise():
    policy = {"kind": "vllm", "model": SMALL, "memory": 0.9}
    reward = {"kind": "hf", "model": "Skywork/Skywork-Reward-V2-Llama-3.1-8B"}
    small = recipe(policy=policy, reward=reward)
    assert fitted(small) == ("policy.memory: 0.7",)
    assert nearest(small, models(small), setting(gpus=2)) == ("policy.memory: 0.7",)
    large = recipe(policy={"kind": "vllm", "model": LLAMA, "memory": 0.15}, learner={
        "kind": "dpo", "lora": {}, "gradient_checkpointing": True})  # fmt: skip
    assert fitted(large) == ("policy.memory: 0.9",)


def test_a_reference_can_be_given_up_last():
    learner = {**RLOO, "kl": 0.1, "gradient_checkpointing": True}
    learner |= {"lora": {"rank": 8, "merge": True}}  # the base of later rounds is not theta_0
    policy = {"kind": "hf", "model": LLAMA, "rows": 4}
    rules = {"kind": "rules", "call": "a:b"}
    one = recipe(learner=learner, policy=policy, sampling=WHOLE, creator=None, reward=rules)
    assert fitted(one, gpu="L40S") == ("learner.kl: 0.0",)
    kept = recipe(
        learner=learner | {"lora": {"rank": 8}},
        policy=policy,
        sampling=WHOLE,
        creator=None,
        reward=rules,
    )
    assert fitted(kept, gpu="L40S") == ()  # the reference is what lies below the adapter


def test_sometimes_nothing_helps():
    one = recipe(policy={"kind": "vllm", "model": "meta-llama/Llama-3.3-70B-Instruct"})
    assert fitted(one, gpu="RTX-4090") is None
    command = {"kind": "command", "run": ["x"]}
    few = recipe(policy={**ROWS, "model": LLAMA, "rows": 4}, learner=command)
    assert fitted(few, gpu="A100-40GB") == ()
    assert fitted(recipe(policy=dict(one.policy), learner=command), gpu="RTX-4090") is None


def test_cards_are_known_however_they_are_spelt():
    assert card("rtx 4090") == card("RTX4090")
    assert Card("x", 100).usable == pytest.approx(94 * GIB)
    with pytest.raises(RecipeError, match="numbers of: H200"):
        card("TPU")


# ---------------------------------------------------------------- launchers


def test_a_launcher_says_how_many_processes_there_are(tmp_path):
    (tmp_path / "f.yaml").write_text("distributed_type: FSDP\nnum_processes: 8\n")
    (tmp_path / "empty.yaml").write_text("")

    def of(*words, gpus=2):
        return launched(words, tmp_path, gpus)

    assert of() == Launch()
    assert of("torchrun", "--nproc-per-node", "4") == Launch(4)
    assert of("torchrun", "--nnodes=2", "--nproc-per-node=4") == Launch(8)
    assert of("accelerate", "launch", "--config_file", "f.yaml") == Launch(8, is_sharded=True)
    assert of("accelerate", "launch", "--config_file", "empty.yaml") == Launch(2)
    assert of("accelerate", "launch", "--use_fsdp", "--num_processes") == Launch(2, is_sharded=True)
    missing = of("accelerate", "launch", "--config_file", "g.yaml")
    assert missing.processes == 2
    assert missing.is_sharded
    assert "g.yaml" in (missing.unknown or "")
