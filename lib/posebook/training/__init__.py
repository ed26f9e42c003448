"""Training: recipes, data loading, the loop, checkpoints, and several datasets at once."""

from posebook.utils import lazy_attributes

__getattr__ = lazy_attributes(
    "posebook.training",
    {
        "train": "trainer",
        "TrainConfig": "config",
        "make_config": "config",
        "fit": "loop",
    },
    {
        "Samples": "training.data:TrainDataset",
        "learning_rate": "training.optimizer:lr_at_step",
        "pose_loss": "training.objectives:pose_loss",
    },
)
