"""Helpers for tests that open pages in a browser."""

import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup

from posebook.report import browser, html

CHROMIUM = next(filter(None, map(shutil.which, browser.BROWSERS)), None)
CHROMIUM_FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()


class Messages:
    """Console messages, errors and requests of a tab, from its creation on."""

    def __init__(self, tab):
        self.console: list[str] = []
        self.requests: list[str] = []
        tab.on(
            "console", lambda message: self.console.append(message.text) if is_from_page(message) else None
        )
        tab.on("pageerror", lambda error: self.console.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))

    def _add(self, message) -> None:
        if is_from_page(message):
            self.console.append(message.text)

    def foreign_requests(self, root: Path, page: Path) -> list[str]:
        """Requested addresses other than the page itself, data in the page, and the 3D library beside it."""
        allowed = {page.as_uri(), (root / html.LIBRARY).as_uri()}
        return [url for url in self.requests if url not in allowed and not url.startswith("data:")]


def is_from_page(message) -> bool:
    """Whether a console message comes from our page, not from plotly or the graphics driver below it."""
    return not message.location["url"].endswith(html.LIBRARY) and "WebGL" not in message.text


def broken_links(root: Path, links: list[str], page: Path) -> list[str]:
    """Links of a page that lead to no page under `root`, or to no element of that page."""
    broken = []
    for link in links:
        path, _, fragment = link.partition("#")
        if "://" in path or path.startswith(("mailto:", "data:")):
            continue
        target = (page.parent / unquote(path)).resolve() if path else page
        ids = element_ids(target) if target.is_relative_to(root) and target.exists() else None
        if ids is None or (fragment and unquote(fragment) not in ids):
            broken.append(f"{page.name}: {link}")
    return broken


@cache
def element_ids(page: Path) -> set[str]:
    """The ids of all elements of a page."""
    return {element["id"] for element in BeautifulSoup(page.read_text(), "html.parser").select("[id]")}
