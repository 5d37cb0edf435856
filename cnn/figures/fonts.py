"""Fonts and lengths of the texts in a figure, which may be in any language."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from cnn.text import shortened

# File names of fonts with Hangul that match the Latin fonts; others are used if these are missing.
_PLAIN_FONTS = ("NotoSansCJK-Regular", "NotoSansKR-Regular", "NanumGothic", "malgun", "AppleSDGothicNeo", "UnDotum")


def font_paths() -> Iterator[str]:
    """Returns the paths of the installed fonts, the plain ones with Hangul first."""
    # matplotlib caches a list of fonts, which is fast to read, but lacks fonts that were installed later.
    for find in (lambda: {font.fname for font in font_manager.fontManager.ttflist}, font_manager.findSystemFonts):
        yield from sorted(find(), key=lambda path: (Path(path).stem not in _PLAIN_FONTS, path))


def _drawn(path: str, characters: str) -> str:
    """Returns the characters for which a font has glyphs, each its own."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # The file is missing, or FreeType cannot read it.
        return ""
    glyphs = {character: font.get_char_index(ord(character)) for character in characters}
    drawn = [character for character, glyph in glyphs.items() if glyph]
    # A fallback font has the same box for all of them.
    return "".join(drawn) if len({glyphs[character] for character in drawn}) == len(drawn) else ""


def draws(path: str, characters: str) -> bool:
    """Returns whether a font has a separate glyph for each of the characters."""
    return set(_drawn(path, characters)) == set(characters)


@functools.cache
def _fallbacks(characters: str) -> tuple[list[str], str]:
    """Returns font families that draw what the default font lacks, and the characters that no installed font has."""
    default = font_manager.findfont("DejaVu Sans")
    missing, families = "".join(sorted(set(characters) - set(_drawn(default, characters)))), []
    for path in font_paths() if missing else ():
        if drawn := "LastResort" not in path and _drawn(path, missing):
            if all(font.fname != path for font in font_manager.fontManager.ttflist):
                font_manager.fontManager.addfont(path)
            families.append(FT2Font(path).family_name)
            missing = "".join(character for character in missing if character not in drawn)
        if not missing:
            break
    return families, missing


def _characters(texts: Sequence[str]) -> str:
    return "".join(sorted({character for text in texts for character in text if character.isprintable()}))


def labels(names: Sequence[str], limit: int = 24) -> list[str]:
    """Returns the names of classes as a figure shows them: shortened, or by label where no font has their characters.

    Args:
      names: by label.
      limit: columns of a name.
    """
    undrawn = set(_fallbacks(_characters(names))[1])
    return [f"class {label}" if undrawn & set(name) else shortened(name, limit) for label, name in enumerate(names)]


def use_fallbacks(figure: Figure) -> None:
    """Lets a figure's texts use other installed fonts for the characters that the default font lacks."""
    # Those of ticks are made when they are asked for.
    ticks = [text for axes in figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    found: list[Any] = [*ticks, *figure.findobj(Text)]
    texts = [text for text in found if text.get_text() and not text.get_fontproperties().get_file()]
    families = _fallbacks(_characters([text.get_text() for text in texts]))[0]
    for text in texts if families else ():
        text.set_fontfamily(["sans-serif", *families])
