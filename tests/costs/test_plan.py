"""Hours, money, disk, and the sentence at the end."""

import json

import pytest

from eva.costs.cards import Card, card
from eva.costs.hours import COMPUTE, DECODE, Machine, decode, forward, operations
from eva.costs.launch import Launch
from eva.costs.shapes import KNOWN, LLAMA_8B
from eva.parts.learners import Dpo, Lora
from tests.costs.plans import API, EVOLVE, LLAMA, PROMPTS, RLOO, SCORER, SMALL, WHOLE, made, recipe

H100 = card("H100")
P = KNOWN[SMALL].parameters


def stage(plan, name):
    return next(one for one in plan.stages if one.name.startswith(name))


# ---------------------------------------------------------------- hours


def test_one_row_is_bound_by_reading_the_weights():
    # 2 bytes x 8.03e9 weights at half of 3.35e12 bytes a second: 104 tokens a second.
    speed = decode(LLAMA_8B, H100, 1, rows=1, context=0)
    assert speed == pytest.approx(3.35e12 * DECODE / (2 * LLAMA_8B.parameters))
    assert speed == pytest.approx(104, rel=0.01)


def test_very_many_rows_are_bound_by_arithmetic():
    speed = decode(LLAMA_8B, H100, 1, rows=1e6, context=0)
    assert speed == pytest.approx(989e12 * COMPUTE / (2 * LLAMA_8B.multiplied))
    assert speed == pytest.approx(forward(LLAMA_8B, H100, 1))


def test_a_longer_context_is_slower():
    speeds = [decode(LLAMA_8B, H100, 1, rows=64, context=c) for c in (0, 1000, 4000)]
    assert speeds == sorted(speeds, reverse=True)


def test_operations_of_a_trained_token():
    assert operations(Dpo(kind="dpo")) == 6
    assert operations(Dpo(kind="dpo", gradient_checkpointing=True)) == 8
    assert operations(Dpo(kind="dpo", lora=Lora())) == 4


def test_the_learner_works_at_six_operations_and_the_reference_at_two():
    plan = made(recipe())
    learn = stage(plan, "learn")
    learning = plan.work.learning
    flops = KNOWN[SMALL].multiplied * (6 * learning.trained + 2 * learning.scored)
    assert learn.hours == pytest.approx(flops / (989e12 * COMPUTE) / 3600)
    assert plan.hours == pytest.approx(sum(one.hours for one in plan.stages))


def test_what_was_measured_takes_the_place_of_the_estimate():
    plan = made(recipe(), speed=100.0)
    assert stage(plan, "answer").hours == 2000 * 100 / 100.0 / 3600


def test_all_gpus_are_held_while_one_works():
    plan = made(recipe(), gpus=4, price=2.0)
    assert stage(plan, "answer").gpus == 1
    assert plan.gpu_hours == plan.hours * 4
    assert plan.gpu_money == plan.gpu_hours * 2
    eight = made(recipe(), gpus=4, launch=Launch(4))
    assert stage(eight, "learn").hours == pytest.approx(stage(plan, "learn").hours / 4)


def test_processes_beyond_the_batch_have_nothing_to_do():
    plan = made(recipe(learner={"kind": "dpo", "batch": 2}), gpus=4, launch=Launch(4))
    assert stage(plan, "learn").gpus == 2


@pytest.mark.parametrize(
    ("policy", "gpus"),
    [
        ({"kind": "vllm", "model": LLAMA, "tensor_parallel": 2}, 2),
        ({"kind": "http", "model": LLAMA, "serve": {"command": ["x"], "count": 4}}, 4),
    ],
)
def test_servers_work_on_their_gpus(policy, gpus):
    answer = stage(made(recipe(policy=policy), gpus=8), "answer")
    assert answer.gpus == gpus
    assert answer.hours > 0


def test_a_prompt_that_is_read_once_stands_before_each_of_its_responses():
    serve = {"command": ["vllm", "serve", "{model}"]}
    answer = stage(made(recipe(policy={"kind": "http", "model": LLAMA, "serve": serve})), "answer")
    # 2000 responses of 100 tokens, on average half written, after prompts of 50; 500 are read.
    writing = decode(LLAMA_8B, H100, 1, rows=256, context=50 + 50)
    seconds = 2000 * 100 / writing + 500 * 50 / forward(LLAMA_8B, H100, 1)
    assert answer.hours == pytest.approx(seconds / 3600, rel=1e-9)


def test_a_server_elsewhere_and_an_unknown_model_have_no_hours():
    away = stage(made(recipe(policy=API, learner={"kind": "simpo"})), "answer")
    assert (away.gpus, away.hours) == (0, None)
    unknown = made(recipe(policy={"kind": "hf", "model": "org/x"}))
    assert stage(unknown, "answer").hours is None
    assert stage(unknown, "learn").hours is None
    no_card = made(recipe(), gpu=None)
    assert no_card.hours is None
    assert no_card.gpu_hours is None
    assert forward(LLAMA_8B, Card("GPU", 80), 1) is None


# ---------------------------------------------------------------- money


def test_a_bill_adds_what_all_stages_ask_of_a_model():
    evolve = {**EVOLVE, "by": API}
    reward = {"kind": "judge", "by": API}
    plan = made(recipe(creator={"evolve": evolve}, reward=reward))
    [bill] = plan.bills
    # evolve: 200 calls read 350 tokens and write 333; judge: 2000 calls read 450 and write 512.
    expected = 200 * (350 * 1 + 333 * 10) + 2000 * (450 * 1 + 512 * 10)
    assert bill.expected == pytest.approx(expected / 1e6)
    assert bill.most == pytest.approx((200 * (350 + 6660) + 2000 * (300 + 50 + 200 + 10240)) / 1e6)
    assert bill.verdict is None


