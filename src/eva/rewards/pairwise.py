"""A classifier that reads two responses at once: the log-odds that the first beats the second.

Each two responses of a group are read in both orders, as the template of the recipe puts them, and
`formulas.pairing.mean_wins` makes one number of each response: its mean chance to beat the others.
That is a win probability, which SPPO takes as it is (`learner.labels: rewards`). PairRM is no such
classifier: it has a head and tokens of its own.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eva.backends.load import context, explained
from eva.backends.memory import give_back_memory
from eva.formulas.pairing import mean_wins
from eva.parts.rewards import PairwiseReward
from eva.protocols import Floats_P_G
from eva.records import Prompt, Response
from eva.rewards.duels import duels, matrix
from eva.rewards.logits import load_classifier, logit_head
from eva.rewards.missing import NO_ANSWER, Missing, tell
from eva.rewards.scoring import Head, scores
from eva.rewards.texts import checked, filled, transcript

log = logging.getLogger(__name__)

TEXTS = ("prompt", "first", "second")
"""What the template inserts."""


@dataclass(frozen=True)
class Opened:
    """A loaded model and what it can read."""

    tokenizer: PreTrainedTokenizerBase
    """Adds its own special tokens to a text."""
    head: Head
    """What reads the tokens."""
    longest: int
    """Tokens of the longest text."""


class Pairwise:
    """r(x, y) = the mean chance of y to beat the others of its group, in [0, 1]."""

    def __init__(self, part: PairwiseReward) -> None:
        self._part = part
        self._template = checked(part.text, TEXTS, "reward.text")
        self._opened: Opened | None = None

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G]; NaN for a response that could be compared with no other.

        Raises:
            BackEndError: The model cannot be loaded, or gives no numbers.
        """
        if self._opened is None:
            self._opened = opened(self._part)
        texts = [
            self._text(self._opened, prompts[p], responses[p][i], responses[p][j])
            for p, i, j in duels(responses)
        ]
        missing = [text for text in texts if isinstance(text, Missing)]
        tell(log, f"duels of {self._part.model}", missing, len(texts))
        logits = scores(texts, self._opened.head, self._part.batch_tokens)
        sigmoids = 0.5 + 0.5 * np.tanh(0.5 * logits)
        return mean_wins(matrix(responses, sigmoids))

    def release(self) -> None:
        """Give the model's memory back; the next call loads it again."""
        self._opened = None
        give_back_memory()

    def _text(
        self, by: Opened, prompt: Prompt, first: Response, second: Response
    ) -> list[int] | Missing:
        if "error" in (first.finish, second.finish):
            return Missing(NO_ANSWER, f"prompt {prompt.id}")
        texts = (transcript(prompt.messages), first.text, second.text)
        text = filled(self._template, dict(zip(TEXTS, texts, strict=True)))
        ids: list[int] = by.tokenizer(text)["input_ids"]
        if len(ids) > by.longest:
            return Missing(
                f"both responses together are longer than {by.longest} tokens",
                f"prompt {prompt.id}: {len(ids)}",
            )
        return ids


def opened(part: PairwiseReward) -> Opened:
    """The model of a part, ready to read.

    Raises:
        BackEndError: It cannot be loaded.
    """
    assert part.model is not None  # else `call` is a function, and no model is built
    with explained(part.model, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(part.model, revision=part.revision)
    model = load_classifier(part, part.model)
    # Some encoders count positions from above 0, which only their tokenizer knows.
    longest = min(context(model.config) or 2**31, tokenizer.model_max_length)
    return Opened(tokenizer, logit_head(model, 0), longest)
