"""The parts of an HTML page that needs nothing else: text, tables, pictures, drawings, and the page round them.

Its templates, styles and scripts are files in ``templates/``.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from cnn.look.evaluation import Reliability

UPLOT = "1.6.32"
"""Version of the library that draws the curves."""


def escaped(value: Any) -> str:
    """Returns any value as HTML that is nothing but text."""
    return html.escape(str(value))


def percent(share: float, digits: int = 2) -> str:
    """Returns a share as percent, in one word."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", words: bool = False) -> str:
    """Returns a table.

    Args:
      head: of the columns, HTML; none if empty.
      rows: cells, HTML; the first of each row is its head.
      caption: HTML.
      words: cells stand left; numbers stand right.
    """
    kind = ' class="text"' if words else ""
    heads = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    above = f"<caption>{caption}</caption>" if caption else ""
    heads = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f"<table>{above}{heads}<tbody>{''.join(lines)}</tbody></table>"


def reliability_drawing(bins: Mapping[str, Reliability]) -> str:
    """Returns accuracy by confidence, a circle a bin, as SVG, of one or two networks by their names."""
    left, top, side = 46, 14, 290
    parts = [f'<rect class="axis" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = left + tick * side, top + side - tick * side
        parts += [
            f'<path class="axis" d="M{x:.0f} {top}v{side}M{left} {y:.0f}h{side}"/>',
            f'<text x="{x:.0f}" y="{top + side + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>',
        ]
    parts += [
        f'<path class="ideal" d="M{left} {top + side}L{left + side} {top}"/>',
        f'<text x="{left + side / 2}" y="{top + side + 34}" text-anchor="middle">confidence</text>',
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">accuracy</text>',
    ]
    for number, (title, found) in enumerate(bins.items()):
        y = top + 18 + 18 * number
        parts.append(f'<circle class="bins{number}" cx="{left + 16}" cy="{y}" r="5"/>')
        parts.append(f'<text x="{left + 28}" y="{y + 4}">{escaped(title)}</text>')
        for confidence, accuracy, share in zip(found.confidence, found.accuracy, found.share, strict=True):
            if share > 0:
                radius = 3 + 11 * share**0.5
                where = f'cx="{left + confidence * side:.1f}" cy="{top + side - accuracy * side:.1f}" r="{radius:.1f}"'
                said = f"{escaped(title)}: {percent(confidence, 1)} sure, {percent(accuracy, 1)} right, "
                said += f"{percent(share, 1)} of the images"
                parts.append(f'<circle class="bins{number}" {where}><title>{said}</title></circle>')
    size = f'viewBox="0 0 {left + side + 20} {top + side + 44}"'
    said = "Reliability diagram: how often the network is right, by how sure it is"
    return f'<svg class="reliability" {size} role="img" aria-label="{said}">{"".join(parts)}</svg>'


def interval_drawing(difference: float, ends: tuple[float, float], reach: float) -> str:
    """Returns a difference with its interval, as SVG on a scale from ``-reach`` to ``reach``."""
    low, high = ends
    low_x, x, high_x = (100 + 92 * value / reach for value in (low, difference, high))
    said = f"{difference:+.2f} points, {low:+.2f} to {high:+.2f}"
    return (
        f'<svg class="difference" viewBox="0 0 200 22" role="img" aria-label="{said}"><title>{said}</title>'
        f'<path class="axis" d="M4 11H196"/><path class="zero" d="M100 0V22"/>'
        f'<path class="interval" d="M{low_x:.1f} 11H{high_x:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="11" r="5"/></svg>'
    )


def webp(pixels: np.ndarray, **options: Any) -> bytes:
    """Returns pixels, uint8 [H, W] or [H, W, 3], as a WebP file; Pillow's options say how good."""
    from PIL import Image

    file = io.BytesIO()
    # WebP knows only colours; of greys it makes no more bytes.
    Image.fromarray(pixels).convert("RGB").save(file, "WEBP", **options)
    return file.getvalue()


def picture_url(content: bytes) -> str:
    """Returns the URL of a WebP file that the page holds itself."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _asset(name: str) -> str:
    return resources.files("cnn.report").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")


def fill(template: str, /, **values: Any) -> str:
    """Returns a template with its $names replaced by HTML."""
    return Template(_asset(template)).substitute(values)


def whole_page(title: str, body: str, data: dict[str, Any], *scripts: str) -> str:
    """Returns the whole page, in which only these styles and scripts are used, by their digests, and nothing is loaded.

    Args:
      title: of the window, text.
      body: HTML.
      data: what the scripts read, ready for JSON.
      scripts: files of ``templates/``; uPlot comes before them.
    """
    library = f"/*\n{_asset('uplot/LICENSE')}*/\n{_asset('uplot/uPlot.iife.min.js')}"
    codes = [library, *map(_asset, scripts)]
    style = _asset("uplot/uPlot.min.css") + _asset("page.css")

    def digests(parts: Sequence[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    policy = (
        f"default-src 'none'; script-src {digests(codes)}; style-src {digests([style])}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # JSON in a script element ends where a tag would begin, so none may.
    plain = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    return fill(
        "page.html",
        policy=policy,
        title=escaped(title),
        style=style,
        body=body,
        data=plain,
        scripts="\n".join(f"<script>{code}</script>" for code in codes),
    )
