"""How many GPUs a recipe takes for granted, and what is said where there are fewer."""

import pytest

from eva.costs.cards import index
from eva.costs.fitting import nearest
from eva.costs.gpus import Need, needed
from eva.costs.launch import Launch
from eva.costs.memory import Setting
from tests.costs.plans import API, LLAMA, SCORER, SMALL, made, models, recipe

SERVE = ["vllm", "serve", "{model}", "--gpu-memory-utilization", "0.5"]


def served(count=1, command=SERVE, **env):
    serve = {"command": command, "count": count, "env": env}
    return recipe(policy={"kind": "http", "model": LLAMA, "serve": serve})


def gpus(one, launch=None):
    return needed(one, launch or Launch()).gpus


def test_devices_have_numbers_and_the_cpu_none():
    assert [index(name) for name in ("auto", "cuda", "cuda:3", "cpu")] == [0, 0, 3, None]


@pytest.mark.parametrize(
    ("visible", "count", "least"),
    [("{index}", 8, 8), ("1{index}", 2, 12), ("2,3", 1, 4), ("GPU-8f6d", 2, 1), ("", 2, 1)],
)
def test_servers_need_the_gpus_that_they_are_given(visible, count, least):
    assert gpus(served(count, CUDA_VISIBLE_DEVICES=visible)) == least


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["--tensor-parallel-size", "4"], 4),
        (["--device", "cuda:{index}"], 3),
        (["--device", "cpu"], 1),
        (["--device", "other"], 1),
    ],
)
def test_a_server_says_by_its_own_options_where_it_stands(words, least):
    assert gpus(served(3, [*SERVE, *words])) == least


def test_the_names_of_all_that_need_as_many_are_said():
    one = served(8, CUDA_VISIBLE_DEVICES="{index}")
    assert needed(one, Launch(8)) == Need(
        8, f"8 processes (learner.launch) and 8 servers of {LLAMA} (serve)"
    )
    assert needed(one, Launch(4)).who == f"8 servers of {LLAMA} (serve)"
    assert needed(served(1, [*SERVE, "-tp", "2"]), Launch()).who == f"1 server of {LLAMA} (serve)"
    assert needed(recipe(), Launch(16)).who == "16 processes (learner.launch)"


def test_models_of_this_process_need_the_gpu_that_they_name():
    assert needed(recipe(reward={**SCORER, "device": "cuda:2"}), Launch()).gpus == 3
    policy = {"kind": "vllm", "model": LLAMA, "tensor_parallel": 4}
    assert needed(recipe(policy=policy), Launch()) == Need(4, f"{LLAMA} (tensor_parallel)")
    own = recipe(reward={"kind": "pairwise", "call": "a:b", "device": "cuda:1"})
    assert needed(own, Launch()) == Need(2, "a function on cuda:1")
    assert gpus(recipe(policy={**API, "device": "cuda:1"})) == 2  # it learns there


def test_a_cpu_and_the_toy_world_need_none():
    cpu = {"kind": "hf", "model": SMALL, "device": "cpu"}
    assert gpus(recipe(policy=cpu, reward={**SCORER, "device": "cpu"}), Launch(4)) == 0
    toy = recipe(policy={"kind": "toy"}, learner={"kind": "toy"}, reward={"kind": "toy"})
    assert gpus(toy) == 0


def test_the_sentence_asks_for_the_gpus_first():
    one = recipe(reward={**SCORER, "device": "cuda:1"})
    assert made(one).sentence == (
        f"does not fit: it needs 2 GPUs, for {SCORER['model']} on cuda:1, and --gpus is 1; "
        "the nearest setting that fits: --gpus 2; or ask for fewer in the recipe"
    )
    assert made(one, gpus=2).sentence == "fits"
    assert made(one, gpu=None).sentence == (
        "name a GPU (--gpu or --gpu-memory) to see whether it fits (with --gpus 2, for "
        f"{SCORER['model']} on cuda:1)"
    )
    assert made(one, gpu=None, gpus=2).sentence.endswith("to see whether it fits")


def test_more_gpus_may_not_be_enough():
    policy = {"kind": "hf", "model": SMALL, "rows": 4096}
    one = recipe(policy=policy, reward={**SCORER, "device": "cuda:1"})
    where = Setting(made(one).machine.card, 1, Launch(), 100.0, 200)
    changes = nearest(one, models(one), where)
    assert changes is not None
    assert changes[0] == "--gpus 2"
    assert changes[1].startswith("policy.rows: ")
    huge = {"kind": "vllm", "model": "meta-llama/Llama-3.3-70B-Instruct"}
    never = recipe(policy=huge, reward={**SCORER, "device": "cuda:1"})
    sentence = made(never, gpu="RTX-4090").sentence
    assert "it needs 2 GPUs" in sentence
    assert sentence.endswith("take larger GPUs or a smaller model")
