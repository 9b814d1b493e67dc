"""What a layer keeps for the backward pass: the formula against what autograd really saves."""

import pytest

from eva.costs.shapes import Shape
from eva.costs.training import kept

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROWS, LENGTH = 3, 80


def saved(kind: str, layers: int, length: int, shape: Shape) -> float:
    """Bytes for each token that a forward pass in bfloat16 keeps, weights and their copies not."""
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=128,
        num_hidden_layers=layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    weights = {tuple(p.shape) for p in model.parameters() if p.ndim == 2}
    weights |= {shape[::-1] for shape in weights}
    storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages and tuple(tensor.shape) not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(ROWS, length, dtype=torch.long)
    narrow = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), narrow:
        alive = model.base_model(input_ids=ids, use_cache=False)[0]
    assert alive.requires_grad
    return sum(held.values()) / (ROWS * length)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2"])
@pytest.mark.parametrize("length", [LENGTH, 4 * LENGTH])
def test_a_layer_keeps_what_the_formula_says(kind, length):
    shape = Shape(kind, 256, 2, 4, 2, 64, 1024, 128, 512, is_tied=False)
    layer = (saved(kind, 3, length, shape) - saved(kind, 1, length, shape)) / 2
    assert kept(shape, length) == pytest.approx(layer, rel=0.05)
