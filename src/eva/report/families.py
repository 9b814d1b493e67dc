"""Who wrote what from what: parents beside their children, and lines of descent."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from eva.reading import Answered, Round, Run, replies
from eva.records import Child, Message, Prompt
from eva.report.marks import PREVIEW, bars, changed, chat, clipped, plain, shown

PARENTS = 4
"""Parents that are shown of each round."""
CHILDREN = 6
"""Children that are shown of each parent."""
ROOTS = 8
"""Families in the tree of each run."""
NODES = 60
"""Prompts that are shown of each family."""
DEPTH = 40
"""Generations that are shown of each family."""
ANSWER = 600
"""Characters of a response that can be opened."""


@dataclass(frozen=True)
class Card:
    """A prompt as it is shown."""

    text: Markup
    """Its chat."""
    bars: Markup
    """Its rewards as bars; empty if it was not answered."""
    mean: float | None = None
    """Mean reward."""
    spread: float | None = None
    """Largest minus smallest reward."""
    info: float | None = None
    """Its informativeness, if it is a parent."""
    method: str = ""
    """The operator that made it."""
    change: Markup | str = ""
    """What the operator changed."""
    by: str = ""
    """Who wrote it."""
    flaw: str | None = None
    """Why it was refused."""
    admitted: bool = False
    """Whether it became a prompt."""
    answers: tuple[tuple[float | None, Markup], ...] = ()
    """Its best and its worst response with their rewards."""


@dataclass(frozen=True)
class Family:
    """A parent and its children of one round."""

    parent: Card
    children: tuple[Card, ...]
    more: int
    """Children that are not shown."""


@dataclass(frozen=True)
class Generation:
    """The families of one round."""

    round: int
    families: tuple[Family, ...]
    parents: int
    """How many parents there were."""
    children: int
    """How many children were written."""


@dataclass
class Node:
    """A prompt in a line of descent."""

    card: Card
    born: int
    descendants: int
    children: list["Node"] = field(default_factory=list)
    more: int = 0
    """Children that are not shown."""


@dataclass(frozen=True)
class Kin:
    """All prompts of a run, their parents and their rewards."""

    prompts: dict[str, Prompt]
    """Every prompt that was ever in the pool, by id."""
    written: dict[str, Prompt | Child]
    """The same and the children that were not admitted."""
    answers: dict[str, list[Answered]]
    """Each prompt's answers, in order of rounds."""
    low: float
    """The reward of an empty bar."""
    high: float
    """The reward of a full bar."""

    def above(self, id: str) -> str | None:
        """The nearest ancestor that was in the pool, or None."""
        seen = {id}
        found = self.written[id].parent
        while found is not None and found not in self.prompts:
            if found in seen or found not in self.written:
                return None
            seen.add(found)
            found = self.written[found].parent
        return found if found != id else None

    def before(self, id: str | None) -> Sequence[Message]:
        """The chat that a prompt was rewritten from; empty if unknown."""
        found = self.written.get(id or "")
        return found.messages if found else ()


def kin(run: Run) -> Kin:
    """All prompts of a run; what was there first is the origin of what has the same content."""
    prompts: dict[str, Prompt] = {}
    written: dict[str, Prompt | Child] = {}
    answers: dict[str, list[Answered]] = {}
    low, high = 0.0, 1.0
    for played in run.rounds:
        for prompt in played.pool:
            prompts.setdefault(prompt.id, prompt)
            written.setdefault(prompt.id, prompt)
        for child in played.children:
            if child.messages:
                written.setdefault(child.id, child)
        for prompt in (*played.born, *(found.prompt for found in played.solved)):
            prompts.setdefault(prompt.id, prompt)
            written.setdefault(prompt.id, prompt)
        for found in (*played.tried, *played.solved, *played.lessons):
            answers.setdefault(found.prompt.id, []).append(found)
            known = [reward for reward in found.rewards if reward is not None]
            low, high = min([low, *known]), max([high, *known])
    return Kin(prompts, written, answers, low, high)


def generations(run: Run, known: Kin) -> list[Generation]:
    """For each round with children, some parents and what was written from them."""
    return [_generation(played, known) for played in run.rounds if played.children]


def _generation(played: Round, known: Kin) -> Generation:
    parents = {found.prompt.id: found for found in played.parents}
    within = {child.id: child for child in played.children if child.messages}
    owned: dict[str, list[Child]] = {id: [] for id in parents}
    for child in played.children:
        owner = _owner(child, parents.keys(), within)
        if owner is not None:
            owned[owner].append(child)
    ranked = [id for id in parents if owned[id]]
    ranked.sort(key=lambda id: (-(parents[id].info or 0.0), id))
    taken = {prompt.id for prompt in played.born}
    families = []
    for id in _spread_out(ranked, PARENTS):
        answered = _known_then(id, known, played)
        parent = _card(parents[id].prompt, answered, known, info=parents[id].info)
        cards = [_child_card(child, played, known, taken) for child in owned[id][:CHILDREN]]
        families.append(Family(parent, tuple(cards), len(owned[id]) - len(cards)))
    return Generation(played.number, tuple(families), len(parents), len(played.children))


