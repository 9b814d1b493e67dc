"""A reward model in Hugging Face format: the chat as its own template writes it, one number each.

A chat that the template refuses, or that is longer than the model can read, has no reward; it is
never cut, for a cut answer would be scored as another one. Special tokens are those that the
template writes; words of an answer that spell a special token are read as that token, as they are
by the published code of reward models.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import jinja2
from transformers import PreTrainedTokenizerBase

from eva.backends.load import context, load_tokenizer
from eva.backends.memory import give_back_memory
from eva.parts.rewards import ClassifierReward
from eva.protocols import Floats_P_G
from eva.records import Prompt, Response
from eva.rewards.armo import armo_head, gate_place, header_of, load_armo
from eva.rewards.logits import load_classifier, logit_head
from eva.rewards.missing import NO_ANSWER, Missing, tell
from eva.rewards.scoring import Head, Row, scores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A loaded model and what it can read."""

    tokenizer: PreTrainedTokenizerBase
    """Its chat template writes the chats."""
    head: Head
    """What reads them."""
    longest: int | None
    """Tokens of the longest chat; None for no bound."""
    header: Row | None = None
    """Tokens that a chat must hold; None for none."""


class Classifier:
    """r(x, y) by a sequence classifier; its weights are loaded when it is first asked."""

    def __init__(self, part: ClassifierReward) -> None:
        self._part = part
        self._opened: Opened | None = None

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G], in the model's own unit.

        Raises:
            BackEndError: The model cannot be loaded, or gives no numbers.
            RecipeError: It has no output number `index`.
        """
        if self._opened is None:
            self._opened = opened(self._part)
        opened_ = self._opened
        chats = [
            encoded(prompt, response, opened_)
            for prompt, group in zip(prompts, responses, strict=True)
            for response in group
        ]
        missing = [chat for chat in chats if isinstance(chat, Missing)]
        tell(log, f"rewards of {self._part.model}", missing, len(chats))
        found = scores(chats, opened_.head, self._part.batch_tokens)
        return found.reshape(len(prompts), len(responses[0]) if responses else 0)

    def release(self) -> None:
        """Give the model's memory back; the next call loads it again."""
        self._opened = None
        give_back_memory()


def opened(part: ClassifierReward) -> Opened:
    """The model of a part, ready to read.

    Raises:
        BackEndError: It cannot be loaded.
        RecipeError: It has no output number `index`.
    """
    trusted = part.trust_remote_code
    tokenizer = load_tokenizer(part.model, part.revision, trust_remote_code=trusted)
    if part.head == "armo":
        armo, header = load_armo(part), header_of(tokenizer)
        longest = part.max_tokens or context(armo.config)
        return Opened(tokenizer, armo_head(armo, header), longest, header)
    model = load_classifier(part, part.model, trust_remote_code=trusted)
    longest = part.max_tokens or context(model.config)
    return Opened(tokenizer, logit_head(model, part.index), longest)


def encoded(prompt: Prompt, response: Response, by: Opened) -> list[int] | Missing:
    """The token ids of a prompt with its response, or why it cannot be scored."""
    where = f"prompt {prompt.id}"
    if response.finish == "error":
        return Missing(NO_ANSWER, where)
    chat = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
    chat.append({"role": "assistant", "content": response.text})
    try:
        row = by.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    except jinja2.TemplateError as error:
        return Missing("the chat template refuses the chat", f"{where}: {error}")
    ids = cast("list[int]", row)
    if not ids:
        return Missing("the chat template makes no token of the chat", where)
    if by.longest is not None and len(ids) > by.longest:
        return Missing(f"the chat is longer than {by.longest} tokens", f"{where}: {len(ids)}")
    if by.header is not None and gate_place(ids, by.header) is None:
        return Missing("the chat has no header of Llama 3 before its answer", where)
    return ids
