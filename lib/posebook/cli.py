"""The `posebook` command. Every command line of the project is defined here.

1. `python -m posebook.training` and `python -m posebook.evaluation` are `posebook train` and `posebook
   evaluate`; they need neither papermill nor snakemake, and pycocotools only for data that is scored with
   it.
2. What a user can mend ends with one line on stderr and exit code 2. `--debug` shows the traceback.
3. Modules are imported by the command that needs them, so that `posebook --help` is quick.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

USER_ERRORS = (ValueError, FileNotFoundError, ModuleNotFoundError, IsADirectoryError, NotADirectoryError)
Arguments = argparse.Namespace


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        """No '(default: None)' where the text says what happens without the option."""
        empty = action.default in (None, False, {}) or not action.option_strings
        return action.help or "" if empty else super()._get_help_string(action)


def add_train(parser: argparse.ArgumentParser) -> None:
    """One option for each field of TrainConfig."""
    from posebook.training.config import TrainConfig

    parser.add_argument(
        "--grid", metavar="ID", help="a row of data/grid.csv instead of model, data, seed and name"
    )
    for one in dataclasses.fields(TrainConfig):
        default = one.default if one.default is not dataclasses.MISSING else one.default_factory()
        flags = ["--" + one.name.replace("_", "-")]
        flags += {"recipe": ["--set"], "grad_accum_steps": ["--parts"]}.get(one.name, [])
        kind = {int: int, float: float, dict: json.loads}.get(type(default), str)
        more = {"action": "store_true"} if isinstance(default, bool) else {"type": kind}
        parser.add_argument(*flags, dest=one.name, default=default, help=one.metadata["help"], **more)


def run_train(args: Arguments) -> None:
    """Train, write the record, and print its metrics and path."""
    from posebook import records
    from posebook.training import trainer
    from posebook.training.config import TrainConfig

    names = [one.name for one in dataclasses.fields(TrainConfig)]
    config = TrainConfig(**{name: getattr(args, name) for name in names})
    if args.grid:
        from posebook.papers import ablations

        own = ("model", "dataset", "seed", "name", "options", "recipe", "backbone")
        if given := [name for name in own if getattr(config, name) != getattr(TrainConfig(), name)]:
            raise ValueError(f"--grid says it all: leave out --{given[0].replace('_', '-')}")
        rest = {name: getattr(config, name) for name in names if name not in (*own, "profile")}
        config = ablations.get_row(args.grid).config(config.profile, **rest)
    if record := trainer.train(config):  # {}: one of several processes, and not the one that writes
        print_record(record, records.write(record, config.out_dir))


def print_record(record: dict, path: Path) -> None:
    """A record's metrics, rounded, and where it is."""
    print({key: round(value, 4) for key, value in record["metrics"].items()}, path, sep="\n")


