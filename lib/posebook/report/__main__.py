"""python -m posebook.report"""

from posebook.report.notebooks import main

if __name__ == "__main__":
    main()