def _owner(child: Child, parents: Iterable[str], within: dict[str, Child]) -> str | None:
    """The parent that a child comes from, through earlier children of a chain."""
    found, seen = child.parent, set[str]()
    ids = set(parents)
    while found not in ids:
        if found not in within or found in seen:
            return None
        seen.add(found)
        found = within[found].parent
    return found


def _spread_out(ranked: Sequence[str], count: int) -> list[str]:
    """`count` of them, evenly spaced from the first to the last."""
    if len(ranked) <= count:
        return list(ranked)
    places = [round(n * (len(ranked) - 1) / (count - 1)) for n in range(count)]
    return [ranked[place] for place in places]


def _known_then(id: str, known: Kin, played: Round) -> Answered | None:
    """What was known of a parent when it was drawn: this round's trial, else the latest before."""
    tried = [answered for answered in played.tried if answered.prompt.id == id]
    before = [a for a in known.answers.get(id, ()) if a.round < played.number]
    return tried[0] if tried else before[-1] if before else None


def _child_card(child: Child, played: Round, known: Kin, taken: set[str]) -> Card:
    if not child.messages:
        text = clipped(child.raw or "nothing was written")
        return Card(text, Markup(""), method=child.method, change=shown(child.change[:PREVIEW]),
                    by=child.by, flaw=child.flaw)  # fmt: skip
    solved = [a for a in known.answers.get(child.id, ()) if a.round == played.number]
    admitted = child.flaw is None and child.id in taken
    answered = solved[0] if admitted and solved else None
    return _card(child, answered, known, admitted=admitted)


def _card(
    prompt: Prompt | Child,
    answered: Answered | None,
    known: Kin,
    *,
    info: float | None = None,
    admitted: bool = False,
) -> Card:
    rewards = answered.rewards if answered else ()
    had = [reward for reward in rewards if reward is not None]
    before = known.before(prompt.parent) if isinstance(prompt, Child) else ()
    return Card(
        text=chat(prompt.messages, before),
        bars=bars(rewards, known.low, known.high) if rewards else Markup(""),
        mean=sum(had) / len(had) if had else None,
        spread=max(had) - min(had) if had else None,
        info=info,
        method=prompt.method,
        change=shown(prompt.change[:PREVIEW]),
        by=prompt.by,
        flaw=prompt.flaw if isinstance(prompt, Child) else None,
        admitted=admitted,
        answers=_best_and_worst(answered) if answered else (),
    )


def _best_and_worst(answered: Answered) -> tuple[tuple[float | None, Markup], ...]:
    """The response with the highest and the one with the lowest reward."""
    known = [(reward, n) for n, reward in enumerate(answered.rewards) if reward is not None]
    if not known:
        return ()
    texts = replies(answered)
    best, worst = max(known, key=lambda p: (p[0], -p[1])), min(known)
    picks = [best] if best[0] == worst[0] else [best, worst]
    return tuple(
        (reward, clipped(texts[n].text, 120, ANSWER) if texts[n].text else Markup("(empty)"))
        for reward, n in picks
    )


def lineage(known: Kin) -> list[Node]:
    """The families with most descendants, from the given prompts down."""
    below: dict[str, list[str]] = {}
    for id in known.prompts:
        above = known.above(id)
        if above is not None:
            below.setdefault(above, []).append(id)
    counts: Counter[str] = Counter()
    for id in known.prompts:
        seen, above = {id}, known.above(id)
        while above is not None and above not in seen:
            counts[above] += 1
            seen.add(above)
            above = known.above(above)
    roots = [id for id in known.prompts if known.above(id) is None and counts[id]]
    roots.sort(key=lambda id: (-counts[id], id))
    return [_tree(id, below, counts, known) for id in roots[:ROOTS]]


def _tree(root: str, below: dict[str, list[str]], counts: Counter[str], known: Kin) -> Node:
    """The tree below a root, its most prolific branches first, at most `NODES` prompts."""
    top = _node(root, counts, known)
    queue, left = deque([(top, root)]), NODES - 1
    while queue:
        node, id = queue.popleft()
        kids = sorted(below.get(id, ()), key=lambda kid: (-counts[kid], kid))
        kept = kids[: min(left, 5)]
        left -= len(kept)
        node.more = len(kids) - len(kept)
        for kid in kept:
            node.children.append(_node(kid, counts, known))
            queue.append((node.children[-1], kid))
    return top


def _node(id: str, counts: Counter[str], known: Kin) -> Node:
    prompt = known.prompts[id]
    answers = known.answers.get(id)
    rewards = answers[-1].rewards if answers else ()
    had = [reward for reward in rewards if reward is not None]
    text, before = plain(prompt.messages), plain(known.before(prompt.parent))
    short = changed(before, text) if before and len(text) <= PREVIEW else shown(text[:PREVIEW])
    card = Card(
        text=short + ("…" if len(text) > PREVIEW else ""),
        bars=bars(rewards, known.low, known.high) if rewards else Markup(""),
        mean=sum(had) / len(had) if had else None,
        spread=max(had) - min(had) if had else None,
        method=prompt.method,
        change=shown(prompt.change[:PREVIEW]),
        by=prompt.by,
    )
    return Node(card, prompt.born, counts[id])