def add_weights(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Which weights, and what a file of authors does not say of them."""
    text = "weights file, as training writes them or as the authors published them"
    parser.add_argument("--weights", required=default is None, default=default and str(default), help=text)
    parser.add_argument("--model", help="the model of weights that do not say it")
    size = "height and width of weights that do not say it"
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help=size)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")


def load_model(args: Arguments) -> object:
    """The model of `add_weights`."""
    from posebook import models
    from posebook.training.runtime import check_device

    check_device(args.device)
    return models.load_weights(args.weights, args.model, tuple(args.input_size))


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Weights, data, boxes."""
    from posebook import datasets

    add_weights(parser)
    parser.add_argument(
        "--trained-on", help="the dataset of weights that do not say it; coco for the authors'"
    )
    parser.add_argument("--dataset", default="synthetic", help=", ".join(datasets.NAMES))
    parser.add_argument("--data-root", help="the dataset's folder; default: $POSEBOOK_DATA/NAME or data/NAME")
    parser.add_argument("--split", help="default: the split that the dataset is evaluated on")
    parser.add_argument("--boxes", help="a detector's file of boxes; default: the annotated boxes")
    parser.add_argument("--dark", action="store_true", help="decode heatmaps with DARK")
    parser.add_argument("--profile", default="demo", help="part of the record's name")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--out-dir", default="reports", help="the record goes to OUT_DIR/records")


def run_evaluate(args: Arguments) -> None:
    """Evaluate, write the record and the predictions beside it."""
    from posebook import datasets, records
    from posebook.datasets import detector_boxes
    from posebook.evaluation import evaluator, predictions

    people = datasets.load(args.dataset, args.data_root, args.split)
    people = detector_boxes.load_boxes(people, args.boxes) if args.boxes else people
    model = load_model(args)
    more = {name: getattr(args, name) for name in ("trained_on", "profile", "device", "workers", "dark")}
    record, found, stats = evaluator.evaluate_weights(model, people, args.weights, args.model, **more)
    path = records.write(record, args.out_dir)
    predictions.save_predictions(path, people, found, stats)
    print_record(record, path)


def add_people(parser: argparse.ArgumentParser) -> None:
    """Where the boxes of people come from."""
    people = parser.add_mutually_exclusive_group()
    people.add_argument(
        "--boxes", help="a COCO results file of boxes; default: the whole image is one person"
    )
    people.add_argument("--detector", help="an ONNX file that detects people")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of a box")
    parser.add_argument("--no-flip", action="store_true", help="no flip test: half the time")


def boxes_of(args: Arguments, images: list[Path]) -> Callable:
    """The source of boxes that `add_people` names."""
    from posebook.inference import predict
    from posebook.inference.detectors import Detector

    if args.boxes:
        return predict.file_boxes(args.boxes, images, args.threshold)
    if args.detector:
        return predict.detector_boxes(Detector(args.detector, args.threshold))
    return predict.full_image_boxes


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Images and boxes."""
    from posebook.inference.predict import DEFAULT_WEIGHTS

    parser.add_argument("images", nargs="+", help="files or folders")
    add_weights(parser, DEFAULT_WEIGHTS)
    add_people(parser)
    parser.add_argument("--no-overlays", action="store_true", help="write predictions.json only")
    parser.add_argument("--out-dir", default="reports/predictions", help="results go here")


def run_predict(args: Arguments) -> None:
    """Predict; says where the results are, and which images failed. Fails if every image did."""
    from posebook.inference import predict

    images, model = predict.list_images(args.images), load_model(args)
    entries, failed = predict.predict_images(
        model,
        images,
        args.out_dir,
        boxes_of(args, images),
        not args.no_flip,
        device=args.device,
        overlays=not args.no_overlays,
    )
    print(f"{len(entries)} people on {len(images) - len(failed)} images: {args.out_dir}/predictions.json")
    for line in failed:
        print(f"left out: {line}", file=sys.stderr)
    if len(failed) == len(images):
        raise ValueError("no image could be read")


def add_lift(parser: argparse.ArgumentParser) -> None:
    """A video, the weights of the 2D model and of the lifter."""
    from posebook.inference.predict import DEFAULT_WEIGHTS
    from posebook.lifting.models import LIFTERS
    from posebook.lifting.predict_3d import LIFTER

    parser.add_argument("video", help="a video file, or a folder of its frames")
    add_weights(parser, DEFAULT_WEIGHTS)
    parser.add_argument("--lifter-weights", default=str(LIFTER), help="weights of the lifter")
    parser.add_argument("--lifter", help=f"of weights that do not say it: {', '.join(LIFTERS)}")
    add_people(parser)
    parser.add_argument("--out-dir", default="reports/lifted", help="results go here")


def run_lift(args: Arguments) -> None:
    """Follow one person and lift the 2D joints to 3D."""
    from posebook.lifting import predict_3d, weights_io

    film = predict_3d.open_frames(args.video)
    lifter = weights_io.load_weights(args.lifter_weights, args.lifter)
    model, boxes = load_model(args), boxes_of(args, list(film.images))
    tracked, path = predict_3d.lift_video(
        film,
        model,
        lifter,
        boxes,
        not args.no_flip,
        args.device,
        args.out_dir,
        (args.weights, args.lifter_weights),
    )
    print(f"{len(tracked.lost)} frames, the person lost in {int(tracked.lost.sum())}: {path}")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Weights and the ONNX file."""
    add_weights(parser)
    parser.add_argument("out", help="the ONNX file to write")
    parser.add_argument("--batch", type=int, default=1, help="images per call; 0 for any number")
    parser.add_argument("--end-to-end", action="store_true", help="from uint8 crops to keypoints and scores")


def run_export(args: Arguments) -> None:
    """Write the file and check it against the model."""
    from posebook.inference.export import export

    print(export(load_model(args), args.out, args.batch or None, args.end_to_end))


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Models, device, size of the sweep."""
    parser.add_argument("--model", default="starnet-pose-t", help="a model's name, or all")
    parser.add_argument("--profile", default="demo", help="demo, fast or full")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", default="reports/executed/benchmark.ipynb", help="the executed notebook")


def run_benchmark(args: Arguments) -> None:
    """Execute notebooks/benchmark.ipynb, which writes the record."""
    from posebook import paths
    from posebook.report import notebooks
    from posebook.training.runtime import check_device

    check_device(args.device)
    parameters = {"model": args.model, "profile": args.profile, "device": args.device}
    notebook = paths.require(paths.ROOT / "notebooks" / "benchmark.ipynb")
    notebooks.execute(notebook, Path(args.out), parameters)


def add_download(parser: argparse.ArgumentParser) -> None:
    """Which dataset, and where to."""
    from posebook.datasets.download import SOURCES

    parser.add_argument("name", choices=list(SOURCES), help="the dataset")
    parser.add_argument("--root", help="the dataset's folder; default: $POSEBOOK_DATA/NAME or data/NAME")


def run_download(args: Arguments) -> None:
    """Fetch a dataset; says what has to be fetched by hand."""
    from posebook.datasets import default_root, download

    by_hand = download.get(args.name, args.root)
    print(f"{args.name} is in {args.root or default_root(args.name)}")
    for line in by_hand:
        print(f"by hand: {line}")


def add_models(parser: argparse.ArgumentParser) -> None:
    """Optionally one model, to be counted."""
    parser.add_argument("name", nargs="?", help="count the parameters and multiply-adds of this model")
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help="height and width")


def run_models(args: Arguments) -> None:
    """List the names, or count one model by every convention."""
    import torch

    from posebook import complexity, models

    if not args.name:
        print(*models.names(), sep="\n")
        return
    with torch.device("meta"), complexity.SkipInit():
        model = models.build(args.name, input_size=tuple(args.input_size))
    found = complexity.count(model, model.input_size)
    print(f"parameters: {found['params']:,}")
    for counter, value in found["macs"].items():
        print(
            f"{counter}: {complexity.in_tool_units(found, counter):.3f} G as the tool prints it ({value:,})"
        )


def add_records(parser: argparse.ArgumentParser) -> None:
    """What to do with which records."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keep = actions.add_parser(
        "archive", aliases=["keep"], help="copy records to data/measured, to be committed"
    )
    keep.add_argument("paths", nargs="+", type=Path)
    listed = actions.add_parser("list", help="name, kind and main metric of every record")
    listed.add_argument("folders", nargs="*", type=Path, help="default: data/measured and reports/records")
    old = actions.add_parser("migrate", help="rewrite records and checkpoints of earlier versions")
    old.add_argument("paths", nargs="+", type=Path, help="record files, folders of them, or a run's folder")


