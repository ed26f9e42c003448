"""Invalid combinations and evaluations are rejected with one line, before any work."""

import shutil

import pytest

from posebook import cli, datasets, models, skeletons
from posebook.datasets import DatasetMissing, combined
from posebook.datasets.combined import Source
from posebook.evaluation import evaluator, predictions
from posebook.training import recipes, trainer
from posebook.training.config import make_config


def error_of(command: str, capsys, *words: str) -> str:
    """The error message of a command: one line on stderr, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main([command, *words])
    message = capsys.readouterr().err
    assert ended.value.code == 2 and len(message.splitlines()) == 1 and message.startswith("error: ")
    return message


@pytest.mark.parametrize(
    "dataset, roots, more, message",
    [
        ("own+synthetic+own", None, [], "own+synthetic+own names a source twice"),
        (
            "own+synthetic",
            None,
            ["--shares", "0,0"],
            "all shares are zero: no source of own, synthetic would be used",
        ),
        (
            "own+synthetic",
            None,
            ["--shares=-0.5,1"],
            "shares must be finite numbers that are not negative, not [-0.5, 1.0]",
        ),
        ("own+synthetic", None, ["--shares", "nan,1"], "shares must be finite numbers that are not negative"),
        (
            "own+synthetic",
            None,
            ["--shares", "1"],
            "1 shares for 2 sources (own+synthetic): give one for each",
        ),
        ("own+synthetic", None, ["--shares", "half,1"], "shares must have the form 0.5,0.3, not 'half,1'"),
        ("own+synthetics", None, [], "unknown dataset 'synthetics'; did you mean synthetic"),
        (
            "synthetic",
            "{small}",
            ["--shares", "1"],
            "shares and labels belong to several sources, such as coco+lspet",
        ),
        (
            "own+synthetic",
            "{small}",
            [],
            "a data root for several sources must have the form own=PATH,..., not",
        ),
        (
            "own+synthetic",
            "coco={small}",
            [],
            "a data root is given for coco, which is not a source of own+synthetic",
        ),
        (
            "own+synthetic",
            None,
            ["--labels", "lspet=x"],
            "a file of labels is given for lspet, which is not a source",
        ),
        (
            "own+synthetic",
            None,
            ["--val-split", "train"],
            "which are evaluated on their own validation splits",
        ),
        (
            "own+synthetic",
            "own={own},synthetic={none}",
            [],
            "synthetic train is not in {none}; The folder must hold",
        ),
        ("own", "{none}", [], "split train is not in {none}; The folder must hold"),
    ],
)
def test_invalid_training_arguments_give_a_one_line_error(
    own, small, tmp_path, monkeypatch, capsys, dataset, roots, more, message
):
    folders = {"own": own, "small": small, "none": tmp_path / "none"}
    roots = (roots or "own={own},synthetic={small}").format(**folders)
    words = ["--dataset", dataset, "--data-root", roots, "--out-dir", str(tmp_path / "out"), *more]
    assert message.format(**folders) in error_of("train", capsys, *words)
    assert not (tmp_path / "out").exists()


def test_sources_without_the_needed_joints_are_rejected(own, small):
    hand = skeletons.make_skeleton("hand", ["thumb", "wrist"], [], None)
    with pytest.raises(
        ValueError, match=f"own-{own.name} has no joint of the skeleton hand: its joints are .*, \\.\\.\\."
    ):
        combined.load_combined([Source("own", own, "train"), Source("synthetic", small, "train")], hand)
    for shares in ((None,), (0.0, 1.0)):  # a source with share 0 is not used
        sources = [Source("synthetic", small, "train", shares[0]), Source("own", own, "train", shares[-1])]
        with pytest.raises(
            ValueError, match="no source annotates nose of the skeleton coco: add a source that does"
        ):
            combined.load_combined(sources[-len(shares) :])
    with pytest.raises(ValueError, match="shares are given for some sources but not for own"):
        combined.load_combined([Source("synthetic", small, "train", 1.0), Source("own", own, "train")])
    with pytest.raises(DatasetMissing, match="is not in .*nowhere"):
        combined.load_combined(
            [Source("synthetic", small, "train"), Source("own", small / "nowhere", "train")]
        )


def overlapping(small, folder) -> datasets.Path:
    """The small dataset with two training images copied to the validation images under other names."""
    root = shutil.copytree(small, folder / "overlapping")
    for val, train in ((5, 9), (7, 1)):
        shutil.copy(root / "train" / f"{train}.jpg", root / "val" / f"{val}.jpg")
    return root


def test_an_image_in_both_train_and_val_is_rejected(own, small, tmp_path, monkeypatch, capsys):
    """Images are compared by content, across all sources."""
    root = overlapping(small, tmp_path)
    message = "are among those that this run was trained on (5.jpg, 7.jpg): evaluate on other images"
    for dataset, roots, total in (
        ("synthetic", str(root), 24),
        ("own+synthetic", f"own={own},synthetic={root}", 48),
    ):
        words = ["--dataset", dataset, "--data-root", roots, "--out-dir", str(tmp_path / "out")]
        assert f"2 of {total} images to evaluate on {message}" in error_of("train", capsys, *words)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory):
    """Weights with metadata that state training on the images of `small`'s train split."""
    path = tmp_path_factory.mktemp("weights") / "trained.safetensors"
    model = models.build("starnet-pose-t", "coco", (64, 64), depths=(1, 1, 1, 1))
    hashes = combined.image_hashes(datasets.load("synthetic", small, "train").instances)
    models.save_weights(model, path, "starnet-pose-t", "synthetic", images=hashes, depths=(1, 1, 1, 1))
    return path


