"""Helpers for the tests in this folder."""

from posebook.training import trainer
from posebook.training.config import make_config

SMALL = {
    "epochs": 3,
    "batch_size": 8,
    "input_size": [64, 64],
    "evaluate_every": 2,
    "warmup_steps": 2,
    "stage2_epochs": 1,
}


def run(small, folder, **changes):
    """Train StarNet-Pose-T for a few steps on the small dataset and return the record."""
    return trainer.train(
        make_config(
            "starnet-pose-t", "synthetic", str(small), "fast", out_dir=str(folder), **(SMALL | changes)
        )
    )