def run_records(args: Arguments) -> None:
    """Archive, list or migrate."""
    from posebook import migration, records
    from posebook.training import loop

    if args.action == "list":
        for record in records.load(*args.folders):
            metrics = record["metrics"]
            first = (
                next(iter(metrics.items()), ("", "")) if isinstance(metrics, dict) else ("rows", len(metrics))
            )
            print(f"{record['name']}  {record['kind']}  {first[0]} {first[1]}")
        return
    for path in args.paths:
        if args.action != "migrate":
            print(records.archive(path))
            continue
        if not path.exists():
            raise FileNotFoundError(f"nothing at {path}")
        if path.is_dir() and (newest := sorted(path.glob("checkpoint-*.safetensors"))[-1:]):
            print(loop.migrate_run(newest[0]))
            continue
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        changed = sum(migration.migrate_record_file(file) for file in files)
        print(f"{path}: {changed} of {len(files)} records rewritten")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Rows of data/grid.csv."""
    parser.add_argument(
        "rows", nargs="?", default="*", help="ids as globs with commas between them: 'lapx-*'"
    )


def run_grid(args: Arguments) -> None:
    """List rows of the ablation grid, each with the command that trains it."""
    from posebook.papers import ablations

    for row in ablations.matching_rows(args.rows):
        print(
            f"{row.id}: {row.paper}, {row.table}, {row.row}: posebook train --grid {row.id} --profile paper"
        )


def add_synthesize(parser: argparse.ArgumentParser) -> None:
    """How many images, where to."""
    parser.add_argument("--root", default="data/synthetic", help="the dataset's folder")
    parser.add_argument("--train-images", type=int, default=2000, help="images to train on")
    parser.add_argument("--val-images", type=int, default=400, help="images to evaluate on")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--workers", type=int, help="processes; default: one for each core")


def run_synthesize(args: Arguments) -> None:
    """Render the bundled synthetic dataset."""
    from posebook.datasets.synthetic.writing import generate

    generate(args.root, args.train_images, args.val_images, args.seed, args.workers)


def add_train_lifter(parser: argparse.ArgumentParser) -> None:
    """Lifter, data, pruning."""
    from posebook.lifting import recipes
    from posebook.lifting.models import LIFTERS
    from posebook.lifting.training import DATASETS

    parser.add_argument("--lifter", default="mixste", help=", ".join(LIFTERS))
    parser.add_argument("--dataset", default="motion", help=", ".join(DATASETS))
    parser.add_argument("--data-root", help="the folder of the dataset's npz files")
    parser.add_argument("--profile", default="demo", help=", ".join(recipes.PROFILES))
    add_run(parser)
    parser.add_argument("--prune", type=json.loads, help='pruners by layer, as JSON: {"3": ["cluster", 81]}')
    parser.add_argument("--recover", default="interpolate", help="interpolate or attend")
    parser.add_argument(
        "--variant", help=f"instead of prune, recover and name: {', '.join(recipes.VARIANTS)}"
    )
    parser.add_argument("--name", help="of the record; default: from lifter, data, profile and seed")
    parser.add_argument(
        "--options", type=json.loads, default={}, help='of the lifter, as JSON: {"width": 64}'
    )
    parser.add_argument("--set", type=json.loads, default={}, help='recipe fields, as JSON: {"epochs": 50}')


def add_run(parser: argparse.ArgumentParser) -> None:
    """What every small training has."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--seed", type=int, default=0, help="of weights and samples")
    parser.add_argument("--out-dir", default="reports", help="records, checkpoints and weights go here")


