"""Run `python -m posebook` like the command `posebook`."""

from posebook.cli import main

if __name__ == "__main__":
    main()
