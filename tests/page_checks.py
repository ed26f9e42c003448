"""What a page must not do; every check returns the faults that it finds."""

import re

from bs4 import BeautifulSoup

from posebook import models
from posebook.lifting.models import LIFTERS

MATPLOTLIB_REPR = r"\[?<(?:Axes|Figure|matplotlib)|\[Text\("
PYTHON_REPR = "|".join(
    (
        MATPLOTLIB_REPR,
        r"\b(?:array|tensor|PosixPath|np\.\w+|Timestamp)\(|\bdtype[=:]",
        r"<(?:function|bound method|class '|generator|posebook\.|pandas\.|torch\.|IPython\.)",
        r"\{\s*(?:'[^'\n]*'|\"[^\"\n]*\"|True|False|None|[\d.]+|\([^)\n]*\))\s*: [^{}]*\}",  # a dict
        r"\bobject at 0x[0-9a-f]+",
    )
)

# Elements beside which something is cut off, or that leave the page, though nothing there can be scrolled.
CUT_OFF = """(() => {
    const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const insideScroller = (element) => {
        for (let parent = element.parentElement; parent; parent = parent.parentElement) {
            if (![document.body, document.documentElement].includes(parent) && scrolls(parent)) return true;
        }
        return false;
    };
    const name = (element) => `${element.tagName.toLowerCase()}: ${element.textContent.trim().slice(0, 40)}`;
    const right = document.documentElement.clientWidth + 1;
    return [...document.querySelectorAll("main, main *:not(svg *)")].filter((element) => {
        const style = getComputedStyle(element), box = element.getBoundingClientRect();
        if (!box.width || style.clipPath !== "none") return false; // invisible, or for screen readers only
        const cuts = ["hidden", "clip"].includes(style.overflowX) && !(element instanceof SVGElement);
        const cut = cuts && element.scrollWidth > element.clientWidth + 1;
        return cut || (box.right > right && !insideScroller(element));
    }).map(name);
})()"""

WIDE_TABLES = """[...document.querySelectorAll("main .outputs .scroll, main .prose .scroll")]
    .filter((box) => box.scrollWidth > box.clientWidth + 1)
    .map((box) => `${box.ariaLabel}: ${box.scrollWidth} px in ${box.clientWidth} px`)"""

# Plots, tables and images of which at least 80 px, or all, are on the first screen.
ANSWERS = """[...document.querySelectorAll("main :is(figure, img, svg, .outputs table)")].filter((found) => {
    const box = found.getBoundingClientRect();
    return box.width > 40 && box.height > 15 && box.top + Math.min(box.height, 80) <= innerHeight;
}).length"""


def cut_off(tab) -> list[str]:
    """Content that is cut off at the right, or reaches beyond the page, and cannot be scrolled to."""
    return tab.evaluate(CUT_OFF)


def wide_tables(tab) -> list[str]:
    """Tables that are wider than their box."""
    return tab.evaluate(WIDE_TABLES)


def has_answer(tab) -> bool:
    """Whether the first screen of the page shows a plot, a table or an image."""
    return tab.evaluate(ANSWERS) > 0


def python_reprs(page: BeautifulSoup, lesson: bool = False) -> list[str]:
    """Representations of Python objects in outputs; lessons may show values, but no matplotlib objects."""
    pattern = MATPLOTLIB_REPR if lesson else PYTHON_REPR
    outputs = page.select(".outputs :is(pre.text, td, th, p, li)")
    # Text marked as code is shown on purpose, e.g. a command with a JSON argument.
    texts = ["".join(text for text in output.strings if not text.find_parent("code")) for output in outputs]
    return [match[0][:60] for text in texts for match in re.finditer(pattern, text)]


def names_from_code(page: BeautifulSoup) -> list[str]:
    """Headings and entries of the list of pages that name a model as the code does."""
    names = "|".join(map(re.escape, sorted([*models.names(), *LIFTERS], key=len, reverse=True)))
    pattern = re.compile(rf"(?<![\w/.-])(?:{names})(?![\w-])")
    titles = page.select("main :is(h1, h2, h3, h4), aside nav a")
    return [title.text.strip() for title in titles if pattern.search(title.text)]