def run_train_lifter(args: Arguments) -> None:
    """Train a lifter and write its record."""
    from posebook import records
    from posebook.lifting import recipes, training
    from posebook.utils import unknown_name_error

    names = ("lifter", "dataset", "data_root", "profile", "device", "seed", "out_dir")
    settings = {name: getattr(args, name) for name in (*names, "prune", "recover", "name", "options")}
    if args.variant:
        if args.variant not in recipes.VARIANTS:
            raise unknown_name_error(args.variant, recipes.VARIANTS, "variant")
        settings["prune"], settings["recover"] = recipes.VARIANTS[args.variant]
        settings["name"] = f"lift-{args.lifter}-{args.variant}-{args.profile}-seed{args.seed}"
    if record := training.train_lifter(**settings | args.set):
        print_record(record, records.write(record, args.out_dir))


def add_train_starpose(parser: argparse.ArgumentParser) -> None:
    """Seed, epochs and folder."""
    from posebook.lifting.starpose import RECIPE

    parser.add_argument("--seed", type=int, default=0, help="of weights and samples")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="of both trainings")
    parser.add_argument("--out-dir", default="reports", help="records, checkpoints and weights go here")


def run_train_starpose(args: Arguments) -> None:
    """Train a small StarPose and a plain lifter, and compare them."""
    from posebook import records
    from posebook.lifting import starpose

    record = starpose.train_and_compare(args.seed, args.out_dir, epochs=args.epochs)
    path = records.write(record, args.out_dir)
    for row in record["metrics"]:
        print({name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()})
    print(path)


