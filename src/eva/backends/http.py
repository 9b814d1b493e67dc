"""A model behind one or many servers that speak OpenAI's chat completions, as a policy.

A prompt is one request with n choices. Its seed is a child of the seed and the prompt, so the same
run asks the same, and what was paid once is found again. Whether the same seed gives the same
answer is up to the servers: eva's own keep to it, vLLM as far as batches do not move its
arithmetic, hosted models mostly not.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from eva import seeds
from eva.errors import BackEndError
from eva.parts.policies import HttpPolicy
from eva.protocols import Following, Policy
from eva.records import Checkpoint, Prompt, Response, Sampling
from eva.serving import reload, servers
from eva.serving.bearer import bearer
from eva.serving.client import Call, Client, Reply, Settings, call
from eva.serving.sending import Failed

ROUTE = "/chat/completions"
"""What is added to a base address."""
SEED_BITS = 31
"""What any server takes as a seed. Those whose weights are eva's to choose get all 63 bits, which
is what a policy of kind "hf" draws from: `eva serve` then gives its very tokens."""
BROKEN = (None, "error")
"""How a server that fails on the way says that an answer ended."""
REFUSED_KEYS = (400, 422)
"""What a server says to a request with a key that it does not know."""


@contextmanager
def open_policy(
    checkpoint: Checkpoint, *, config: HttpPolicy, cache: Path | None
) -> Iterator[Policy]:
    """Open a checkpoint as a policy; leaving the context ends the servers that were started.

    Args:
        checkpoint: What is asked: servers that are started or reloaded load its `uri`, and answers
            are kept by its `id`.
        config: The servers.
        cache: The folder of paid answers; None keeps none.

    Raises:
        BackEndError: A server cannot be started; later: no server can be asked, or the budget is
            spent.
        RecipeError: The environment variable of the key is not set.
    """
    with ExitStack() as stack:
        headers, revive, urls = bearer(config.key, "policy.key"), None, config.urls
        if config.serve is not None:
            logs = cache / "servers" if cache else Path(stack.enter_context(_scratch()))
            started = stack.enter_context(
                servers.started(config.serve, checkpoint.uri, logs / folder_name(config))
            )
            revive, urls = started.revive, started.urls
        how = config.reload if config.serve is None else "none"  # it was started with them
        settings = Settings(
            urls=tuple(url.rstrip("/") for url in urls),
            name=f"http {config.name or config.model}",
            cache=cache,
            headers=headers,
            concurrency=config.concurrency,
            deadline=config.deadline,
            attempts=config.attempts,
            patience=config.patience,
            price=config.price,
            budget=config.budget,
        )
        prepare = None if how == "none" else reload.preparation(how, checkpoint)
        client = stack.enter_context(Client(settings, prepare=prepare, revive=revive))
        yield Asking(client, checkpoint, config)


@dataclass(frozen=True)
class _Wanted:
    """A request, as the policy wants it."""

    body: Mapping[str, JsonValue]
    """What decides the answer, and is sent."""
    seed: int
    """The seed of its draw."""


class Asking:
    """Servers as a policy."""

    def __init__(self, client: Client, checkpoint: Checkpoint, config: HttpPolicy) -> None:
        self._client = client
        self._name = model_name(checkpoint, config)
        self._weights = f"{checkpoint.id} {config.name or ''}".rstrip()
        self._body = config.body
        is_ours = config.serve is not None or config.reload != "none"
        self._shift = 0 if is_ours else 63 - SEED_BITS
        self._shows_tokens = True
        """Whether the servers take `return_token_ids`, as far as is known."""
        self._has_answered = False

    def __call__(
        self, prompts: Sequence[Prompt], n: int, *, sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Answer: n responses for each prompt, in the order of the prompts."""
        wanted = [self._wanted(one, n, sampling, seeds.child(seed, one.id)) for one in prompts]
        groups = [responses(reply) for reply in self._replies(wanted)]
        # Some servers give one choice, whatever n says: the rest is asked for one by one.
        short = [
            (i, self._wanted(one, 1, sampling, seeds.child(seed, one.id, "choice", g)))
            for i, one in enumerate(prompts)
            for g in range(len(groups[i]), n if _is_answered(groups[i]) else 0)
        ]
        for (i, _), reply in zip(short, self._replies([one for _, one in short]), strict=True):
            groups[i] += responses(reply)[:1]
        return [_filled(group[:n], n) for group in groups]

    def chains(self, count: int, following: Following, *, sampling: Sampling, seed: int) -> None:
        """Ask chains of prompts; see `eva.protocols.Chaining`.

        No token ids are asked for, and chains that are all refused are the asker's affair.
        """
        places: list[int] = []  # of the requests: a chain may end before its first

        def asked(prompt: Prompt | None) -> Call | None:
            if prompt is None:
                return None
            wanted = self._wanted(prompt, 1, sampling, seeds.child(seed, prompt.id))
            return self._call(wanted, shows_tokens=False)

        def first() -> Iterator[Call]:
            for i in range(count):
                one = asked(following(i, None))
                if one is not None:
                    places.append(i)
                    yield one

        def then(place: int, reply: Reply) -> Call | None:
            [response] = _filled(responses(reply)[:1], 1)
            return asked(following(places[place], response))

        self._client.ask(first(), then, most=count)

    def _wanted(self, prompt: Prompt, n: int, sampling: Sampling, seed: int) -> _Wanted:
        seed >>= self._shift
        body: dict[str, JsonValue] = {
            "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
            "n": n,
            "seed": seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            **self._body,
        }
        return _Wanted({key: value for key, value in body.items() if value is not None}, seed)

    def _replies(self, wanted: Sequence[_Wanted]) -> list[Reply]:
        shows_tokens = self._shows_tokens
        replies = self._client.ask([self._call(one, shows_tokens=shows_tokens) for one in wanted])
        if shows_tokens:
            refused = [i for i, reply in enumerate(replies) if _is_refused(reply)]
            if refused and not any(_has_tokens(reply) for reply in replies):
                self._shows_tokens = False
                unshown = [self._call(wanted[i], shows_tokens=False) for i in refused]
                again = self._client.ask(unshown)
                for i, reply in zip(refused, again, strict=True):
                    replies[i] = reply
                # It was about that key only where one is answered without it.
                self._shows_tokens = all(isinstance(reply, Failed) for reply in again)
        self._check(replies)
        return replies

    def _call(self, wanted: _Wanted, *, shows_tokens: bool) -> Call:
        # Where policy.body sends another seed, or none, two draws are still two.
        is_sent = wanted.body.get("seed") == wanted.seed
        unsent: dict[str, JsonValue] = {} if is_sent else {"draw": wanted.seed}
        extra: dict[str, JsonValue] = {"model": self._name}
        if shows_tokens:
            extra["return_token_ids"] = True
        return call(ROUTE, wanted.body, self._weights, unsent=unsent, fault=_fault, **extra)

    def _check(self, replies: Sequence[Reply]) -> None:
        """Refuse a request that no prompt of several can pass with."""
        refused = [reply for reply in replies if isinstance(reply, Failed)]
        self._has_answered |= len(refused) < len(replies)
        if len(refused) > 1 and not self._has_answered and all(map(_is_refused, refused)):
            raise BackEndError(
                f"the servers of {self._name} refuse each of {len(refused)} requests "
                f"({refused[0].reason}); correct sampling or policy.body (a key with null is left "
                "out) and run the same command again"
            )


