"""A reward service of your own: the groups of a call are sent to it, many at once.

It is posted ``{"prompt": [{"role", "content"}, ...], "responses": [text, ...], "data": {...}}`` and
answers ``{"rewards": [number or null, ...]}``. What it answered is kept by its name and the
request, so a run that goes on asks nothing twice. Failures of the network are tried again by the
client; a group that fails for good, or an answer of another shape, is missing with its reason.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from eva.parts.rewards import HttpReward
from eva.protocols import Floats_P_G
from eva.records import Prompt, Response
from eva.rewards.missing import NO_ANSWER, Missing, tell
from eva.serving.bearer import bearer
from eva.serving.client import Call, Client, Reply, Settings, call
from eva.serving.sending import Failed

log = logging.getLogger(__name__)


class Service:
    """r(x, y) as a service answers; it is connected to when it is first asked.

    Raises:
        RecipeError: The environment variable of the key is not set.
    """

    def __init__(self, part: HttpReward, cache: Path | None) -> None:
        self._settings = Settings(
            urls=part.urls,
            name=part.name,
            cache=cache,
            headers=bearer(part.key, "reward.key"),
            concurrency=part.concurrency,
            deadline=part.deadline,
            attempts=part.attempts,
            patience=part.patience,
        )
        self._weights = f"reward {part.name}"
        self._client: Client | None = None

    def __call__(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
    ) -> Floats_P_G:
        """Rewards of shape [P, G], in units of the service.

        Raises:
            BackEndError: No service answers, or it refuses every request.
        """
        size = len(responses[0]) if responses else 0
        rewards_P_G = np.full((len(prompts), size), np.nan)
        answered = [[g for g, y in enumerate(group) if y.finish != "error"] for group in responses]
        asked = [p for p, places in enumerate(answered) if places]
        calls = [self._call(prompts[p], [responses[p][g].text for g in answered[p]]) for p in asked]
        unasked = sum(size - len(places) for places in answered)
        missing = [Missing(NO_ANSWER, "finish is error")] * unasked
        for p, reply in zip(asked, self._ask(calls), strict=True):
            for g, reward in zip(answered[p], _rewards(reply, len(answered[p])), strict=True):
                if isinstance(reward, Missing):
                    missing.append(reward)
                else:
                    rewards_P_G[p, g] = reward
        tell(log, f"rewards of {self._settings.name}", missing, len(prompts) * size)
        return rewards_P_G

    def release(self) -> None:
        """Close the connections; the next call opens them again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, calls: Sequence[Call]) -> list[Reply]:
        if not calls:
            return []
        if self._client is None:
            self._client = Client(self._settings)
        return self._client.ask(calls)

    def _call(self, prompt: Prompt, texts: list[str]) -> Call:
        body: dict[str, JsonValue] = {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in prompt.messages],
            "responses": list(texts),
            "data": prompt.data,
        }
        return call("", body, self._weights, fault=partial(_fault, len(texts)))


def _fault(n: int, body: Mapping[str, Any]) -> str | None:
    """Why a reply with HTTP 200 is no answer for n responses."""
    rewards = body.get("rewards")
    if isinstance(rewards, list) and len(rewards) == n:
        return None
    return 'the service gave no list "rewards" of one number or null for each response'


def _rewards(reply: Reply, n: int) -> list[float | Missing]:
    """The n rewards of a reply, or why each is missing."""
    if isinstance(reply, Failed):
        return [Missing("the service gave no answer", reply.reason)] * n
    body = reply.body
    reason = _fault(n, body)
    if reason is not None:  # kept by a version that kept such replies
        return [Missing(reason, str(body))] * n
    return [_reward(one, body) for one in body["rewards"]]


def _reward(value: object, body: Mapping[str, Any]) -> float | Missing:
    if value is None:
        return Missing("the service gave null", str(body))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return Missing("the service gave something else than a finite number", repr(value))
    return float(value)