def test_weights_are_not_evaluated_on_images_they_were_trained_on(
    small, tmp_path, weights, monkeypatch, capsys
):
    root, model = overlapping(small, tmp_path), models.load_weights(weights)
    monkeypatch.setattr(predictions, "predict", lambda *_, **__: pytest.fail("the images were evaluated"))
    message = (
        "2 of 24 images to evaluate on are among those that trained.safetensors was trained on (5.jpg, 7.jpg)"
    )
    with pytest.raises(ValueError) as error:
        evaluator.evaluate_weights(model, datasets.load("synthetic", root, "val"), weights)
    assert str(error.value).startswith(message)
    words = ["--weights", str(weights), "--data-root", str(root), "--out-dir", str(tmp_path / "out")]
    assert message in error_of("evaluate", capsys, *words)
    stderr = error_of("evaluate", capsys, *words, "--split", "train")
    assert "24 of 24 images" in stderr and "(1.jpg, 10.jpg, 11.jpg, ...)" in stderr
    assert not (tmp_path / "out").exists()


def test_initial_weights_are_not_evaluated_on_their_training_images(own, small, tmp_path, weights):
    root = overlapping(small, tmp_path)
    shutil.copytree(own / "train", root / "train", dirs_exist_ok=True)  # the two images remain in val only
    settings = dict(
        init=str(weights), data_root=str(root), out_dir=str(tmp_path / "out"), input_size=[64, 64]
    )
    with pytest.raises(ValueError, match="2 of 24 images .* trained.safetensors was trained on"):
        trainer.train(make_config(**settings, options={"depths": (1, 1, 1, 1)}))
    assert not (tmp_path / "out").exists()


def test_images_are_hashed_only_if_the_weights_state_training_images(
    small, tmp_path, weights, monkeypatch, capsys
):
    dataset = datasets.load("synthetic", small, "val")
    record, _, _ = evaluator.evaluate_weights(models.load_weights(weights), dataset, weights)
    assert "AP" in record["metrics"]
    plain = tmp_path / "plain.safetensors"
    models.save_weights(models.load_weights(weights), plain, "starnet-pose-t", depths=(1, 1, 1, 1))
    assert models.trained_images(plain) == set() and len(models.trained_images(weights)) == 24
    monkeypatch.setattr(combined, "image_hashes", lambda persons: pytest.fail("images were hashed"))
    predictions.check_not_trained_on(plain, dataset)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--weights", "none.safetensors"], "none.safetensors"),
        (["--weights", "{weights}", "--dataset", "synthetics"], "unknown dataset 'synthetics'"),
        (
            ["--weights", "{weights}", "--data-root", "{none}"],
            "synthetic val is not in {none}; The folder must hold",
        ),
        (["--weights", "{weights}", "--model", "lapx"], "holds weights of starnet-pose-t, not of lapx"),
    ],
)
def test_invalid_evaluation_arguments_give_a_one_line_error(
    small, tmp_path, weights, monkeypatch, capsys, words, message
):
    folders = {"weights": weights, "none": tmp_path / "none"}
    words = [
        "--data-root",
        str(small),
        "--out-dir",
        str(tmp_path / "out"),
        *(word.format(**folders) for word in words),
    ]
    assert message.format(**folders) in error_of("evaluate", capsys, *words)
    assert not (tmp_path / "out").exists()


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def failing(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(recipes, "get", failing)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])
