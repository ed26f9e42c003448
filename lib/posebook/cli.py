"""What the command lines have in common."""

import sys
from collections.abc import Callable
from functools import wraps


def fails_in_one_line(main: Callable[[], None]) -> Callable[[], None]:
    """Make a command line end with one line on stderr and exit code 2 for what its user can mend.

    That is ValueError and FileNotFoundError (DatasetMissing too). Other errors keep their traceback.
    """

    @wraps(main)
    def wrapped() -> None:
        try:
            main()
        except (ValueError, FileNotFoundError) as error:
            print("error:", "; ".join(str(error).splitlines()), file=sys.stderr)
            raise SystemExit(2) from error

    return wrapped
