"""The policy of the playground: a small GPT-2 and a tokenizer that knows one token per word.

Both are plain Hugging Face objects, so that the playground runs through the same code as a model
of nine billion parameters. Sizes are our choice: 157 120 parameters learn the language in minutes
on one CPU core and weigh 0.6 MB.
"""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from eva.playground.domain import MOST_CONSTRAINTS, MOST_DIGITS, WORDS

PAD, BOS, EOS, UNK, ANSWER = "<pad>", "<bos>", "<eos>", "<unk>", "="
VOCABULARY: dict[str, int] = {
    token: index
    for index, token in enumerate((PAD, BOS, EOS, UNK, ANSWER, *map(str, range(10)), *WORDS))
}
"""35 tokens and their ids."""

NEW_TOKENS = MOST_DIGITS + 1
"""Tokens of the longest answer: its digits and the end."""
WIDTH = 64
"""Size of the residual stream."""
POSITIONS = 40
"""Length of the context, in tokens."""
# The beginning, ten constraints of two tokens, "=", and the longest answer: 33 tokens.
assert 1 + 2 * MOST_CONSTRAINTS + 1 + NEW_TOKENS <= POSITIONS

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %} = {{ message.content }} {{ eos_token }}"
    "{% else %} {{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ={% endif %}"
)
"""One user turn renders as "<bos> last 6 even =", its answer follows as "8 4 2 6 <eos>"."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: words are separated by white space, each is a token."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNK))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_model(seed: int) -> GPT2LMHeadModel:
    """The model with random weights, drawn by seed; in evaluation mode, float32."""
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=POSITIONS,
        n_embd=WIDTH,
        n_layer=3,
        n_head=4,
        # On a CPU the "gelu_new" of GPT-2 is several kernels; this form of it is a single one.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        pad_token_id=VOCABULARY[PAD],
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        architectures=["GPT2LMHeadModel"],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        model.apply(_start)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # theirs
        max_new_tokens=NEW_TOKENS,
        do_sample=True,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
    )
    model.eval()  # type: ignore[no-untyped-call]  # theirs
    return model


def _start(module: nn.Module) -> None:
    """First weights as PyTorch's own modules draw them.

    Embeddings are N(0, 1), layers uniform within 1 / sqrt(inputs). GPT-2's own 0.02 is made for a
    width of 768; at this one the same training answers 8 to 10 % of the hard prompts.
    """
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)
    elif isinstance(module, nn.Linear | Conv1D):
        inputs = module.nx if isinstance(module, Conv1D) else module.in_features
        bound = inputs**-0.5
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.uniform_(module.bias, -bound, bound)