@pytest.mark.parametrize(
    ("budget", "said"), [(1.0, "will not last"), (15.0, "may not last"), (99.0, None)]
)
def test_a_budget_is_compared_with_the_bill(budget, said):
    reward = {"kind": "judge", "by": {**API, "budget": budget}}
    [bill] = made(recipe(reward=reward)).bills
    assert (said in bill.verdict) if said else bill.verdict is None


def test_two_models_make_two_bills():
    evolve = {**EVOLVE, "by": {**API, "name": "writer"}}
    plan = made(recipe(creator={"evolve": evolve}, reward={"kind": "judge", "by": API}))
    assert {bill.model for bill in plan.bills} == {"writer", "judge"}


# ---------------------------------------------------------------- disk


def test_checkpoints_of_all_rounds_are_kept_in_float32():
    disk = made(recipe(learner={"kind": "dpo", "save_steps": 5})).disk
    assert disk["checkpoints of all rounds"] == 3 * 4 * P
    assert disk["snapshots while it learns"] == 2 * 12 * P
    # 500 answered groups and 3 x 100 lessons, 4 responses of 100 tokens, text and ids.
    assert disk["responses and lessons"] == 800 * 4 * 100 * 25
    assert disk[f"download of {SMALL}"] == 2 * P


def test_adapters_are_small_unless_they_are_merged():
    def kept(**lora):
        learner = {"kind": "dpo", "lora": {"rank": 4, **lora}}
        return made(recipe(learner=learner)).disk["checkpoints of all rounds"]

    assert kept() == 3 * 4 * KNOWN[SMALL].adapter(4)
    assert kept(merge=True) == 3 * 4 * P


def test_online_the_moments_wait_beside_each_checkpoint():
    one = recipe(learner={**RLOO, "save_steps": 2}, sampling=WHOLE, creator=None)
    disk = made(one).disk
    assert disk["checkpoints of all rounds"] == 3 * 12 * P
    assert disk["responses and lessons"] == 2 * 120 * 4 * 100 * 25


def test_texts_of_servers_have_no_ids_and_servers_download_nothing_here():
    launch = {"kind": "dpo", "launch": ["torchrun"], "optimizer": "rmsprop", "save_steps": 1}
    policy = {"kind": "http", "model": LLAMA, "urls": ["http://h/v1"], "reload": "vllm"}
    reward = {"kind": "judge", "by": API}
    disk = made(recipe(policy=policy, reward=reward, learner=launch)).disk
    assert disk["responses and lessons"] == (500 + 2 * 300) * 4 * 100 * 5
    assert disk["snapshots while it learns"] == 2 * 8 * KNOWN[LLAMA].parameters
    assert f"download of {LLAMA}" in disk  # the learner needs its weights
    assert "download of judge" not in disk


def test_what_is_not_known_is_none_and_what_is_here_is_not_downloaded():
    disk = made(recipe(policy={"kind": "hf", "model": "/nowhere/x"})).disk
    assert disk["checkpoints of all rounds"] is None
    assert "download of /nowhere/x" not in disk


# ---------------------------------------------------------------- the sentence


def test_the_sentence_says_whether_it_fits():
    assert made(recipe()).sentence == "fits"
    assert made(recipe(), gpu=None).sentence.startswith("name a GPU")
    own = recipe(policy={"kind": "hf", "model": "org/x"})
    assert made(own).sentence == "fits; not known: org/x"


def test_it_names_the_nearest_setting_or_that_there_is_none():
    large = recipe(policy={"kind": "hf", "model": SMALL, "rows": 4096})
    assert made(large).sentence == (
        "does not fit: sample and reward needs "
        f"{made(large).loads[0].total / 2**30:.1f} GiB of the 75.2 GiB on GPU 0; "
        "the nearest setting that fits: policy.rows: 2048"
    )
    huge = recipe(policy={"kind": "vllm", "model": "meta-llama/Llama-3.3-70B-Instruct"})
    assert "no change that eva check knows" in made(huge, gpu="RTX-4090").sentence


def test_on_a_cpu_and_in_the_toy_world_there_is_nothing_to_fit():
    cpu = {"kind": "hf", "model": SMALL, "device": "cpu"}
    plan = made(recipe(policy=cpu, reward={**SCORER, "device": "cpu"}))
    assert "of main memory" in plan.sentence
    toy = recipe(policy={"kind": "toy"}, learner={"kind": "toy"}, reward={"kind": "toy"})
    plan = made(toy)
    assert "nothing to fit" in plan.sentence
    assert (plan.disk, plan.host, plan.hours) == ({}, None, None)


def test_main_memory_holds_the_model_once_for_each_process():
    assert made(recipe(), launch=Launch(8)).host == 8 * 4 * P
    assert made(recipe(learner={"kind": "command", "run": ["x"]})).host is None


def test_a_plan_is_json():
    held = {"sets": {"a": PROMPTS}}
    plan = made(recipe(evaluate=held, reward={"kind": "judge", "by": API}))
    found = json.loads(json.dumps(plan.as_json()))
    assert found["sentence"] == "fits"
    assert {ask["stage"] for ask in found["asks"]} >= {"answer", "evolve", "evaluate"}
    service = recipe(reward={"kind": "http", "urls": ["http://h"]})
    names = {ask["model"] for ask in made(service).as_json()["asks"]}
    assert names == {SMALL, "a service"}
    own = recipe(reward={"kind": "rules", "call": "a:b"}, learner={"kind": "command", "run": ["x"]})
    found = made(own).as_json()
    assert found["learning"] is None
    assert "a function" in {ask["model"] for ask in found["asks"]}


def test_a_machine_has_one_gpu_unless_said():
    assert Machine().gpus == 1
