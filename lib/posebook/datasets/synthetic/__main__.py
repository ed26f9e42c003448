"""`python -m posebook.datasets.synthetic` is `posebook synthesize`."""

import sys

from posebook.cli import main

if __name__ == "__main__":
    main(["synthesize", *sys.argv[1:]])
