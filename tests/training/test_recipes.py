"""The papers' recipes: values from the texts, and the schedules that follow from them."""

from dataclasses import fields

import pytest

from posebook import skeletons
from posebook.training import optimizer, recipes
from posebook.training.config import TrainConfig, make_config


def rates(recipe, num_samples, *epochs):
    """Return the learning rate at the beginning of these epochs."""
    steps = -(-num_samples // recipe.batch_size)
    return [optimizer.lr_at_step(epoch * steps, steps * recipe.epochs, recipe) for epoch in epochs]


def test_make_config_accepts_each_setting_once():
    assert make_config("lapx", epochs=2) == TrainConfig(model="lapx", recipe={"epochs": 2})
    values = [getattr(TrainConfig(), field.name) for field in fields(TrainConfig)]
    assert make_config(*values) == TrainConfig()
    with pytest.raises(ValueError, match=f"takes at most {len(values)} values .*, not {len(values) + 1}"):
        make_config(*values, "more")
    with pytest.raises(ValueError, match="dataset, model is given twice: by position and by name"):
        make_config("lapx", "mpii", model="lap", dataset="coco")


def test_starnet_pose_recipe():
    recipe = recipes.get("paper")
    assert (recipe.epochs, recipe.stage2_epochs, recipe.batch_size, recipe.input_size) == (
        210,
        15,
        1024,
        (256, 192),
    )
    assert (recipe.stage1.dropout, recipe.stage2.dropout) == (1.0, 0.5)
    warm, flat, middle, end = rates(recipe, 149813, 0, 50, 157.5, 210)
    assert warm == pytest.approx(4e-3 * 1e-5) and flat == 4e-3
    assert middle == pytest.approx(4e-3 * (0.05 + 0.95 / 2), rel=1e-3) and end == pytest.approx(4e-3 * 0.05)
    mini = recipes.get("paper", "starnet-pose-s", "coco-mini")
    assert (mini.epochs, mini.stage2_epochs, mini.batch_size, mini.learning_rate) == (100, 10, 64, 4e-3)
    assert recipes.get("paper", "rtmpose-t", "coco-mini").ema_momentum == 1  # trained without an average


def test_lapx_recipes():
    coco, mpii = recipes.get("paper", "lapx", "coco"), recipes.get("paper", "lapx", "mpii")
    assert (coco.epochs, mpii.epochs, coco.batch_size, coco.optimizer) == (210, 200, 32, "adam")
    assert rates(coco, 149813, 0, 119, 120, 160, 190) == pytest.approx(
        [2e-4, 2e-4, 8e-5, 3.2e-5, 1.28e-5], rel=1e-6
    )
    assert rates(mpii, 22246, 104, 105, 150, 175, 190) == pytest.approx(
        [3e-4, 1.5e-4, 7.5e-5, 3.75e-5, 1.875e-5], rel=1e-6
    )
    assert coco.stage1.rotation == coco.stage2.rotation == 40 and coco.stage1.dropout == 0
    assert coco.input_size == (256, 192) and mpii.input_size == (256, 256)


@pytest.mark.parametrize("dataset", ["coco", "mpii"])
@pytest.mark.parametrize("gain", [0.1, 0.4])
def test_lapx_nonlocal_gain_is_zero_then_rises_over_fifty_epochs_then_is_learned(dataset, gain):
    recipe = recipes.get("paper", "lapx", dataset, nonlocal_gain=gain)
    gains = [recipes.nonlocal_gain_at(epoch, recipe) for epoch in range(recipe.epochs)]
    assert gains[:10] == pytest.approx([0] * 10) and gains[60:] == [None] * (recipe.epochs - 60)
    assert gains[10:60] == pytest.approx([gain * n / 50 for n in range(1, 51)])


def test_amfacpose_recipe():
    recipe = recipes.get("paper", "amfacpose-r34", "coco")
    assert (recipe.epochs, recipe.batch_size, recipe.loss, recipe.input_size) == (
        140,
        32,
        "kl_discrete",
        (384, 288),
    )
    assert (recipe.stage1.rotation, recipe.stage1.scale) == (30, (0.7, 1.3))
    assert rates(recipe, 149813, 0, 90, 120) == pytest.approx([1e-3, 1e-4, 1e-5])
    assert recipes.sigma_for(recipe) == pytest.approx((6.0, 6.0), rel=1e-3)
    weights = dict(
        zip(
            skeletons.get("coco").keypoints,
            recipes.joint_weights(skeletons.get("coco").keypoints, recipe),
            strict=True,
        )
    )
    assert (weights["nose"], weights["left_hip"], weights["right_knee"], weights["left_wrist"]) == (
        1,
        1,
        1.2,
        1.5,
    )


def test_the_learning_rate_scales_with_the_batch_size_and_the_label_width_with_the_input_size():
    doubled = recipes.get("paper", "lapx", "coco", batch_size=64)
    assert rates(doubled, 149813, 0) == [4e-4]
    assert recipes.sigma_for(recipes.get("paper")) == (4.9, 5.66)
    assert recipes.sigma_for(recipes.get("fast", input_size=[64, 48])) == pytest.approx((2.45, 2.83))


def test_profile_fast_is_the_same_for_all_models_except_for_the_loss():
    starnet, amfac, lapx = (recipes.get("fast", name) for name in ("starnet-pose-t", "amfacpose-r18", "lapx"))
    assert starnet == lapx and (starnet.loss, amfac.loss) == ("simcc_kl", "kl_discrete")
    loss_fields = {"loss", "sigma", "limb_weights"}
    assert {k: v for k, v in vars(amfac).items() if k not in loss_fields} == {
        k: v for k, v in vars(starnet).items() if k not in loss_fields
    }


def test_no_recipe_for_a_dataset_that_the_paper_does_not_use():
    with pytest.raises(
        ValueError, match="no paper's recipe for lapx on crowdpose: .* lapx on coco, lapx on mpii"
    ):
        recipes.get("paper", "lapx", "crowdpose")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"loss": "kl_discret"}, "unknown loss 'kl_discret'; did you mean kl_discrete"),
        ({"optimizer": "adamww"}, "unknown optimizer 'adamww'; did you mean adamw"),
        ({"epochs": 0}, "epochs must be a positive integer, not 0"),
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
        ({"evaluate_every": 1.5}, "evaluate_every must be a positive integer, not 1.5"),
        ({"input_size": 64}, r"input_size must be like \(256, 192\), not 64"),
        ({"input_size": [64]}, r"input_size must be like \(256, 192\), not \(64,\)"),
        ({"cosine_start": 1}, "cosine_start must be at least 0 and below 1, not 1"),
        ({"learning_rate": "1e-3"}, "learning_rate must be like 0.002, not '1e-3'"),
        ({"learning_rate": float("nan")}, "learning_rate must be like 0.002, not nan"),
        ({"epochs": True}, "epochs must be like 200, not True"),
        ({"epochs": {"a": 1}}, "epochs must be like 200, not {'a': 1}"),
        ({"milestones": 5}, r"milestones must be like \(\), not 5"),
        ({"limb_weights": 2}, r"limb_weights must be like \(1.0, 1.0\), not 2"),
        ({"stage1": 5}, "stage1 must be like Augmentation"),
        ({"stage1": {"rotation": [1]}}, r"augmentation field rotation must be like .*, not \(1,\)"),
        ({"model": "lapx"}, "unknown recipe field 'model'"),
    ],
)
def test_invalid_values_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.get("fast", **changes)
