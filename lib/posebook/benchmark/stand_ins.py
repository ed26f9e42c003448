"""Stand-ins for packages that a GPU machine without a package index may lack: cv2, scipy, safetensors, tqdm.

With them, `posebook gpu-check` needs only PyTorch and NumPy. They have just what training on a GPU from
canvases uses; any other use raises an error. Modules that import these packages must follow `install`.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

PACKAGES = ("cv2", "scipy", "safetensors", "tqdm")


def install(packages: tuple[str, ...] = PACKAGES) -> list[str]:
    """Put stand-ins for the missing ones of `packages` into sys.modules, and return the names of these."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules.update(STAND_INS[name]())
    return missing


def is_stand_in(package: str) -> bool:
    """Whether an imported package is a stand-in."""
    return isinstance(sys.modules.get(package), StandIn)


class StandIn(ModuleType):
    """A module with the given attributes. Any other attribute raises ModuleNotFoundError."""

    def __init__(self, name: str, **attributes: Any):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # PyTorch's compiler looks for it
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        raise ModuleNotFoundError(f"{self.__name__}.{name} needs the package: install {self.__name__}")


def _cv2() -> dict[str, ModuleType]:
    return {"cv2": StandIn("cv2", setNumThreads=lambda threads: None)}


def _scipy() -> dict[str, ModuleType]:
    def in_torch(function: Callable) -> Callable:
        return lambda values: function(torch.as_tensor(values, dtype=torch.float64)).numpy()

    special = StandIn("scipy.special", ndtr=in_torch(torch.special.ndtr), ndtri=in_torch(torch.special.ndtri))
    return {"scipy": StandIn("scipy", special=special), "scipy.special": special}


def _safetensors() -> dict[str, ModuleType]:
    """Files written by torch.save, which the package itself cannot read."""

    def read(path: Any) -> dict:
        with open(path, "rb") as file:  # torch.load passes a path with this suffix to the package
            return torch.load(file)

    class File:
        def __init__(self, path: Any, framework: str):
            self._metadata = read(path)["metadata"]

        def __enter__(self) -> "File":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def metadata(self) -> dict[str, str]:
            return self._metadata

    def save_file(tensors: dict, path: Any, metadata: dict | None = None) -> None:
        with open(path, "wb") as file:
            torch.save({"tensors": tensors, "metadata": metadata}, file)

    in_torch = StandIn("safetensors.torch", save_file=save_file, load_file=lambda path: read(path)["tensors"])
    package = StandIn("safetensors", safe_open=File, SafetensorError=OSError, torch=in_torch)
    return {"safetensors": package, "safetensors.torch": in_torch}


def _tqdm() -> dict[str, ModuleType]:
    class Progress:
        """A progress bar that prints only messages."""

        def __init__(self, iterable: Any = (), **_: Any):
            self.iterable, self.n = iterable, 0

        def __iter__(self) -> Any:
            return iter(self.iterable)

        def __enter__(self) -> "Progress":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            self.n += count

        def set_postfix(self, **_: Any) -> None:
            pass

        @staticmethod
        def write(message: str) -> None:
            print(message)

    return {"tqdm": StandIn("tqdm", tqdm=Progress)}


STAND_INS = {"cv2": _cv2, "scipy": _scipy, "safetensors": _safetensors, "tqdm": _tqdm}