def model_name(checkpoint: Checkpoint, config: HttpPolicy) -> str:
    """What the servers call the model."""
    if config.reload == "vllm" and reload.is_adapter(checkpoint.uri):
        return reload.adapter_name(checkpoint)
    return config.name or (checkpoint.uri if config.serve is not None else config.model)


def folder_name(config: HttpPolicy) -> str:
    """The folder of the logs of a model: its name, of letters that any file system takes."""
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", config.name or config.model)[-100:].strip(".-") or "model"
    )


def _fault(body: Mapping[str, Any]) -> str | None:
    """Why a reply with HTTP 200 is no answer: a failure behind the server, mostly."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return "the server gave no choice"
    for choice in choices:
        if not isinstance(choice, dict):
            return "the server gave a choice that is no object"
        if choice.get("finish_reason") in BROKEN:
            return f"the server ended the answer with the reason {choice.get('finish_reason')!r}"
    return None


def responses(reply: Reply) -> list[Response]:
    """The responses in a reply to a request; one with a reason where there is none."""
    if isinstance(reply, Failed):
        return [_error(reply.reason)]
    choices = reply.body.get("choices")
    found = choices if isinstance(choices, list) else []
    return [_response(choice) for choice in found if isinstance(choice, dict)]


def _response(choice: dict[str, Any]) -> Response:
    message = choice.get("message")
    said = message if isinstance(message, dict) else {}
    text, reason = said.get("content") or said.get("refusal") or "", choice.get("finish_reason")
    if reason not in ("stop", "length", "tool_calls", "function_call"):
        return _error(f"the server ended the answer with the reason {reason!r}")
    if reason in ("tool_calls", "function_call") and not text:
        return _error("the server called a tool and wrote no text")
    if not isinstance(text, str):
        return _error(f"the server answered with no text: {text!r:.80}")
    ids = choice.get("token_ids")
    tokens = tuple(ids) if isinstance(ids, list) else None
    return Response(
        text=text.encode(errors="replace").decode(),
        finish="length" if reason == "length" else "stop",
        tokens=tokens,
        logprobs=_logprobs(choice, len(tokens)) if tokens is not None else None,
    )


def _logprobs(choice: dict[str, Any], tokens: int) -> tuple[float, ...] | None:
    """Those of the chosen tokens, where `policy.body` asks for them."""
    shown = choice.get("logprobs")
    entries = shown.get("content") if isinstance(shown, dict) else None
    if not isinstance(entries, list) or len(entries) != tokens:
        return None
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    found = [round(value, 5) for value in values if isinstance(value, int | float)]
    return tuple(found) if len(found) == tokens else None


def _error(reason: str) -> Response:
    return Response(text="", finish="error", error=reason.encode(errors="replace").decode())


def _filled(group: list[Response], n: int) -> list[Response]:
    """As many responses as were asked for; an error of the whole request is that of each."""
    missing = group[0] if group and group[0].error else _error("the server gave no choice")
    return group + [missing] * (n - len(group))


def _is_answered(group: Sequence[Response]) -> bool:
    return not (len(group) == 1 and group[0].finish == "error")


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, Failed) and reply.status in REFUSED_KEYS


def _has_tokens(reply: Reply) -> bool:
    if isinstance(reply, Failed):
        return False
    choices = reply.body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and first.get("token_ids") is not None


def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="eva-servers-")
