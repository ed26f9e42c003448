"""What a headless Chromium makes of the pages: paper, and the README's pictures."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
NAMES += ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "msedge"]
# a picture's name -> its page, and where on it the picture begins, in pixels of a page 1280 wide
PICTURES = {
    "front": ("index.html", 0),
    "table": ("tables/lapx_mpii.html", 0),
    "attribution": ("attribution.html", 4890),
}
SIDES = 1280, 800


def chromium(*arguments: str) -> None:
    """Run Chromium, or one of its kin, without a window; ends with status 2 where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        print(
            "no chromium here (on Debian: apt-get install chromium), and no Chrome or Edge", file=sys.stderr
        )
        sys.exit(2)
    quiet = ["--headless", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    if os.geteuid() == 0:
        quiet.append("--no-sandbox")  # which root may not use
    with tempfile.TemporaryDirectory() as profile:
        command = [found, *quiet, f"--user-data-dir={profile}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        sys.exit(1)


def pdf(page: Path, out: Path) -> None:
    """Print a page as a browser would: prose, figures, tables; code stays folded, and off the paper."""
    out.parent.mkdir(parents=True, exist_ok=True)
    chromium("--no-pdf-header-footer", f"--print-to-pdf={out.resolve()}", page.resolve().as_uri())


def screenshots(html: Path, folder: Path) -> None:
    """Write the README's pictures of the pages under `html` to `folder`, as WebP of under 150 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = SIDES
    for name, (page, top) in PICTURES.items():
        with tempfile.TemporaryDirectory() as temporary:
            png = Path(temporary) / "page.png"
            size = f"--window-size={width},{top + height}"
            chromium(size, f"--screenshot={png}", (html / page).resolve().as_uri())
            picture = cv2.imread(str(png))[top:]
        cv2.imwrite(str(folder / f"{name}.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, 80])
