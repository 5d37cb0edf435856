"""Pages: self-contained, small, legible, without errors."""

import json
from html.parser import HTMLParser

import pytest

from tests.report.pages import open_page, set_viewport


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.urls, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "style")]


def test_a_page_is_self_contained_and_small(runs):
    for page in (runs.first / "report.html", runs.dense / "report.html", runs.comparison):
        text, parser = page.read_text(encoding="utf-8"), _Parser()
        parser.feed(text)
        assert all(url.startswith(("#", "data:image/webp;base64,", "data:,")) for url in parser.urls)
        assert "default-src 'none'; script-src 'sha256-" in text and "unsafe" not in text.split("<style>")[0]
        assert text.startswith('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
        # The only scripts are the page's own and its data.
        assert parser.tags.count("script") == text.count("<script") <= 5 and len(text) < 5_000_000


def test_a_page_opens_without_errors_or_requests(browser, runs):
    # Of earlier tests, which read the pixels of canvases: Chromium advises against that.
    for log in ("performance", "browser"):
        browser.get_log(log)
    pages = [runs.first / "report.html", runs.dense / "report.html", runs.comparison]
    for page in pages:
        open_page(browser, page)
        assert browser.execute_script("return document.querySelectorAll('.chart canvas').length") == 2
        assert browser.get_log("browser") == []
        # Neither a class name nor a directory name is executed.
        assert browser.execute_script("return typeof harmed") == "undefined"
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith("data:")] == [page.as_uri() for page in pages]


CONTRAST = """
const parse = text => {
  const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = text.startsWith("color(") ? 255 : 1;
  return [...numbers.slice(0, 3).map(part => part * scale), numbers.length > 3 ? numbers[3] : 1];
};
const over = (top, below) => top.slice(0, 3).map((part, i) => part * top[3] + below[i] * (1 - top[3]));
const behind = element => {
  if (!element) return [255, 255, 255];
  const colour = parse(getComputedStyle(element).backgroundColor);
  return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
};
const luminance = rgb => rgb.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92
  : ((part + 0.055) / 1.055) ** 2.4).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
document.querySelectorAll("details").forEach(part => part.open = true);
const contrasts = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const style = getComputedStyle(element);
  if (!own || element.matches("script, title, svg *, option") || element.checkVisibility?.() === false) continue;
  const below = behind(element), colour = parse(style.color);
  if (colour[3] === 0) continue;
  const [high, low] = [luminance(over(colour, below)), luminance(below)].sort((a, b) => b - a);
  const name = `${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`;
  contrasts.push([(high + 0.05) / (low + 0.05), name]);
}
return contrasts;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_their_width_and_have_contrast(browser, runs, width, scheme):
    """All text has the contrast of WCAG 2.2, 1.4.3: 4.5."""
    for page in (runs.first / "report.html", runs.comparison):
        open_page(browser, page)
        set_viewport(browser, width, scheme)
        contrasts = browser.execute_script(CONTRAST)
        assert len(contrasts) > 60 and min(contrasts)[0] >= 4.5, min(contrasts)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
