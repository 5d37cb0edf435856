"""The parts of an HTML page that needs nothing else: text, tables, pictures, drawings, and the page round them.

Its templates, styles and scripts are files in ``templates/``.
"""

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template
from typing import Any

import numpy as np

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
