"""The flip test, decoding, and the way from a person to its predicted joints."""

import numpy as np
import pytest
import torch

from posebook import codecs, evaluation, models, skeletons
from posebook.datasets import Person, Persons


def test_flip_test_of_a_mirror_symmetric_net_changes_nothing():
    """A net that answers to a mirrored picture with the mirrored answer gains nothing from the average."""

    class Symmetric(torch.nn.Module):
        skeleton = skeletons.get("coco")

        def forward(self, images):
            profile = images.mean((1, 2)).repeat_interleave(2, -1)  # (B, 2W)
            x = torch.stack([profile] * 17, 1)  # (B, 17, 2W)
            return codecs.SimCC(x, images.mean((1, 3)).repeat_interleave(2, -1)[:, None].repeat(1, 17, 1))

    net, images = Symmetric(), torch.randn(2, 3, 32, 64)
    once, twice = evaluation.forward(net, images, False), evaluation.forward(net, images, True)
    assert torch.allclose(once.x, twice.x, atol=1e-6) and torch.allclose(once.y, twice.y, atol=1e-6)


def test_joints_that_are_not_the_models_are_refused():
    model = models.build("starnet-pose-t", "lspet", (64, 64))
    person = Person("nowhere.jpg", 1, 1, (0.0, 0.0, 9.0, 9.0), 81.0, np.zeros((17, 3)))
    people = Persons("made", "val", skeletons.get("coco"), "0" * 64, (person,), None)
    with pytest.raises(
        ValueError,
        match="lspet joints, made has coco joints: the model's joint 0 is right_ankle, not nose",
    ):
        evaluation.predict(model, people)
