"""What a notebook needs while papermill runs it: checked parameters, and messages in the terminal.

1. Papermill only warns about a parameter that a notebook does not declare. `check_injected`, called by the
   first cell after the parameters, raises an error instead, before any work.
2. Papermill copies a kernel's stderr to the terminal. `Messages` copies printed lines to stderr.
"""

import ast
import difflib
import io
import re
import sys
from typing import Any

INJECTED = "# Parameters\n"  # the start of the cell that papermill inserts after the one tagged `parameters`


def assigned_values(source: str) -> dict[str, Any]:
    """The names that a cell assigns, with their values; None for a value that is not a literal."""
    values: dict[str, Any] = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            try:
                values[target.id] = ast.literal_eval(node.value)
            except ValueError:  # such as float('nan')
                values[target.id] = None
    return values


def check_parameters(declared: dict[str, Any], given: dict[str, Any]) -> None:
    """Compare given parameters with the declared ones and their default values.

    A value must have the type of its default. An integer can replace a float; a default of None allows any
    value. Raises ValueError for another type and, with suggestions, for a name that is not declared.
    """
    for name, value in given.items():
        if name not in declared:
            close = difflib.get_close_matches(name, declared) or declared
            hint = f"; did you mean {' or '.join(close)}?" if declared else ": it declares none"
            raise ValueError(f"the notebook has no parameter {name!r}{hint}")
        default = declared[name]
        fits = type(value) is type(default) or (type(value), type(default)) == (int, float)
        if default is not None and not fits:
            raise ValueError(
                f"parameter {name} must be of type {type(default).__name__}, as {default!r}, not {value!r}"
            )


def check_injected() -> None:
    """Check the parameters that papermill has given to the notebook that calls this.

    Papermill's cell follows the one with the defaults, if there is one. Without papermill, nothing is
    checked. Raises the errors of `check_parameters`.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns["In"] if shell else []  # cells[0] is empty
    for number, source in enumerate(cells[:4]):  # the first cell may be the one for Colab
        if source.startswith(INJECTED):
            check_parameters(assigned_values(cells[number - 1]), assigned_values(source))


def without_progress(text: str) -> str:
    """Text with only the last state of each progress bar, which a carriage return starts again."""
    return re.sub(r"[^\n]*\r(?!\n)", "", text)


class Messages(io.StringIO):
    """A text that is also written to stderr, which papermill copies to the terminal.

    with redirect_stdout(Messages()) as messages: a page shows `messages` elsewhere, and a notebook that stops
    in this block still contains them.
    """

    def write(self, text: str) -> int:
        """Write to both."""
        sys.stderr.write(text)
        return super().write(text)
