"""The gate of answerable prompts: a judge says whether a prompt can be answered as it stands."""

import logging
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from eva.adapt import Asked
from eva.errors import RecipeError
from eva.parts.gates import Answerable as Part
from eva.protocols import Around
from eva.records import Child, Message, Prompt

SEED = 0
"""Of the judge's draws: a verdict depends on the prompt alone."""
VERDICT = re.compile(r"^[\W_]*verdict[\W_]*(yes|no)[\W_]*$", re.IGNORECASE)
"""The last line of a judge's answer."""
log = logging.getLogger(__name__)


class Answerable:
    """Refuses a child that the judge finds unanswerable.

    Without a verdict (the judge failed, or wrote none) the child passes and is counted in the log:
    a judge's failure says nothing about a prompt. Our choice.
    """

    name = "answerable"

    def __init__(self, part: Part, judge: Asked) -> None:
        self._rubric, self._sampling, self._judge = rubric(part.rubric), part.sampling, judge

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None."""
        asking = [_question(self._rubric, child.messages) for child in children]
        if not asking:
            return []
        answers = self._judge(asking, 1, sampling=self._sampling, seed=SEED)
        verdicts = [
            verdict(answer.text) if answer.error is None else (None, answer.error)
            for (answer,) in answers
        ]
        absent = [reason for says, reason in verdicts if says is None]
        if absent:
            log.warning(
                "answerable: %d of %d prompts have no verdict and pass, the first because %s",
                len(absent), len(verdicts), absent[0],
            )  # fmt: skip
        return [reason if says is False else None for says, reason in verdicts]

    def release(self) -> None:
        """Give the judge's memory back."""
        self._judge.release()


def rubric(name: str) -> str:
    """The text of a rubric: a file, or one that ships with eva.

    Raises:
        RecipeError: There is none of that name, or it has no {prompt}.
    """
    shipped = resources.files("eva.gates").joinpath("rubrics", f"{name}.md")
    path = Path(name)
    if not path.is_file() and not (path.name == name and shipped.is_file()):
        raise RecipeError(
            f"creator.gates.answerable.rubric: there is no file {name}; give one with {{prompt}}, "
            "or the name answerable, which ships with eva"
        )
    text = path.read_text("utf-8") if path.is_file() else shipped.read_text("utf-8")
    if "{prompt}" not in text:
        raise RecipeError(
            f"creator.gates.answerable.rubric: {name} has no {{prompt}}; write it where the prompt "
            "is to stand"
        )
    return text


def verdict(text: str) -> tuple[bool | None, str]:
    r"""What a judge's answer says: yes, no or nothing, and the reason.

    Examples:
        >>> verdict("The attachment is missing.\nVerdict: no")
        (False, 'the judge finds it unanswerable: The attachment is missing.')
        >>> verdict("Hm.")[0] is None
        True
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = VERDICT.match(lines[-1]) if lines else None
    if found is None:
        return None, f"the last line is {lines[-1] if lines else ''!r:.60}"
    if found[1].lower() == "yes":
        return True, ""
    reason = lines[-2] if len(lines) > 1 else "no reason given"
    return False, f"the judge finds it unanswerable: {reason[:200]}"


def _question(rubric: str, messages: Sequence[Message]) -> Prompt:
    chat = "\n\n".join(f"{message.role}: {message.content}" for message in messages)
    shown = messages[0].content if len(messages) == 1 else chat
    return Prompt(messages=(Message(role="user", content=rubric.replace("{prompt}", shown)),))
