"""python -m posebook.evaluation"""

from posebook.evaluation.evaluator import main

if __name__ == "__main__":
    main()
