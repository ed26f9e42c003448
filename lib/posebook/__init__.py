"""posebook: heatmap-free and lightweight human pose estimation, paper by paper.

`import posebook` is quick: a module is imported when it is first asked for, as posebook.models, and so is
`posebook.export`.
"""

import importlib


def __getattr__(name: str) -> object:
    if name == "export":
        from posebook.deploy import export

        return export
    try:
        return importlib.import_module(f"posebook.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"posebook.{name}":
            raise
        raise AttributeError(f"module 'posebook' has no attribute {name!r}") from None
