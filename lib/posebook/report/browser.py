"""Print pages to PDF, and take the screenshots of README.md and docs/, with a headless Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
BROWSERS += ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "msedge"]
SCREENSHOTS = {"front": "index.html", "attribution": "attribution.html"}  # name of the image -> its page
WIDTH, HEIGHT = 1280, 800  # of a screenshot, in pixels


def chromium(*arguments: str) -> None:
    """Run Chromium, Chrome or Edge without a window; exit with status 2 if none is installed."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        print("no Chromium, Chrome or Edge found (on Debian: apt-get install chromium)", file=sys.stderr)
        sys.exit(2)
    options = ["--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # the sandbox does not work for root
    with tempfile.TemporaryDirectory() as profile:
        command = [executable, *options, f"--user-data-dir={profile}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(1)


def pdf(page: Path, out: Path) -> None:
    """Print a page to a PDF with prose, plots and tables; folded code is omitted."""
    out.parent.mkdir(parents=True, exist_ok=True)
    chromium("--no-pdf-header-footer", f"--print-to-pdf={out.resolve()}", page.resolve().as_uri())


def screenshots(html: Path, folder: Path) -> None:
    """Write the first screens of the pages under `html` to `folder`, as WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in SCREENSHOTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            png = Path(temporary) / "page.png"
            chromium(
                f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={png}", (html / page).resolve().as_uri()
            )
            image = cv2.imread(str(png))
        assert image is not None
        # Quality 80 keeps each file under 150 kB.
        cv2.imwrite(str(folder / f"{name}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 80])
