"""Parameter counts: the formula, models that are built without memory, published numbers."""

import json

import pytest

from eva.costs.shapes import FAMILIES, KNOWN, LLAMA_8B, Shape, from_config, shape_of

PUBLISHED = {
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-2-27b-it": 27_227_128_320,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
}
"""As the models' pages on the hub count the tensors of their files."""


def fields(shape: Shape) -> dict[str, object]:
    """The shape under the names of a config.json."""
    if shape.kind == "gpt2":
        return {
            "n_embd": shape.hidden, "n_layer": shape.layers, "n_head": shape.heads,
            "n_inner": shape.intermediate, "vocab_size": shape.vocab,
            "n_positions": shape.context, "tie_word_embeddings": shape.is_tied,
        }  # fmt: skip
    return {
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab, "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.is_tied,
    }  # fmt: skip


def built(shape: Shape):
    """The model of a shape, on the meta device."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(shape.kind, **fields(shape), num_labels=1)
    kind = (
        transformers.AutoModelForSequenceClassification
        if shape.is_scorer
        else transformers.AutoModelForCausalLM
    )
    with torch.device("meta"):
        return kind.from_config(config)


GPT2 = Shape("gpt2", 64, 3, 4, 4, 16, 256, 35, 40, is_tied=False)
SHAPES = [*dict.fromkeys(KNOWN.values()), GPT2]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.kind}-{s.hidden}-{s.is_scorer}")
def test_a_shape_has_as_many_parameters_as_the_model_that_is_built_from_it(shape):
    assert built(shape).num_parameters() == shape.parameters


@pytest.mark.parametrize(("model", "count"), PUBLISHED.items())
def test_a_known_model_has_as_many_parameters_as_its_page_says(model, count):
    assert KNOWN[model].parameters == count


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_attention_is_made_whole_where_transformers_makes_it_so(kind):
    shape = GPT2 if kind == "gpt2" else next(s for s in SHAPES if s.kind == kind)
    chosen = built(shape).config._attn_implementation
    assert FAMILIES[kind].is_eager == (chosen == "eager")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.kind}-{s.hidden}-{s.is_scorer}")
def test_a_folder_says_its_shape(tmp_path, shape):
    kind = "LlamaForSequenceClassification" if shape.is_scorer else "LlamaForCausalLM"
    config = {"model_type": shape.kind, "architectures": [kind], **fields(shape)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(str(tmp_path)) == shape


def test_a_model_that_is_not_known_is_not_guessed():
    assert shape_of("org/unheard-of") is None
    assert from_config({"model_type": "mamba"}) is None
    assert from_config({"model_type": "llama", "attention_bias": True}) is None
    assert from_config({}) is None


def test_a_position_of_the_cache_is_a_key_and_a_value_in_each_layer():
    # 2 (key, value) x 32 layers x 8 heads x 128 numbers x 2 bytes
    assert LLAMA_8B.cache(2.0) == 131_072


def test_a_looked_up_table_is_not_multiplied():
    assert LLAMA_8B.parameters - LLAMA_8B.multiplied == 128256 * 4096
    tied = KNOWN["google/gemma-2-2b"]
    assert tied.multiplied == tied.parameters


def test_an_adapter_has_the_size_that_peft_gives_it():
    peft = pytest.importorskip("peft")
    shape = Shape("llama", 32, 2, 4, 2, 8, 48, 39, 64, is_tied=False)
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.inject_adapter_in_model(config, built(shape))
    trained = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert trained == shape.adapter(4)
