"""Writers whose words are known, and parents for them."""

from contextlib import contextmanager

from eva.adapt import Asked
from eva.evolve.evol_instruct import EvolInstruct
from eva.evolve.self_instruct import SelfInstruct
from eva.parts import evolvers as parts
from eva.records import Checkpoint, Message, Prompt, Response, ScoredPrompt


def turns(*texts, system=None):
    """A chat in which the user and the assistant take turns."""
    first = [Message(role="system", content=system)] if system is not None else []
    roles = ("user", "assistant")
    spoken = [Message(role=roles[i % 2], content=text) for i, text in enumerate(texts)]
    return (*first, *spoken)


def scored(*texts, system=None, data=None):
    prompt = Prompt(messages=turns(*texts, system=system), data=data or {}, by="test")
    return ScoredPrompt(prompt=prompt, info=1.0, round=1, policy="theta")


def parents(count):
    return [scored(f"Explain topic {i} to me.") for i in range(count)]


class Scribe:
    """A policy: answers each request by a function of it, and remembers what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    def __call__(self, prompts, n, *, sampling, seed):
        assert n == 1
        self.calls.append((list(prompts), sampling, seed))
        return [[self._response(prompt, seed)] for prompt in prompts]

    def _response(self, prompt, seed):
        found = self.answer(prompt, seed)
        return found if isinstance(found, Response) else Response(text=found)

    @property
    def requests(self):
        """The text of every request, in the order in which they were made."""
        return [prompt.messages[-1].content for prompts, _, _ in self.calls for prompt in prompts]


def tagged(text):
    return f"<new_prompt>\n{text}\n</new_prompt>"


def by_id(prompt, seed):
    """A rewrite that only this request with this seed gives: what a sampled policy would."""
    return tagged(f"A rewrite numbered {prompt.id} {seed}.")


def old(prompt):
    """The old prompt that a request of evol_instruct shows."""
    return prompt.messages[-1].content.split("<old_prompt>\n")[1].split("\n</old_prompt>")[0]


def longer(prompt, seed):
    """A rewrite that shows what it rewrites."""
    return tagged(f"{old(prompt)} More!")


def no_policy(prompts, n, *, sampling, seed):
    raise AssertionError("the current policy is not asked")


def asked(scribe, name="test writer"):
    """A model that is only asked."""

    @contextmanager
    def open_policy(checkpoint):
        yield scribe

    return Asked(name, open_policy, Checkpoint(uri="test", id="test"))


def evol_instruct(writer=None, **fields):
    part = parts.EvolInstruct(kind="evol_instruct", by={"kind": "self"}, **fields)
    return EvolInstruct(part, writer)


def self_instruct(writer=None, **fields):
    part = parts.SelfInstruct(kind="self_instruct", by={"kind": "self"}, **fields)
    return SelfInstruct(part, writer)
