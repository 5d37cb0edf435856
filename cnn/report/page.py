"""The parts of a self-contained HTML page: text, tables, images, and the page around them.

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

WEBP_SIDE = 16_383
"""Pixels that a side of a WebP image may have."""

UPLOT = "1.6.32"
"""Version of the chart library."""


def escaped(value: Any) -> str:
    """Returns any value as HTML text, with markup escaped."""
    return html.escape(str(value))


def percent(share: float, digits: int = 2) -> str:
    """Returns a share as percent, without a line break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", words: bool = False) -> str:
    """Returns an HTML table.

    Args:
      head: column heads, HTML; may be empty.
      rows: cells, HTML; the first cell of each row is its head.
      caption: HTML.
      words: align cells left, as text, and not right, as numbers.
    """
    kind = ' class="text"' if words else ""
    heads = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    heads = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f"<table>{title}{heads}<tbody>{''.join(lines)}</tbody></table>"


def webp(pixels: np.ndarray, **options: Any) -> bytes:
    """Returns pixels, uint8 [H, W] or [H, W, 3], as a WebP file; options are those of Pillow."""
    from PIL import Image

    file = io.BytesIO()
    # WebP has only colour images; grey ones take no more bytes in colour.
    Image.fromarray(pixels).convert("RGB").save(file, "WEBP", **options)
    return file.getvalue()


def tiled(images_NxHxWxC: np.ndarray, columns: int) -> np.ndarray:
    """Returns images as one sheet with some in a row, black after the last, uint8 [H', W'] or [H', W', 3]."""
    count, height, width, channels = images_NxHxWxC.shape
    padded = np.pad(images_NxHxWxC, [(0, -count % columns), (0, 0), (0, 0), (0, 0)])
    rows = padded.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, *[channels] * (channels > 1))


def picture_url(content: bytes) -> str:
    """Returns a data URL of a WebP file."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def read_template(name: str) -> str:
    """Returns the text of a file in ``templates/``."""
    return resources.files("cnn.report").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")


def fill_template(template: str, /, **values: Any) -> str:
    """Returns a template with its $names replaced by HTML."""
    return Template(read_template(template)).substitute(values)


def render_page(title: str, body: str, data: dict[str, Any], *scripts: str) -> str:
    """Returns the page, whose policy allows only these styles and scripts, by their digests, and loads nothing.

    Args:
      title: window title, text.
      body: HTML.
      data: the scripts' data, ready for JSON.
      scripts: files in ``templates/``, run after uPlot.
    """
    library = f"/*\n{read_template('uplot/LICENSE')}*/\n{read_template('uplot/uPlot.iife.min.js')}"
    sources = [library, *map(read_template, scripts)]
    style = read_template("uplot/uPlot.min.css") + read_template("page.css")

    def digests(parts: Sequence[str]) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in parts
        )

    policy = (
        f"default-src 'none'; script-src {digests(sources)}; style-src {digests([style])}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # A tag would end the script element, so the JSON must not contain any.
    safe_json = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    return fill_template(
        "page.html",
        policy=policy,
        title=escaped(title),
        style=style,
        body=body,
        data=safe_json,
        scripts="\n".join(f"<script>{code}</script>" for code in sources),
    )
