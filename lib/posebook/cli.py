"""The `posebook` command. It defines every command line of the project.

1. `python -m posebook.training` and `python -m posebook.evaluation` are `posebook train` and `posebook
   evaluate`. They need neither papermill nor snakemake, and pycocotools only for datasets that are scored
   with it.
2. An error that the user can fix prints one line to stderr and exits with code 2. `--debug` shows the
   traceback.
3. For each command NAME, add_NAME adds its options and run_NAME runs it. Both import the modules that they
   need, so that `posebook --help` is fast.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from posebook.datasets import PoseDataset
    from posebook.evaluation.metrics import ImageStats, Predictions
    from posebook.inference.predict import BoxSource
    from posebook.inference.video import Stream
    from posebook.models.layers import PoseModel

USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError)
Arguments = argparse.Namespace


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, and keep the line breaks of examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Omit '(default: None)': the help text explains the behavior without the option."""
        empty = action.default in (None, False, {}) or not action.option_strings
        return action.help or "" if empty else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Report a wrong option in one line, as all other errors: argparse also prints the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")


def json_object(text: str) -> dict:
    """The dictionary that a JSON text contains. Raises ArgumentTypeError for others; argparse reports it."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object, such as {{"name": 1}}')
    return value


def add_seed_and_out_dir(parser: argparse.ArgumentParser) -> None:
    """Add the options that all small trainings share."""
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and samples")
    parser.add_argument("--out-dir", default="reports", help="folder of records, checkpoints and weights")


def print_record(record: dict, path: Path) -> None:
    """Print the rounded metrics of a record and its path."""
    print({key: round(value, 4) for key, value in record["metrics"].items()}, path, sep="\n")


def add_train(parser: argparse.ArgumentParser) -> None:
    from posebook.training.config import TrainConfig

    parser.add_argument(
        "--grid", metavar="ID", help="a row of data/grid.csv instead of model, dataset, seed and name"
    )
    defaults = TrainConfig()
    for field in dataclasses.fields(TrainConfig):
        default = getattr(defaults, field.name)
        flags = ["--" + field.name.replace("_", "-")]
        flags += {"recipe": ["--set"], "grad_accum_steps": ["--parts"]}.get(field.name, [])
        parse = {int: int, float: float, dict: json_object}.get(type(default), str)
        options: dict[str, Any] = {"action": "store_true"} if default is False else {"type": parse}
        parser.add_argument(*flags, dest=field.name, default=default, help=field.metadata["help"], **options)


def run_train(args: Arguments) -> None:
    from posebook import records
    from posebook.training import trainer
    from posebook.training.config import TrainConfig

    names = [field.name for field in dataclasses.fields(TrainConfig)]
    config = TrainConfig(**{name: getattr(args, name) for name in names})
    if args.grid:
        from posebook.papers import ablations

        in_grid = ("model", "dataset", "options", "recipe", "backbone")
        for name in in_grid:
            if getattr(config, name) != getattr(TrainConfig(), name):
                raise ValueError(f"--grid already sets {name}: leave out --{name}")
        own = ("profile", "seed", "name")  # of the row, unless the user gives another seed
        rest = {name: getattr(config, name) for name in names if name not in (*in_grid, *own)}
        row = ablations.get_row(args.grid).config(config.profile, **rest)
        named = config.name or (f"{row.name}-seed{config.seed}" if config.seed else row.name)
        config = dataclasses.replace(row, seed=config.seed or row.seed, name=named)
    # of several processes, only one gets the record; the others get {}
    if record := trainer.train(config):
        print_record(record, records.write(record, config.out_dir))


def add_weights(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Add the weights, the device, and the facts that the authors' own weights files do not contain."""
    text = "weights file, or the name of published weights of the model, such as coco"
    parser.add_argument("--weights", required=default is None, default=default and str(default), help=text)
    parser.add_argument("--model", help="model name, if the weights file does not contain it")
    text = "height and width, if the weights file does not contain them"
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help=text)
    add_device(parser)


