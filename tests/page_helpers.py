"""Helpers for tests that open pages in a browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab on the notebooks of `folder`, with the token "small"; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(folder / "own" / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{kind}_DIR": str(folder / "own" / kind) for kind in ("SETTINGS", "WORKSPACES")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=small", "--LabApp.news_url="]
    server = subprocess.Popen(
        [*command, f"--ServerApp.root_dir={folder}"],
        env=os.environ | own | {"JUPYTER_PREFER_ENV_PATH": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "server.log").open("w"),
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=small")
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def run_all_cells(tab) -> None:
    """Run all cells of the notebook that is open in JupyterLab, and wait until they have finished."""
    tab.wait_for_selector(".jp-Notebook .jp-CodeCell")
    tab.wait_for_selector("#jp-main-statusbar :text('| Idle')")
    tab.click(".lm-MenuBar-itemLabel:text-is('Run')")
    tab.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    tab.wait_for_function(
        r"""[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
            .every(prompt => /^\[\d+\]:$/.test(prompt.textContent.trim()))"""
    )
