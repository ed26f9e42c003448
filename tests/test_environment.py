"""pyproject.toml, environment.yml and constraints.txt tell one story."""

import ast
import re
import sys
import tomllib

import pytest
import yaml

from helpers import ROOT

NAME = re.compile(r"[A-Za-z0-9._-]+")
# Neither has a build for every machine this must run on, or is needed: nothing may come to depend on them.
UNWANTED = {"torchvision", "timm"}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", NAME.match(requirement)[0]).lower()


@pytest.fixture(scope="module")
def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + sum(project["optional-dependencies"].values(), [])


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line of constraints.txt is NAME==VERSION"
    return {canonical(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def environment() -> tuple[list[str], list[str]]:
    """The conda part and the one pip section of environment.yml."""
    loaded = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert loaded["channels"] == ["conda-forge"]
    conda = [entry for entry in loaded["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in loaded["dependencies"] if isinstance(entry, dict))
    return conda, pip


def test_both_name_the_same_packages(declared, environment):
    _, pip = environment
    assert {"-c constraints.txt", "-e ."} <= set(pip)
    named = [entry for entry in pip if not entry.startswith("-")]
    assert sorted(map(canonical, named)) == sorted(map(canonical, declared))


# Modules that are named differently, or are a part of another package.
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "bs4": "beautifulsoup4"}
PACKAGES |= {"mpl_toolkits": "matplotlib", "cycler": "matplotlib", "matplotlib_inline": "ipykernel"}
PACKAGES |= {"IPython": "ipykernel", "jupyter_client": "ipykernel"}


def test_every_imported_package_is_declared(declared):
    imported = set()
    for path in (ROOT / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= sys.stdlib_module_names | {"posebook", "pynvml"}  # NVIDIA's package has no use without a GPU
    assert {"torch", "cv2"} < imported
    assert {canonical(PACKAGES.get(name, name)) for name in imported} <= set(map(canonical, declared))


def test_versions_stand_in_constraints_only(declared, environment, pins):
    conda, pip = environment
    for requirement in declared + [entry for entry in pip if not entry.startswith("-")]:
        assert NAME.fullmatch(requirement), f"{requirement}: its version belongs into constraints.txt"
        assert canonical(requirement) in pins, f"{requirement} is not pinned"
    for entry in conda:  # python itself is no package of pip's
        name, _, version = entry.partition("=")
        if name != "python" and version:
            assert pins[canonical(name)] == version.strip("=")


def test_the_interpreter_is_one_that_pyproject_allows(environment):
    conda, _ = environment
    (python,) = (entry for entry in conda if entry.startswith("python="))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert wanted == ">=3.11"
    assert tuple(map(int, python.removeprefix("python=").split("."))) >= (3, 11)


def test_torch_is_the_pinned_one_and_pins_carry_no_platform(pins):
    assert pins["torch"] == "2.13.0"
    assert not [name for name, version in pins.items() if "+" in version or "@" in version]


def test_nothing_unwanted(declared, pins):
    assert not UNWANTED & (set(pins) | set(map(canonical, declared)))
    for source in [*(ROOT / "lib").rglob("*.py"), *(ROOT / "notebooks").rglob("*.ipynb")]:
        for name in UNWANTED:
            assert not re.search(rf"\b(import|from) {name}\b", source.read_text()), f"{source} imports {name}"
