"""python -m posebook.training"""

from posebook.training.trainer import main

if __name__ == "__main__":
    main()
