"""`python -m posebook.training` is the same as `posebook train`."""

import sys

from posebook.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