def load_model(args: Arguments) -> "PoseModel":
    """Load the model that the options of `add_weights` name. `args.weights` becomes the path of the file."""
    from posebook import models
    from posebook.training.runtime import check_device

    check_device(args.device)
    args.weights = models.published.resolve(args.weights, args.model)
    return models.load_weights(args.weights, args.model, tuple(args.input_size))


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    from posebook import datasets

    add_weights(parser)
    parser.add_argument(
        "--trained-on",
        help="training dataset, if the weights file does not contain it; coco for the authors' weights",
    )
    text = f"default: the dataset of published weights, otherwise synthetic; {', '.join(datasets.names())}"
    parser.add_argument("--dataset", help=text)
    parser.add_argument("--data-root", help="the dataset's folder; default: $POSEBOOK_DATA/NAME or data/NAME")
    parser.add_argument("--split", help="default: the evaluation split of the dataset")
    text = (
        "a file of detected boxes, or annotated; default: as published if that file is there, else annotated"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--boxes", help=text)
    text = "evaluate with the boxes of this detector, and with annotated boxes; a file, or its name"
    source.add_argument("--detector", help=text)
    text = "evaluate in a runtime, such as 'OpenVINO int8', and how much it differs from PyTorch in float32"
    parser.add_argument("--runtime", help=text)
    parser.add_argument("--map-joints", help="evaluate on the joints shared with this set, such as coco")
    parser.add_argument("--dark", action="store_true", help="decode heatmaps with DARK")
    parser.add_argument("--profile", default="demo", help="part of the record's name")
    parser.add_argument("--workers", type=int, default=0, help="number of data loader processes")
    parser.add_argument("--name", help="name of the record; default: from model, data and profile")
    parser.add_argument("--out-dir", default="reports", help="the record is written to OUT_DIR/records")


def run_evaluate(args: Arguments) -> None:
    from posebook import datasets, models, records, skeletons
    from posebook.datasets import combined, detector_boxes
    from posebook.evaluation import predictions, published_accuracy
    from posebook.inference import detector_evaluation

    # Before anything is downloaded, because a missing dataset is the more common error.
    checkpoint = models.published.find_given(args.weights, args.model)
    name = args.dataset or (checkpoint.dataset if checkpoint else "synthetic")
    annotated, args.dataset = datasets.load(name, args.data_root, args.split), name
    if args.map_joints:
        annotated = combined.map_joints(annotated, skeletons.get(args.map_joints))
    boxes = args.boxes
    if checkpoint:
        root = Path(args.data_root or datasets.default_root(name))
        boxes = boxes or published_accuracy.published_boxes(checkpoint, root)
        args.dark = args.dark or checkpoint.decoding == "DARK"
    dataset = annotated
    if boxes and boxes != "annotated" and not args.detector:
        dataset = detector_boxes.load_boxes(annotated, boxes)
    model = None if Path(args.weights).suffix == ".tflite" else load_model(args)
    if args.detector:
        boxes, facts = detector_evaluation.detect(args.detector, annotated, args.out_dir)
        dataset = detector_boxes.load_boxes(annotated, boxes)
    record, results, image_stats = evaluate_dataset(args, model, dataset)
    if args.detector:
        other, *_ = evaluate_dataset(args, model, annotated)
        detector_evaluation.add_to_record(record, facts, other)
        print(detector_evaluation.describe(record))
    record["name"] = args.name or record["name"]
    # No accuracy is published with the boxes of --detector.
    if checkpoint and not args.detector and (published := published_accuracy.compare(checkpoint, record)):
        record["published"] = published
        print(published_accuracy.describe(published))
    path = records.write(record, args.out_dir)
    predictions.save_predictions(path, dataset, results, image_stats)
    print_record(record, path)


def evaluate_dataset(
    args: Arguments, model: "PoseModel | None", dataset: "PoseDataset"
) -> "tuple[dict, Predictions, ImageStats]":
    """Evaluate a model, or without it the .tflite file: the record, the predictions and their statistics."""
    from posebook.evaluation import evaluator
    from posebook.inference import runtime_evaluation, tflite
    from posebook.training import trainer

    if model is None:
        if args.runtime:
            raise ValueError(".tflite files always run in OpenVINO: leave out --runtime")
        return tflite.evaluate_peer(args.weights, dataset, args.profile)
    options = {
        name: getattr(args, name) for name in ("weights", "trained_on", "profile", "device", "workers")
    }
    options |= {"name": args.model, "dark": args.dark}
    if not args.runtime:
        return evaluator.evaluate_weights(model, dataset, **options)
    train = trainer.load_split(args.dataset, args.data_root, train=True)
    result = runtime_evaluation.evaluate_runtime(args.runtime, model, dataset, train, **options)
    print(runtime_evaluation.describe(result[0]))
    return result


def add_boxes(parser: argparse.ArgumentParser) -> None:
    """Add the source of the people's boxes, and the flip test."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--boxes", help="a COCO results file of boxes; default: the whole image is one person"
    )
    source.add_argument("--detector", help="a person detector: a file, or its name in data/detectors.csv")
    parser.add_argument("--threshold", type=float, default=0.3, help="minimum score of a box")
    parser.add_argument("--no-flip", action="store_true", help="no flip test: takes half the time")


def make_box_source(args: Arguments, images: list[Path] | None) -> "BoxSource":
    """Create the box source that the options of `add_boxes` name. images: None for a video."""
    from posebook.inference import predict
    from posebook.inference.detectors import Detector

    if args.boxes:
        return predict.file_boxes(args.boxes, images, args.threshold)
    if args.detector:
        return predict.detector_boxes(Detector(args.detector, args.threshold))
    return predict.full_image_boxes


def add_predict(parser: argparse.ArgumentParser) -> None:
    from posebook.inference.predict import DEFAULT_WEIGHTS
    from posebook.inference.runtime_model import RUNTIMES

    parser.add_argument("sources", nargs="*", metavar="IMAGE", help="images and folders, or one video")
    text = "a camera instead: its number, such as 0, or its path; Ctrl+C ends it"
    parser.add_argument("--camera", metavar="NUMBER", type=camera_device, help=text)
    parser.add_argument("--frames", type=int, help="number of frames of a video or camera; default: all")
    add_weights(parser, DEFAULT_WEIGHTS)
    add_boxes(parser)
    text = f"{', '.join(RUNTIMES)}; auto: the fastest one that is installed"
    parser.add_argument("--runtime", choices=RUNTIMES, default="auto", metavar="NAME", help=text)
    parser.add_argument("--no-smooth", action="store_true", help="no smoothing of videos over time")
    parser.add_argument("--no-overlays", action="store_true", help="do not draw poses")
    parser.add_argument("--record", action="store_true", help="also record the speed, in OUT_DIR/records")
    parser.add_argument("--out-dir", default="reports/predictions", help="folder of the results")


def camera_device(text: str) -> int | str:
    """The number of a camera, or its path."""
    return int(text) if text.isdecimal() else text


def open_sources(args: Arguments) -> tuple[list[Path], "Stream | None"]:
    """The images of `posebook predict`, or the frames of a video or camera."""
    from posebook.inference import predict, video

    is_video = any(map(video.is_video, args.sources))
    has_camera = args.camera is not None
    if not (args.sources or has_camera) or ((is_video or has_camera) and len(args.sources) + has_camera > 1):
        raise ValueError("give images and folders, or one video, or --camera NUMBER")
    if args.frames is not None and (not (is_video or has_camera) or args.frames < 1):
        raise ValueError("--frames is a positive number of frames of a video or camera")
    if has_camera:
        if args.boxes or args.record:
            raise ValueError("--boxes and --record need images or a video, not a camera")
        stream = video.camera_stream(args.camera, args.frames)
        print("Ctrl+C ends the camera, and the results are written", file=sys.stderr)
        return [], stream
    if is_video:
        return [], video.video_stream(video.open_frames(args.sources[0]), args.frames)
    return predict.list_images(args.sources), None


def run_predict(args: Arguments) -> None:
    """Predict images, a video or a camera. Print the number of people, the speed and the failed images."""
    from posebook import models, records
    from posebook.inference import predict, predict_video, runtime_model, stages

    images, stream = open_sources(args)
    metadata = records.RunMetadata(args.device)
    model = load_model(args)
    boxes = make_box_source(args, images or None)
    if not (args.boxes or args.detector):
        print("without --boxes or --detector, each image or frame counts as one person")
    count = stream.count if stream else len(images)
    model, runtime = runtime_model.open_runtime(model, args.runtime, args.device, count)
    settings = predict.Settings(not args.no_flip, device=args.device, overlays=not args.no_overlays)
    smooth, times, failed = not args.no_smooth, stages.StageTimes(), list[str]()
    if stream:
        entries = predict_video.predict_video(model, stream, args.out_dir, boxes, settings, smooth, times)
        tracks = len({entry["track_id"] for entry in entries})
        people = f"{len(entries)} poses of {tracks} tracks in {times.images} frames"
    else:
        entries, failed = predict.predict_images(model, images, args.out_dir, boxes, settings, times)
        people = f"{len(entries)} people in {times.images} images"
    speed = f"{times.people_per_second:.1f} people/s with {runtime}"
    print(f"{people}, {speed}: {args.out_dir}/predictions.json")
    for line in failed:
        print(f"skipped: {line}", file=sys.stderr)
    if args.record:
        facts = models.describe_weights(args.weights)
        source = Path(args.boxes or args.detector or "whole image").name
        parameters = dataclasses.asdict(settings) | {"runtime": runtime, "boxes": source}
        parameters |= {"smooth": smooth} if stream else {}
        files = [Path(args.sources[0])] if stream else images
        record = stages.build_record(
            facts.get("model", args.model), args.weights, files, times, parameters, metadata
        )
        print(records.write(record, args.out_dir))


def add_lift(parser: argparse.ArgumentParser) -> None:
    from posebook.inference.predict import DEFAULT_WEIGHTS
    from posebook.lifting.models import LIFTERS
    from posebook.lifting.predict_3d import LIFTER

    parser.add_argument("video", help="a video file, or a folder of its frames")
    add_weights(parser, DEFAULT_WEIGHTS)
    parser.add_argument("--lifter-weights", default=str(LIFTER), help="file or name of the lifter's weights")
    names = ", ".join(LIFTERS)
    parser.add_argument("--lifter", help=f"lifter name, if its weights do not contain it: {names}")
    add_boxes(parser)
    parser.add_argument("--out-dir", default="reports/lifted", help="folder of the results")


def run_lift(args: Arguments) -> None:
    """Track one person and lift the 2D joints to 3D."""
    from posebook.inference.video import open_frames
    from posebook.lifting import predict_3d, weights_io
    from posebook.models import published

    frames = open_frames(args.video)
    args.lifter_weights = published.resolve(args.lifter_weights, args.lifter)
    lifter = weights_io.load_weights(args.lifter_weights, args.lifter)
    model, boxes = load_model(args), make_box_source(args, list(frames.images) or None)
    weights = args.weights, args.lifter_weights
    track, path = predict_3d.lift_video(
        frames, model, lifter, boxes, not args.no_flip, args.device, args.out_dir, weights
    )
    print(f"{len(track.lost)} frames, the person was lost in {int(track.lost.sum())}: {path}")


def add_export(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("out", help="the ONNX file to write")
    parser.add_argument("--batch", type=int, default=1, help="batch size; 0 leaves it free")
    parser.add_argument("--end-to-end", action="store_true", help="from uint8 crops to keypoints and scores")


def run_export(args: Arguments) -> None:
    from posebook.inference.export import export

    print(export(load_model(args), args.out, args.batch or None, args.end_to_end))


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="starnet-pose-t", help="a model name, or all")
    parser.add_argument("--profile", default="demo", help="demo, fast or full")
    parser.add_argument(
        "--published", action="store_true", help="also time what the papers' speed tables need"
    )
    text = "files of MoveNet or BlazePose (.tflite) to time from crop to keypoints, beside the models"
    parser.add_argument("--peers", nargs="+", default=[], metavar="FILE", help=text)
    add_device(parser)
    parser.add_argument("--out", default="reports/executed/benchmark.ipynb", help="the executed notebook")


def run_benchmark(args: Arguments) -> None:
    """Execute notebooks/benchmark.ipynb, which writes the record."""
    from posebook import models, paths
    from posebook.inference import tflite
    from posebook.report import notebooks
    from posebook.training.runtime import check_device

    check_device(args.device)
    for name in [] if args.model == "all" else args.model.split(","):
        models.check_options(name.strip(), {})
    for path in args.peers:
        tflite.load_peer(path)  # a wrong file is an error now, not after the other measurements
    parameters = {"model": args.model, "profile": args.profile, "device": args.device}
    parameters |= {"published": args.published, "peers": [str(Path(path).resolve()) for path in args.peers]}
    notebook = paths.require(paths.ROOT / "notebooks" / "benchmark.ipynb")
    notebooks.execute(notebook, Path(args.out), parameters)


def add_gpu_check(parser: argparse.ArgumentParser) -> None:
    text = "cuda, cuda:1, ...; cpu tries the check itself, with tiny sizes"
    parser.add_argument("--device", default="cuda", help=text)
    parser.add_argument("--out-dir", default="reports", help="folder of the record")


def run_gpu_check(args: Arguments) -> None:
    """Measure a GPU and compare it with the goals. Works without cv2, scipy, safetensors and tqdm."""
    from posebook.benchmark import stand_ins
    from posebook.training.runtime import check_device

    check_device(args.device)
    stand_ins.install()  # before modules that import these packages
    from posebook.benchmark import gpu_check

    tiny = args.device == "cpu"
    settings = gpu_check.TINY if tiny else dataclasses.replace(gpu_check.Settings(), device=args.device)
    gpu_check.run(settings, args.out_dir)


def add_download(parser: argparse.ArgumentParser) -> None:
    from posebook.datasets.download import SOURCES

    text = "the dataset, weights, or detector"
    parser.add_argument("name", choices=[*SOURCES, "weights", "detector"], help=text)
    text = "download weights of this model, or this detector; without it, list all"
    parser.add_argument("model", nargs="?", help=text)
    parser.add_argument("weights", nargs="?", default="coco", help="the name of the weights")
    parser.add_argument("--root", help="the dataset's folder; default: $POSEBOOK_DATA/NAME or data/NAME")


def run_download(args: Arguments) -> None:
    """Download a dataset and print the files that the user has to download; or weights, or a detector."""
    from posebook.datasets import default_root, download

    if args.name == "weights":
        download_weights(args.model, args.weights)
        return
    if args.name == "detector":
        download_detector(args.model)
        return
    if args.model:
        raise ValueError(f"{args.name} is a dataset: leave out {args.model}")
    manual = download.get(args.name, args.root)
    print(f"{args.name} is in {args.root or default_root(args.name)}")
    for line in manual:
        print(f"download manually: {line}")


def download_weights(model: str | None, weights: str) -> None:
    """Download published weights and print their path, or list all published weights."""
    from posebook.models import published

    if model:
        checkpoint = published.find(model, weights)
        print(published.fetch(checkpoint), f"license: {checkpoint.license or 'not stated'}", sep="\n")
        return
    for line in published.load_table():
        accuracy = f"{line.metric} {line.value}" if line.value else ""
        print(f"{line.model:20} {line.weights:22} {accuracy:15} {line.url or line.page}")


def download_detector(name: str | None) -> None:
    """Download a person detector and print its path, or list all."""
    from posebook.inference import detector_files

    if name:
        line = detector_files.find(name)
        print(detector_files.fetch(line), f"license: {line.license}", sep="\n")
        return
    for line in detector_files.load_table():
        print(f"{line.name:20} {line.format:20} {line.license:12} {line.url}")


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="count the parameters and multiply-adds of this model")
    parser.add_argument("--input-size", type=int, nargs=2, default=(256, 192), help="height and width")


def run_models(args: Arguments) -> None:
    """List the model names, or count one model with every counting convention."""
    import torch

    from posebook import complexity, models

    if not args.name:
        print(*models.names(), sep="\n")
        return
    with torch.device("meta"), complexity.SkipInit():  # large models need no memory on the meta device
        model = models.build(args.name, input_size=tuple(args.input_size))
    counts = complexity.count(model, model.input_size)
    print(f"parameters: {counts['params']:,}")
    for counter, macs in counts["macs"].items():
        printed = (
            f", printed as {complexity.in_tool_units(counts, counter):.3f} G" if counter != "exact" else ""
        )
        print(f"{counter}: {macs:,}{printed}")


def add_records(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser(
        "archive", aliases=["keep"], help="copy records to data/measured, to be committed"
    )
    action.add_argument("paths", nargs="+", type=Path)
    action = actions.add_parser("list", help="name, kind and main metric of every record")
    action.add_argument("folders", nargs="*", type=Path, help="default: data/measured and reports/records")
    action = actions.add_parser("migrate", help="rewrite records and checkpoints of earlier versions")
    action.add_argument("paths", nargs="+", type=Path, help="record files, their folders, or run folders")


def run_records(args: Arguments) -> None:
    from posebook import records

    if args.action == "list":
        for record in records.load(*args.folders):
            metrics = record["metrics"]
            if isinstance(metrics, dict):
                name, value = next(iter(metrics.items()), ("", ""))
            else:  # the rows of a benchmark
                name, value = "rows", len(metrics)
            print(f"{record['name']}  {record['kind']}  {name} {value}")
        return
    for path in args.paths:
        print(migrate(path) if args.action == "migrate" else records.archive(path))


def migrate(path: Path) -> str:
    """Migrate a record file, a folder of records, or the newest checkpoint of a run, and describe the result.

    Raises FileNotFoundError if the path does not exist.
    """
    from posebook import migration
    from posebook.training import trainer

    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir() and (checkpoints := sorted(path.glob("checkpoint-*.safetensors"))):
        return str(trainer.migrate_run(checkpoints[-1]))
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    changed = sum(migration.migrate_record_file(file) for file in files)
    return f"{path}: {changed} of {len(files)} records rewritten"


def add_grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="?", default="*", help="comma-separated glob patterns of ids: 'lapx-*'")


def run_grid(args: Arguments) -> None:
    """List rows of the ablation grid, each with the command that trains it."""
    from posebook.papers import ablations

    for row in ablations.matching_rows(args.rows):
        print(
            f"{row.id}: {row.paper}, {row.table}, {row.row}: posebook train --grid {row.id} --profile paper"
        )


def add_study(parser: argparse.ArgumentParser) -> None:
    from posebook.papers import studies

    parser.add_argument("run", nargs="?", help="name of the run to train; default: list all runs")
    text = "the synthetic people, made by posebook synthesize --train-images 8000 --occluded --root FOLDER"
    parser.add_argument("--data-root", default=str(studies.DATA_ROOT), help=text)
    parser.add_argument("--out-dir", default="reports", help="folder of records, checkpoints and weights")


def run_study(args: Arguments) -> None:
    """Train one run of a study, or list all runs."""
    from posebook.papers import studies

    if args.run:
        print(*studies.train(studies.get_run(args.run), args.data_root, args.out_dir), sep="\n")
    else:
        print(*studies.runs(), sep="\n")


def add_synthesize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default="data/synthetic", help="the dataset's folder")
    parser.add_argument("--train-images", type=int, default=2000, help="number of training images")
    parser.add_argument("--val-images", type=int, default=400, help="number of validation images")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")
    parser.add_argument("--workers", type=int, help="number of processes; default: one for each core")
    text = "also write the split val_occluded: each person of val behind a rectangle of another image"
    parser.add_argument("--occluded", action="store_true", help=text)


def run_synthesize(args: Arguments) -> None:
    from posebook.datasets.synthetic import occlusion, writing

    writing.generate(args.root, args.train_images, args.val_images, args.seed, args.workers)
    if args.occluded:
        occlusion.write_occluded(args.root, args.seed)


def add_train_lifter(parser: argparse.ArgumentParser) -> None:
    from posebook.lifting import recipes
    from posebook.lifting.models import LIFTERS
    from posebook.lifting.training import DATASETS

    parser.add_argument("--lifter", default="mixste", help=", ".join(LIFTERS))
    parser.add_argument("--dataset", default="motion", help=", ".join(DATASETS))
    parser.add_argument("--data-root", help="the folder of the dataset's npz files")
    parser.add_argument("--profile", default="demo", help=", ".join(recipes.PROFILES))
    add_device(parser)
    add_seed_and_out_dir(parser)
    parser.add_argument("--prune", type=json_object, help='pruners by layer, as JSON: {"3": ["cluster", 81]}')
    parser.add_argument("--recover", default="interpolate", help="interpolate or attend")
    variants = ", ".join(recipes.VARIANTS)
    parser.add_argument("--variant", help=f"replaces --prune, --recover and --name: {variants}")
    parser.add_argument("--name", help="name of the record; default: from lifter, dataset, profile and seed")
    text = 'keyword arguments of the lifter, as JSON: {"width": 64}'
    parser.add_argument("--options", type=json_object, default={}, help=text)
    text = 'changed fields of the recipe, as JSON: {"epochs": 50}'
    parser.add_argument("--set", type=json_object, default={}, help=text)


def run_train_lifter(args: Arguments) -> None:
    from posebook import records
    from posebook.lifting import recipes, training
    from posebook.utils import check_name

    names = ("lifter", "dataset", "data_root", "profile", "device", "seed", "out_dir")
    settings = {name: getattr(args, name) for name in (*names, "prune", "recover", "name", "options")}
    if args.variant:
        check_name(args.variant, recipes.VARIANTS, "variant")
        settings["prune"], settings["recover"] = recipes.VARIANTS[args.variant]
        settings["name"] = f"lift-{args.lifter}-{args.variant}-{args.profile}-seed{args.seed}"
    if own := sorted(settings.keys() & args.set.keys()):
        raise ValueError(f"--set changes fields of the recipe; {own[0]} has its own option")
    if record := training.train_lifter(**settings | args.set):
        print_record(record, records.write(record, args.out_dir))


def add_train_starpose(parser: argparse.ArgumentParser) -> None:
    from posebook.lifting.starpose import RECIPE

    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="epochs of each training")
    add_seed_and_out_dir(parser)


def run_train_starpose(args: Arguments) -> None:
    from posebook import records
    from posebook.lifting import starpose

    record = starpose.train_and_compare(args.seed, args.out_dir, epochs=args.epochs)
    path = records.write(record, args.out_dir)
    for row in record["metrics"]:
        print({name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()})
    print(path)


def add_train_two_sets(parser: argparse.ArgumentParser) -> None:
    from posebook.training.multi_dataset import METHODS, RECIPE

    parser.add_argument("--way", default="experts", help=f"training method: {', '.join(METHODS)}")
    parser.add_argument("--data-root", help="default: $POSEBOOK_DATA/synthetic or data/synthetic")
    parser.add_argument("--epochs", type=int, default=RECIPE["epochs"], help="epochs of each training")
    add_device(parser)
    add_seed_and_out_dir(parser)


def run_train_two_sets(args: Arguments) -> None:
    from posebook import records
    from posebook.training import multi_dataset

    record = multi_dataset.train(
        args.way, args.data_root, args.seed, args.out_dir, args.device, epochs=args.epochs
    )
    print_record(record, records.write(record, args.out_dir))


# Name -> function that adds its options, function that runs it, help text.
COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[Arguments], None], str]] = {
    "train": (add_train, run_train, "train a model and evaluate it"),
    "evaluate": (add_evaluate, run_evaluate, "evaluate weights on a dataset"),
    "predict": (add_predict, run_predict, "predict poses in your own images, videos or camera"),
    "lift": (add_lift, run_lift, "3D poses from a video"),
    "export": (add_export, run_export, "write a model as ONNX"),
    "benchmark": (add_benchmark, run_benchmark, "time models in every runtime"),
    "gpu-check": (add_gpu_check, run_gpu_check, "measure training, latency and energy of a GPU"),
    "download": (add_download, run_download, "download a dataset, published weights or a detector"),
    "models": (add_models, run_models, "list models, or count one"),
    "records": (add_records, run_records, "archive, list or migrate records"),
    "grid": (add_grid, run_grid, "list the runs of the papers' ablations"),
    "study": (add_study, run_study, "train a run of a study with several seeds"),
    "train-lifter": (add_train_lifter, run_train_lifter, "train a 2D-to-3D lifter"),
    "train-starpose": (add_train_starpose, run_train_starpose, "train and compare a small StarPose"),
    "train-two-sets": (add_train_two_sets, run_train_two_sets, "train one ViTPose on two keypoint sets"),
    "synthesize": (add_synthesize, run_synthesize, "render the synthetic dataset"),
}
EXAMPLES = {  # name -> options
    "train": "--dataset lspet --profile fast --seed 1",
    "evaluate": "--weights coco --model rtmpose-t",
    "predict": "photo.jpg --out-dir poses",
    "lift": "walk.mp4 --out-dir lifted",
    "export": "model.onnx --weights best.safetensors",
    "benchmark": "--model lapx",
    "gpu-check": "--device cuda:1",
    "download": "weights rtmpose-t coco",
    "models": "lapx --input-size 256 256",
    "records": "list",
    "grid": "'lapx-*'",
    "study": "study-priors-skeleton-seed0",
    "train-lifter": "--variant hot --profile fast",
    "train-starpose": "--seed 1",
    "train-two-sets": "--seed 1",
    "synthesize": "--train-images 8000",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. On an error that the user can fix, print one line and exit with code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(prog="posebook", description="Lightweight human pose estimation, paper by paper.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_options, _, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  posebook {name} {EXAMPLES[name]}",
            formatter_class=Formatter,
        )
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in arguments[:1]:  # the options of other commands would import modules for nothing
            add_options(subparser)
    args = parser.parse_args(arguments)
    try:
        _, run, _ = COMMANDS[args.command]
        run(args)
    except USER_ERRORS as error:
        if args.debug:
            raise
        print("error:", "; ".join(str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
