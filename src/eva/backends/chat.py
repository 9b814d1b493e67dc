"""From a chat to token ids, and which tokens end an answer: the same for every local back end."""

from collections.abc import Sequence
from typing import cast

import jinja2
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from eva.backends.load import base_of, explained, load_adapter, load_context
from eva.records import Message, Response


def encoded(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    size: int | None,
    max_tokens: int,
) -> list[int] | str:
    """The token ids of a chat that waits for an answer, or why it cannot be answered.

    Special tokens are those that the chat template writes; the tokenizer adds none of its own.
    """
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except jinja2.TemplateError as error:
        return f"the model's chat template refuses the prompt ({error})"
    if not ids:
        return "the model's chat template makes no token of the prompt"
    if size is not None and len(ids) + max_tokens > size:
        return (
            f"the prompt has {len(ids)} tokens; with {max_tokens} new tokens that passes the "
            f"model's context of {size}"
        )
    return cast(list[int], ids)


def among_errors(
    found: Sequence[list[int] | str], n: int, groups: Sequence[list[Response]]
) -> list[list[Response]]:
    """Groups of n responses in the order of the prompts, from those of the prompts with token ids.

    The responses to a prompt that cannot be answered are errors with the reason of `encoded`. Given
    and newborn prompts are refused before that; what a writer is asked may be too long for it.
    """
    answered = iter(groups)
    return [
        [Response(text="", finish="error", error=one)] * n
        if isinstance(one, str)
        else next(answered)
        for one in found
    ]


def end_tokens(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's, and those of the model's own settings.

    Instruct models name several in generation_config.json, e.g. the end of a turn and of a text.
    """
    own: int | None = cast("int | None", tokenizer.eos_token_id)
    named = cast("int | list[int] | None", settings.eos_token_id)
    ends = {own, *(named if isinstance(named, list) else [named])}
    return tuple(sorted(end for end in ends if end is not None))


def load_size(uri: str, revision: str | None = None, limit: int | None = None) -> int | None:
    """The tokens that a prompt and its answer may have: the model's own bound or a lower `limit`.

    Raises:
        BackEndError: There is no config at `uri`.
    """
    sizes = (load_context(uri, revision), limit)
    return min((size for size in sizes if size is not None), default=None)


def load_settings(uri: str, revision: str | None = None) -> GenerationConfig:
    """The model's own settings, as its loaded model has them; an adapter has those of its base.

    Raises:
        BackEndError: There is no config at `uri`.
    """
    adapter = load_adapter(uri, revision)
    if adapter is not None:
        return load_settings(*base_of(adapter))
    with explained(uri, "config.json"):
        try:
            return GenerationConfig.from_pretrained(uri, revision=revision or "main")
        except OSError:  # it has no generation_config.json
            return GenerationConfig.from_model_config(
                AutoConfig.from_pretrained(uri, revision=revision)
            )
