"""python -m posebook.datasets.synthetic: draws the embedded dataset."""

import argparse

from posebook.datasets.synthetic.writing import generate

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the embedded dataset.")
    parser.add_argument("--root", default="data/synthetic")
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--val-images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=None)
    generate(**vars(parser.parse_args()))
