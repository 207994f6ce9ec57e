"""Pieces of an HTML report: escaped text, tables, figures as inline SVG that follow the page's theme, the document."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from experiments import plots
from experiments.html_style import INKS, SCRIPT, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cell", "Page", "bullets", "facts", "paragraph", "slug"]

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
SIZE = (4.6, 3.3)  # inches of a panel: at a phone's width its text is still some 10 px high
NUMBER = re.compile(r"-?\d+\.\d{3,}")
INK = re.compile(r"#[0-9a-f]{6}\b")
# Nothing is fetched, whatever a name in the results says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Cell:
    """What a table shows and the number behind it, in full; `low`, `high`: of an interval."""

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    kind: str = ""

    def attributes(self) -> str:
        """The numbers as data-value, data-low and data-high, where they are finite; `kind` as the class."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        said = [f' data-{k}="{v!r}"' for k, v in numbers.items() if v is not None and math.isfinite(v)]
        return "".join([f' class="{self.kind}"' * bool(self.kind), *said])


def slug(text: str) -> str:
    """A name that can stand in an id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "x"


def paragraph(text: str) -> str:
    """A paragraph of plain text, "" for none."""
    return f"<p>{escape(text)}</p>" if text else ""


def bullets(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they are; those without anything are left out."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs.items() if v) + "</dl>"


@dataclass
class Page:
    """Collects the parts of one document; every id is given out once."""

    title: str
    parts: list[str] = field(default_factory=list)
    head: str = ""
    _ids: set[str] = field(default_factory=set)

    def add(self, *parts: str) -> None:
        """Append pieces of HTML."""
        self.parts += [part for part in parts if part]

    def id(self, name: str) -> str:
        """An id that nothing else on the page has."""
        base = one = slug(name)
        count = 1
        while one in self._ids:
            count += 1
            one = f"{base}-{count}"
        self._ids.add(one)
        return one

    def heading(self, level: int, text: str) -> str:
        """Add a heading; returns its id."""
        name = self.id(text)
        self.add(f'<h{level} id="{name}">{escape(text)}</h{level}>')
        return name

    def table(self, caption: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Add a table that scrolls in a box of its own; the first column names the rows, the first row the columns."""
        if not rows:
            return
        name = self.id("table " + caption[:40])
        columns = list(rows[0])
        # An interval has no order.
        plain = {key for key in columns if any(row[key].low is not None and row[key].value is None for row in rows)}
        lines = [
            f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">',
            f'<table class="sortable"><caption id="{name}"><span>{escape(caption)}</span></caption>',
            "<thead><tr>"
            + "".join(
                f'<th scope="col"{" data-plain" * (key in plain)}{_left(rows, key)}>{escape(key)}</th>'
                for key in columns
            )
            + "</tr></thead><tbody>",
        ]
        for row in rows:
            cells = [row[key] for key in columns]
            first = f'<th scope="row"{cells[0].attributes()}>{escape(cells[0].text)}</th>'
            rest = "".join(f"<td{cell.attributes()}>{escape(cell.text)}</td>" for cell in cells[1:])
            lines.append(f"<tr>{first}{rest}</tr>")
        self.add("\n".join([*lines, "</tbody></table></div>"]))

    def figure(self, figure: Figure, name: str, about: str) -> str:
        """A figure of one panel as HTML, with its legend as text; nothing is added to the page.

        Args:
            name: what it shows, its caption and title; about: what is to be seen in it, for who cannot see it.
        """
        said = figure.get_suptitle()
        keys = _take_legends(figure)
        figure.suptitle("")
        for ax in figure.axes:
            ax.set_title("")
        figure.set_size_inches(*SIZE)
        own = self.id("figure " + name)
        svg = _svg(figure, own, name, about)
        caption = f"<b>{escape(name)}</b>" + (f"; {escape(said)}" if said else "")
        key = f'<ul class="key">{"".join(keys)}</ul>' if keys else ""
        return f"<figure>{svg}<figcaption>{caption}{key}</figcaption></figure>"

    def command(self, text: str) -> None:
        """Add a block of text to copy."""
        self.add(f'<div class="command"><pre><code>{escape(text)}</code></pre></div>')

    def html(self, footer: str) -> str:
        """The whole document."""
        return "\n".join([
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            f"<header>{self.head}</header>\n<main>", *self.parts,
            f"</main>\n<footer><p>{escape(footer)}</p></footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ])  # fmt: skip


def _left(rows: Sequence[Mapping[str, Cell]], key: str) -> str:
    """The heading of words stands over them, to the left."""
    return ' class="left"' if any(row[key].kind for row in rows) else ""


def _ink(text: str) -> str:
    """Colours that follow the theme in place of those drawn."""
    return INK.sub(lambda found: f"var({INKS[found[0]][0]})" if found[0] in INKS else found[0], text.lower())


def _take_legends(figure: Figure) -> list[str]:
    """Remove the legends; their entries as list items, each once."""
    found: list[Any] = list(figure.legends)
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is not None:
            found.append(legend)
    items = []
    for legend in found:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            items.append(f"<li>{_swatch(handle)}<span>{escape(text.get_text())}</span></li>")
        legend.remove()
    return list(dict.fromkeys(items))


def _swatch(line: Any) -> str:
    """A legend's line; the text beside it says what it is, so it is hidden from who listens."""
    from matplotlib.colors import to_hex

    _, dashes = line._dash_pattern
    dash = f' stroke-dasharray="{" ".join(f"{length:.1f}" for length in dashes)}"' if dashes else ""
    color = _ink(to_hex(line.get_color()))
    return (
        '<svg viewBox="0 0 30 10" aria-hidden="true"><title>line</title>'
        f'<path d="M0 5H30" fill="none" style="stroke:{color};stroke-width:2.2"{dash}/></svg>'
    )


def _svg(figure: Figure, prefix: str, title: str, about: str) -> str:
    """The figure as an inline SVG element: ids of its own, no metadata, colours of the theme; the same each time."""
    import matplotlib

    plots.lay_out(figure, 72)  # points, which are an SVG's pixels here
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "orbs", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element would be the whole page's; metadata names the library that drew.
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    used = {
        found
        for one in root.iter()
        for found in re.findall(r"#([\w-]+)", f"{one.get(LINK, '')} {one.get('clip-path', '')}")
    }
    for one in root.iter():
        one.tag = one.tag.removeprefix(SVG)
        name = one.attrib.pop("id", None)
        if name in used:
            one.set("id", f"{prefix}-{name}")
        if LINK in one.attrib:
            one.set("href", f"#{prefix}-{one.attrib.pop(LINK)[1:]}")
        if "clip-path" in one.attrib:
            one.set("clip-path", one.attrib["clip-path"].replace("#", f"#{prefix}-"))
        if "style" in one.attrib:
            style = re.sub(r"font-family:[^;]*;?", "", one.attrib["style"])
            one.set("style", _ink(style).replace("; ", ";").replace(": ", ":"))
        for key in ("d", "x", "y", "points", "transform"):
            if key in one.attrib:
                one.set(key, _short(one.attrib[key]))
        one.tail = None
        if one.tag != "text" and one.tag != "tspan":
            one.text = None
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    for place, (tag, text) in enumerate((("title", title), ("desc", about))):
        label = ET.Element(tag, {"id": f"{prefix}-{tag}"})
        label.text = text
        root.insert(place, label)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    return ET.tostring(root, encoding="unicode")


def _short(text: str) -> str:
    """Two digits are finer than a screen."""
    return NUMBER.sub(lambda found: f"{float(found[0]):.2f}", " ".join(text.split()))
