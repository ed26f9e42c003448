"""python -m posebook is `posebook`."""

from posebook.cli import main

if __name__ == "__main__":
    main()
