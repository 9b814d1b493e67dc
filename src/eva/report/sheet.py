"""What every page of the report is made of: one HTML text that needs nothing but a browser.

A page holds its charts, its style and its scripts, and a policy that lets nothing else run and
nothing be fetched. A page that is watched may ask its own server for its next state, and no other.
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources

import jinja2
import vl_convert
from markupsafe import Markup
from pydantic import JsonValue

from eva.report import charts, marks

SPELLED = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}
"""Small numbers at the beginning of a sentence."""

_ENDS_SCRIPT = re.compile(r"</script|<script|<!--", re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    id: str
    """Its key among the specifications."""
    title: str
    """What is drawn."""
    note: str = ""
    """How to read it."""


class Charts:
    """The specifications of the page, collected while the sections are made."""

    def __init__(self) -> None:
        self.specs: dict[str, charts.Spec] = {}

    def figure(self, spec: charts.Spec, title: str, note: str = "") -> Figure:
        """Keep a specification; the figure that shows it."""
        name = f"chart-{len(self.specs)}"
        self.specs[name] = {key: _inert(part) for key, part in spec.items()}
        return Figure(name, title, note)


def sheet(
    template: str, fields: Mapping[str, object], drawn: Charts, *, watched: bool = False
) -> str:
    """One self-contained HTML text.

    Args:
        template: The file of the template in this package.
        fields: What it needs.
        drawn: The charts.
        watched: Whether `eva report --watch` serves it, so that it asks for its next state.
    """
    names = ["page.js", "live.js"] if watched else ["page.js"]
    scripts = [Markup(_bundle()), *(Markup(_part(name)) for name in names)]
    return (
        _house()
        .get_template(template)
        .render(
            **fields,
            css=Markup(_part("page.css")),
            specs=_json(drawn.specs),
            scripts=scripts,
            allowed=" ".join(_digest(script) for script in scripts),
            watched=watched,
        )
    )


def _inert(part: JsonValue) -> JsonValue:
    """A part of a specification; Vega cannot read texts with line separators, nor should people."""
    if isinstance(part, dict):
        return {key: _inert(inner) for key, inner in part.items()}
    if isinstance(part, list):
        return [_inert(inner) for inner in part]
    return marks.inert(part) if isinstance(part, str) else part


def warm() -> None:
    """Prepare what every page needs, which takes a second or two."""
    _bundle()
    _house()


@functools.cache
def _house() -> jinja2.Environment:
    house = jinja2.Environment(
        loader=jinja2.PackageLoader("eva.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "shown": marks.shown,
        "inert": marks.inert,
        "clipped": marks.clipped,
        "number": marks.number,
        "signed": marks.signed,
        "spelled": lambda count: SPELLED.get(count, str(count)),
    }
    house.filters |= filters
    house.globals |= {"colour": charts.colour, "fates": charts.FATES}
    return house


def _part(name: str) -> str:
    return resources.files("eva.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=charts.version()
    )
    assert not _ENDS_SCRIPT.search(script), "the bundle would end its own script element"
    return script.replace("\r\n", "\n")


def _digest(script: str) -> str:
    """How a content security policy names a script that may run."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def _json(value: object) -> Markup:
    """JSON that cannot end its script element, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
