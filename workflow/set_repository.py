"""Set the address of the repository: python workflow/set_repository.py https://github.com/OWNER/NAME

pyproject.toml stores it. It is copied to the places that cannot read that file: the links in README.md, and
the cell that installs posebook in Google Colab, in the notebooks that people open first. Without an argument,
the stored address is copied again, which also adds the cell to new notebooks. Without a stored address,
README.md has no links, and the cell asks for the address.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

import nbformat

from posebook.paths import ROOT

PATTERN = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
LINKS = re.compile(r"(?<=<!-- published -->\n).*?(?=<!-- /published -->)", re.DOTALL)
CELL = """# In Google Colab, this cell installs posebook. Elsewhere, it does nothing.
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "{address}"  # workflow/set_repository.py writes this line
if "google.colab" in sys.modules and importlib.util.find_spec("posebook") is None:
    address = REPOSITORY or input("Address of the posebook repository: ")
    subprocess.run(["git", "clone", "--depth", "1", address, "posebook"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "posebook[notebooks]"], check=True)
    os.chdir("posebook")
    sys.path.insert(0, "lib")"""


def stored_address() -> str:
    """The address in pyproject.toml, or an empty string."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository", "")


def store_address(address: str) -> None:
    """Write the address into [project.urls] of pyproject.toml."""
    path = ROOT / "pyproject.toml"
    text = re.sub(r"\[project\.urls\]\nRepository = .*\n\n", "", path.read_text())
    table = f'[project.urls]\nRepository = "{address}"\n\n'
    path.write_text(text.replace("[project.scripts]", table + "[project.scripts]"))


def readme_links(address: str) -> str:
    """The line of README.md with links to the published report, Binder and Colab."""
    if not address:
        return ""
    parts = PATTERN.fullmatch(address)
    assert parts, "only such addresses are stored"
    owner, name = parts.groups()
    site = f"https://{owner}.github.io/{name}/"
    binder = f"https://mybinder.org/v2/gh/{owner}/{name}/HEAD?urlpath=lab/tree/notebooks/learn/index.ipynb"
    colab = (
        f"https://colab.research.google.com/github/{owner}/{name}/blob/main/notebooks/learn/start_here.ipynb"
    )
    links = {"Published report": site, "lessons in Binder": binder, "first lesson in Colab": colab}
    return "Without an installation: " + ",\n".join(f"[{text}]({url})" for text, url in links.items()) + ".\n"


def notebooks() -> list[Path]:
    """The notebooks with the cell: the lessons, and the one for readers' own images."""
    return [*sorted((ROOT / "notebooks/learn").glob("*.ipynb")), ROOT / "notebooks/explore.ipynb"]


def with_cell(notebook: nbformat.NotebookNode, address: str) -> nbformat.NotebookNode:
    """The notebook with the current installation cell after its title."""
    cell = nbformat.v4.new_code_cell(CELL.format(address=address), id="colab")
    cell.metadata = {"tags": ["colab"]}
    others = [other for other in notebook.cells if other["id"] != "colab"]
    notebook.cells = [others[0], cell, *others[1:]]
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description="Set the address of the repository in all places.")
    parser.add_argument("address", nargs="?", help="https://github.com/OWNER/NAME")
    address = parser.parse_args().address
    if address and not PATTERN.fullmatch(address):
        print(f"{address} is not an address like https://github.com/OWNER/NAME", file=sys.stderr)
        sys.exit(2)
    if address:
        store_address(address)
    address = stored_address()
    readme = ROOT / "README.md"
    readme.write_text(LINKS.sub(lambda _: readme_links(address), readme.read_text()))
    for path in notebooks():
        nbformat.write(with_cell(nbformat.read(path, as_version=4), address), path)


if __name__ == "__main__":
    main()
