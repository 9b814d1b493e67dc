"""What a page is made of, and the claim that nothing in it can do harm."""

import re
from html.parser import HTMLParser

SCRIPTS = 3
"""The specifications (data), the library and the page's own script."""


TAGS = """
html head meta link title style body header p h1 span ul li i b em code a nav main section h2 h3 div
table thead tr th tbody td small br wbr sub details summary figure figcaption svg rect circle ins
del noscript footer script progress
"""
ALLOWED = set(TAGS.split())
"""The elements that the templates have; a text of a run must not add another."""


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the texts outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.texts.append(data)

    def comments(self) -> list[str]:
        return [tag for tag, _ in self.found if tag == "!--"]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.found)


def assert_harmless(text: str) -> Elements:
    """The page fetches nothing and holds no element or handler that a run smuggled in."""
    elements = Elements(text)
    assert elements.count("script") == SCRIPTS and elements.count("style") == 1
    assert {tag for tag, _ in elements.found} <= ALLOWED
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            value = attributes.get(name) or "#"
            own_page = re.fullmatch(r"[\w./%-]+/report\.html", value)
            assert value.startswith("#") or value == "data:," or own_page, (tag, attributes)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@import" not in style and "url(" not in style and "@font-face" not in style
    return elements
