"""A headless Chromium for the tests of this folder."""

import shutil

import pytest

from page_helpers import CHROMIUM_FLAGS
from posebook.report import browser


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, browser.BROWSERS)), None)
    if executable is None:
        pytest.skip("no chromium here (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield window
        window.close()
