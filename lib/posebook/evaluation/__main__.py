"""`python -m posebook.evaluation` runs `posebook evaluate`."""

import sys

from posebook.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
