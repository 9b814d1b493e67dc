"""The gate of refusals: the writer declined, or talked about its task instead of doing it.

The patterns are meant for how such a text begins; a prompt that quotes a refusal begins otherwise.
Those for the whole text hold words that only the writer's own instructions use.
"""

import re
from collections.abc import Sequence

from eva.protocols import Around
from eva.records import Child
from eva.words import asked

CANNOT = (
    r"(?:can(?:no|')?t|can not|could ?n[o']t|(?:won'?t|will not)(?: be able to)?|'d rather not"
    r"|(?:am|'m) (?:not able|unable|not allowed|not permitted|not going|not comfortable)"
    r"(?: to| with)?|do(?: not|n't) feel comfortable"
    r"|(?:must|have to)(?: \w+ly)? (?:decline|refuse))"
    r"(?: to)?(?: \w+ly| in good conscience)?"
)
"""How a model says that it does not do something."""
DO = (
    r"(?:assist|help|do|fulfil+|comply|complete|process|answer|provid\w*(?: assistance| help)?"
    r"|creat\w*|generat\w*|rewrit\w*|writ\w*|produc\w*|continu\w*|engag\w*|discuss\w*"
    r"|evolv\w*)"
)
"""What it does not do."""
REQUEST = r"(?:requests?|task|prompts?|instructions?|content|material|topics?|conversation)\b"
"""What it calls what it was asked."""
WITH_THAT = (
    r"(?:(?:you )?with (?:that|this|such|your request|rewriting|creating|writing)\b"
    r"|(?:that|this|it)(?: for you| one)?\s*(?:[.,;!]|$|because|as\b|since)"
    rf"|(?:with )?(?:that|this|your|the|such an?|these|those) (?:\w+ ){{0,2}}?{REQUEST}"
    r"|(?:explicit|harmful|sexual|violent|illegal|hateful|offensive) (?:content|material)\b"
    r"|(?:an? )?(?:\w+ ){0,3}(?:prompts?|instructions?|versions?|content) "
    r"(?:that|which|about|for|like|related|involving|based|of this|of that))"
)
"""What a model means by its task, where a person would name an exercise, a shop or a code."""
SORRY = (
    r"(?:(?:i'?m|i am|we'?re|we are|my) (?:\w+ )?(?:sorry|afraid|apologies)|i apologi[sz]e|sorry"
    r"|unfortunately|apologies|i (?:understand|appreciate|see)\b[^.?!]{0,80}\bbut)[,.:;!]?\s*"
    r"(?:but |that )?"
)
"""How it is sorry."""
SURE = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|great|alright|understood)[,.!:]*\s*"
)
"""How it agrees."""
NEW = (
    r"(?:re-?written|revised|evolved|modified|updated|improved|new(?:ly created)?|created"
    r"|(?:slightly |much )?more|harder|tougher|rarer|less common)"
)
"""What it calls its own work."""
WORK = r"(?:prompts?|versions?|instructions?|questions?|tasks?|problems?)"
"""What it has written."""
ITS_WORK = (
    rf"(?:(?:a|an|the|your|one|another|two|three|some|brand|brand-new) )*{NEW}"
    rf"(?:[ ,][\w-]+){{0,4}}? (?:prompts?\b(?! engineer)"
    rf"|version of (?:the|your|this) (?:\w+ )?{WORK}|{WORK}\s*(?::|\n|$))"
)
"""What it announces."""
THE_PROMPT = r"(?:the|this|your) (?:given |original |provided |rewritten |revised |evolved |new )"
"""The prompt that it was given, or that it wrote."""