def add_train_two_sets(parser: argparse.ArgumentParser) -> None:
    """Method, data, seed."""
    from posebook.training.multi_dataset import METHODS, RECIPE

    parser.add_argument("--way", default="experts", help=", ".join(METHODS))
    parser.add_argument("--data-root", help="default: $POSEBOOK_DATA/synthetic or data/synthetic")
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"], help="of each training")
    add_run(parser)


def run_train_two_sets(args: Arguments) -> None:
    """Train one method on both keypoint sets and write its record."""
    from posebook import records
    from posebook.training import multi_dataset

    names = ("way", "data_root", "seed", "out_dir", "device", "epochs")
    record = multi_dataset.train(**{name: getattr(args, name) for name in names})
    print_record(record, records.write(record, args.out_dir))


COMMANDS = {
    "train": (
        "train a model and evaluate it",
        add_train,
        run_train,
        "--dataset lspet --profile fast --seed 1",
    ),
    "evaluate": (
        "evaluate weights on a dataset",
        add_evaluate,
        run_evaluate,
        "--weights best.safetensors --dataset coco",
    ),
    "predict": ("poses on your own images", add_predict, run_predict, "photo.jpg --out-dir poses"),
    "lift": ("3D poses from a video", add_lift, run_lift, "walk.mp4 --out-dir lifted"),
    "export": ("write a model as ONNX", add_export, run_export, "model.onnx --weights best.safetensors"),
    "benchmark": ("time models in every runtime", add_benchmark, run_benchmark, "--model lapx"),
    "download": ("fetch a dataset", add_download, run_download, "coco"),
    "models": ("list models, or count one", add_models, run_models, "lapx --input-size 256 256"),
    "records": ("archive, list or migrate records", add_records, run_records, "list"),
    "grid": ("list the runs of the papers' ablations", add_grid, run_grid, "'lapx-*'"),
    "train-lifter": (
        "train a 2D-to-3D lifter",
        add_train_lifter,
        run_train_lifter,
        "--variant hot --profile fast",
    ),
    "train-starpose": (
        "train and compare a small StarPose",
        add_train_starpose,
        run_train_starpose,
        "--seed 1",
    ),
    "train-two-sets": (
        "train one ViTPose on two keypoint sets",
        add_train_two_sets,
        run_train_two_sets,
        "--seed 1",
    ),
    "synthesize": ("render the synthetic dataset", add_synthesize, run_synthesize, "--train-images 8000"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit code 2 and one line for what the user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="posebook", description="Lightweight human pose estimation, paper by paper."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add, _, example) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  posebook {name} {example}",
            formatter_class=Formatter,
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in arguments[:1]:  # the others' options need imports that this command does not
            add(command)
    args = parser.parse_args(arguments)
    try:
        COMMANDS[args.command][2](args)
    except USER_ERRORS as error:
        if args.debug:
            raise
        print("error:", "; ".join(str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