BEGINS: dict[str, tuple[str, ...]] = {
    "the writer declined": (
        rf"(?:{SORRY}){{0,3}}i\s?{CANNOT}\s+{DO}\s+{WITH_THAT}",
        rf"{SORRY}(?:as an? (?:ai|language|large)\b|(?:i|we)\s?{CANNOT}\s+(?:assist|fulfil+|comply"
        rf"|rewrite|generate)\b|(?:that|this) (?:request|prompt|content)\b)",
        r"(?:i|we) (?:must|have to)(?: \w+ly)? (?:decline|refuse)\s*[.,;]",
        rf"(?:it|this) (?:is|would be) (?:not appropriate|inappropriate|unethical|not possible)"
        rf" for me to {DO}\s+{WITH_THAT}",
        r"(?:it|this) (?:is|goes|would be|would go) against my (?:guidelines|programming|polic)",
    ),
    "the writer talks of itself": (
        r"as an? (?:(?:ai|artificial intelligence|large|responsible|helpful|text-based) ?)+"
        r"(?:language )?(?:model|assistant|system|chatbot)?(?: (?:developed|trained|made) by \w+)?"
        r",?\s+(?:i\b(?! (?:want|need|have to|would like|am supposed))|my (?:purpose|goal|role)\b)",
        r"i(?: am|'m) (?:just |only )?an? (?:ai|large language|language) "
        r"(?:language )?(?:model|assistant|system|chatbot)\b[^?]*$",
    ),
    "the writer announces its work": (
        rf"(?:{SURE})?(?:here(?:'s| is| are)|below is|i(?:'ve| have) (?:made|written|created))"
        rf"[,:!]? {ITS_WORK}",
        rf"{SURE}(?:i(?:'ll| will| can|'d)|let me|let's) (?:(?:be|try|happy|glad|to|help|you) )*"
        r"(?:rewrite|evolve|make) (?:it|that|this|(?:the|this|your) prompt)\b",
        r"(?:let's|let me|i'll|i will|i have|i've) (?:rewrit\w+|evolve|make|made) "
        r"(?:the|this|your) (?:\w+ )?prompt\b",
        rf"(?:(?:the|my|your) )?{NEW} prompts?(?: (?:is|reads|could be|would be))?\s*:",
    ),
    "the writer talks of its task": (
        rf"{NEW} prompt\W*$",
        rf"(?:in )?{THE_PROMPT}prompts?,? (?:i|is|was|are|has|asks?|already|cannot|can|could"
        r"|does|seems?|requires?|by|adds?|introduces?|now)\b[^?]*$",
        r"(?:the|this|your) prompt (?:is already|already|is too|cannot be|can't be|asks)\b[^?]*$",
        r"to (?:rewrite|make|evolve|complicate|deepen) (?:the|this|your) (?:\w+ )?prompt\b[^.?!]*"
        r"\b(?:we|i)\b",
        r"(?:please|could you) (?:provide|share|send|give)(?: me)?(?: with)? (?:the|a|your) "
        r"(?:\w+ )?prompt(?:\s*[.?!]| (?:that |which )?you(?:'d| would| want))",
        r"[^.?!]{0,40}\b(?:you (?:have not|haven't|did not|didn't) (?:provide|share|include)d?"
        r"|i (?:do not|don't|cannot|can't) (?:see|find)) (?:a|any|the|your) (?:\w+ )?prompt\b",
    ),
}
"""How a text begins that is no prompt: patterns by what the flaw says."""

HOLDS: dict[str, tuple[str, ...]] = {
    "the writer repeats its instructions": (
        r"#\s?(?:the )?(?:given|original|re-?written|new|created|evolved|your|final) prompts?\s?#",
    ),
    "the writer explains its work": (
        r"(?:^|\n)[\W_]{0,9}(?:note|explanation|rationale|changes?(?: made)?)?[\W_]{0,9}"
        rf"{THE_PROMPT}prompt (?:adds|introduces|requires|increases|is|now|asks|includes|makes"
        r"|challenges|incorporates|keeps|retains|maintains|builds)\b",
    ),
}
"""What only such a text holds, wherever it stands."""

LEAD = re.compile(r"^[\s#*>_`-]+")
"""Markup before the first word; a quotation mark is none, for it tells that somebody is quoted."""
BEGINNING = 1000
"""Characters of which the beginning is judged, so that no text is slow."""
PLAIN = str.maketrans("\u2019\u2018", "''")
"""One apostrophe."""
_BEGINS = {flaw: re.compile("|".join(found), re.IGNORECASE) for flaw, found in BEGINS.items()}
_HOLDS = {flaw: re.compile("|".join(found), re.IGNORECASE) for flaw, found in HOLDS.items()}


class Refusal:
    """Refuses a child that is no prompt but the writer's word about itself or its task."""

    name = "refusal"

    def __call__(self, children: Sequence[Child], around: Around) -> list[str | None]:
        """For each child why it is refused, or None."""
        return [refused(asked(child.messages)) for child in children]


def refused(text: str) -> str | None:
    """What a text is instead of a prompt, or None.

    Examples:
        >>> refused("I'm sorry, but I can't assist with that request.")
        'the writer declined'
        >>> refused("Write a scene in which a robot says: I can't assist with that request.")
    """
    plain = LEAD.sub("", text.translate(PLAIN))[:BEGINNING]
    begins = (flaw for flaw, pattern in _BEGINS.items() if pattern.match(plain))
    holds = (flaw for flaw, pattern in _HOLDS.items() if pattern.search(text))
    return next(begins, None) or next(holds, None)
