"""The verbs of ``python -m cnn`` that take a run, or files: each is one function of a module of the library."""

import os
import sys
from pathlib import Path
from typing import Literal

from cnn.cli import enable_onednn_bfloat16, import_family, load_experiment
from cnn.config import DataConfig
from cnn.errors import ConfigError, DamagedError, DataError
from cnn.exchange.exporting import FormatName
from cnn.rules import integer, require
from cnn.run import named_or_new, note, result_table, warn
from cnn.text import printable


def data(data: DataConfig) -> None:
    """Fetch, verify and cache a data set."""
    from cnn.data.splits import prepare_data

    print(prepare_data(data))


def look(
    run_dir: Path,
    /,
    layer: str | None = None,
    image: Path | None = None,
    output: Path | None = None,
    experiment: str | None = None,
) -> None:
    """Draw the figures of a finished run; with --layer or --image, one layer: its kernels, and its maps of an image.

    Args:
        run_dir: Directory of the run.
        layer: Name of a layer, as in summary.txt. Default: the last one that has pixels.
        image: Image file, as of predict. Default: the first training image.
        output: Directory for the figures. Default: figures/ in the run's directory.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    from cnn.look.layer_figures import draw_layer
    from cnn.look.run_figures import FIGURES, draw_figures, figures_directory
    from cnn.runs.result import load_result

    if layer is not None or image is not None:
        print(*draw_layer(run_dir, layer, image, output, warn), sep="\n")
        return
    figures_directory(run_dir, output, FIGURES)
    config, result = load_result(run_dir)
    print(*draw_figures(run_dir, config, result, output=output), sep="\n")


def predict(
    files: tuple[Path, ...],
    /,
    pretrained: bool = False,
    json: bool = False,
    invert: Literal["auto", "yes", "no"] = "auto",
    output: Path | None = None,
    threshold: float | None = None,
    experiment: str | None = None,
) -> None:
    """Classify image files, or find what is in them, with a run's best network; exit status 2 if one cannot be read.

    Args:
        files: RUN_DIR FILE..., the run and PNG, JPEG, WebP, BMP, GIF or TIFF files, or directories of them; - for
            standard input. With --pretrained, FILE... alone.
        pretrained: Classify with the network that ships, trained on Fashion-MNIST, in place of a run's.
        json: Print a JSON object for each; of a detector, an array in COCO's result format.
        invert: Whether to invert dark and light; auto decides by each image's border, as the data is light on dark, but
            inverts nothing for a detector of scenes.
        output: Of a detector, directory for pictures of the files with their boxes. Default: none are drawn.
        threshold: Of a detector, least score of a box. Default: the best one that evaluate has found, else 0.3.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    from cnn.data.image_files import FORMATS, image_files
    from cnn.runs.outputs import is_run
    from cnn.trust.prediction import predict_run

    usage = "python -m cnn predict RUN_DIR FILE..., or predict --pretrained FILE..."
    if pretrained and experiment is not None:
        raise ConfigError("--experiment has no effect with --pretrained; leave one out")
    if pretrained and files and os.path.isdir(files[0]) and is_run(files[0]):
        raise ConfigError(f"{files[0]} is a run, but --pretrained takes the network that ships; {usage}")
    if not pretrained and not files:
        raise ConfigError(f"neither a run nor --pretrained is named; {usage}")
    run_dir, images = (None, files) if pretrained else (files[0], files[1:])
    if not images:
        raise DataError(f"no file is named; {usage} takes {FORMATS} files")
    unread = 0
    paths = image_files(images)
    inverted = {"auto": None, "yes": True, "no": False}[invert]
    for line, is_read in predict_run(run_dir, paths, inverted, json, note, output=output, threshold=threshold):
        if line:
            print(line, flush=True)
        unread += not is_read
    if unread:
        which = f"{unread} of the {len(paths)}" if len(paths) > 1 else "the file"
        raise DataError(f"{which} could not be read; the lines above say why")


def evaluate(
    run_dir: Path,
    /,
    robust: bool = False,
    robust_images: int | None = None,
    unknown: bool = False,
    output: Path | None = None,
    experiment: str | None = None,
) -> None:
    """Evaluate the best network of a run, as its task is; writes evaluation.json and figures.

    Of a classifier accuracy, confusion, calibration; of a detector average precision, what is confused and missed.

    Args:
        run_dir: Directory of the run.
        robust: Evaluate it on corrupted and on attacked images instead; writes robustness.json and figures.
        robust_images: With --robust, number of test images, at equal distances among them. Default: all.
        unknown: Evaluate, instead, how well it tells digits, noise and flat images from its own; writes unknown.json.
        output: Directory for the JSON file and the figures. Default: the run's.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    count = integer(1)
    require(robust_images is None or count.holds(robust_images), "robust-images", robust_images, count.allowed)
    if robust_images and not robust:
        raise ConfigError("--robust-images has an effect only with --robust; name that, or leave it out")
    if robust and unknown:
        raise ConfigError("--robust and --unknown are two evaluations; name one of them")
    import_family(experiment)
    if unknown:
        from cnn.trust.unknown import evaluate_unknown

        print(evaluate_unknown(run_dir, output))
        return
    from cnn.look import evaluations
    from cnn.look.run_figures import OUTPUT_HINT, figures_directory, write_figures
    from cnn.runs import outputs, rundir
    from cnn.trust import robustness

    module, kind = (robustness, "robustness") if robust else (evaluations, "evaluation")
    directory, file = figures_directory(run_dir, output, module.FIGURES), (output or run_dir) / f"{kind}.json"
    if file.parent.is_dir():
        outputs.check_file(file, kind, [run_dir])
    # All is printed before anything is written, as the run may be read-only.
    if robust:
        values, drawings = robustness.evaluate_run(run_dir, robust_images, lambda line: print(line, flush=True))
    else:
        values, drawings, text = evaluations.evaluate_run(run_dir)
        print(text, flush=True)
    figures = write_figures(directory, drawings)
    rundir.write_json(file, values, OUTPUT_HINT)
    print(f"\nwrote {file}", *figures, sep="\n")


def report(run_dirs: tuple[Path, ...], /, output: Path | None = None, experiment: str | None = None) -> None:
    """Write an HTML report of a run, with its curves, mistakes and layers; of several runs, a comparison.

    Args:
        run_dirs: Directories of finished runs; all others are compared with the first.
        output: The HTML file. Default: report.html in the run's directory, or comparison.html here.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    from cnn.report.comparison import write_comparison
    from cnn.report.report import write_report

    if not run_dirs:
        raise ConfigError(
            "no run is named; python -m cnn report RUN_DIR reports on one, several directories are compared"
        )
    if len(run_dirs) == 1:
        print(f"wrote {write_report(run_dirs[0], output)}")
    else:
        print(f"wrote {write_comparison(run_dirs, output or Path('comparison.html'))}")


def labels(run_dir: Path, /, folds: int = 5, output: Path | None = None, experiment: str | None = None) -> None:
    """Find labels that are probably wrong, by trainings that leave each image out; writes labels.json and labels.html.

    Args:
        run_dir: Directory of the run, whose configuration is trained once a fold.
        folds: Number of trainings, 3 to 20, each without one part of the training and validation images.
        output: Directory for the trainings and the page; the same command resumes. Default: RUN_DIR-labels.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    from cnn.report.review import labels_directory, write_labels
    from cnn.runs import rundir
    from cnn.training.tasks import require_task
    from cnn.trust.folds import FOLDS
    from cnn.trust.suspects import format_findings

    require(FOLDS.holds(folds), "folds", folds, FOLDS.allowed)
    config = rundir.read_description(run_dir)["config"]
    require_task(config, "classification", "labels")
    enable_onednn_bfloat16(config)
    directory = labels_directory(run_dir, output)
    print(f"{folds} trainings, in {printable(directory)}", flush=True)
    try:
        findings, files = write_labels(run_dir, directory, folds, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        raise
    print(f"\n{format_findings(findings.values)}\n", *(f"wrote {printable(file)}" for file in files), sep="\n")


def verify(run_dir: Path, /, experiment: str | None = None) -> None:
    """Check the files and checkpoints of a run against their digests; exit status 1 if one is damaged.

    Args:
        run_dir: Directory of the run.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    from cnn.runs.verify import damaged, verify

    problems = verify(run_dir)
    for name, problem in problems.items():
        print(f"{printable(name):20}  {problem or 'good'}")
    if names := damaged(problems):
        raise DamagedError(f"damaged in {run_dir}: {', '.join(names)}")


def export(
    run_dir: Path,
    /,
    format: Literal[FormatName, "web"],
    int8: bool = False,
    suppression: bool = True,
    runtime: Path | None = None,
    output: Path | None = None,
    experiment: str | None = None,
) -> None:
    """Export the best network of a run to a file that can be read, or run, without this project; or to a web page.

    Args:
        run_dir: Directory of the run.
        format: safetensors holds the weights, and of a classifier a model card is written beside it; stablehlo and onnx
            hold the network too, from pixels to probabilities, or to the boxes of a detector; web is a folder with a
            page to play with, for any web server.
        int8: Of onnx, with integers of 8 bits; prints, and writes beside it, what they cost in accuracy, size and time.
        suppression: Of a detector as onnx or stablehlo, keep the best of boxes of a class that overlap, as cnn.detect
            does; with --no-suppression, the file gives every cell's box, and its score for each class.
        runtime: Of web, directory with onnxruntime-web of npm. Default: fetched once by npm, into the cache.
        output: The file, or of web the folder. Default: export/model.FORMAT in the run's directory,
            export/model-int8.onnx, export/model-cells.FORMAT, or export/web.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    import_family(experiment)
    if not suppression and format not in ("onnx", "stablehlo"):
        raise ConfigError(
            f"--no-suppression has an effect only with --format onnx or stablehlo; name one, not {format}, or leave it "
            "out"
        )
    if format == "web":
        if int8:
            raise ConfigError("--int8 has an effect only with --format onnx; name that, not web, or leave it out")
        from cnn.web.folder import export_web

        for text in export_web(run_dir, output, runtime, note, warn):
            print(text, flush=True)
        return
    if runtime is not None:
        raise ConfigError(f"--runtime has an effect only with --format web; name that, not {format}, or leave it out")
    from cnn.trust.exports import export_files

    for text in export_files(run_dir, format, int8, output, warn, suppression):
        print(text, flush=True)


def play(
    run_dir: Path | None = None,
    /,
    pretrained: bool = False,
    runtime: Path | None = None,
    port: int = 0,
    open: bool = True,
    experiment: str | None = None,
) -> None:
    """Open a page to play with: draw, or choose a picture, and watch every layer of a run's network answer.

    Args:
        run_dir: Directory of the run; none with --pretrained.
        pretrained: Play with the network that ships, trained on Fashion-MNIST, in place of a run's.
        runtime: Directory with onnxruntime-web of npm. Default: fetched once by npm, into the cache.
        port: Where the page is served, to this machine alone. Default: any free one.
        open: Tell the browser to open the page.
        experiment: Module that defines the run's network if it is one's own, such as experiments.mine.
    """
    if pretrained and experiment is not None:
        raise ConfigError("--experiment has no effect with --pretrained; leave one out")
    if pretrained == (run_dir is not None):
        which = "both a run and --pretrained are" if pretrained else "neither a run nor --pretrained is"
        raise ConfigError(f"{which} named; python -m cnn play RUN_DIR, or play --pretrained")
    import_family(experiment)
    from cnn.web.server import play

    play(run_dir, runtime, port, open, note, lambda line: print(line, flush=True))


def import_(file: Path, /, run_dir: Path | None = None, experiment: str | None = None) -> None:
    """Make a run from weights that were trained elsewhere: in Keras, in PyTorch, or exported as safetensors.

    Args:
        file: FILE.keras or FILE.h5 of Keras, FILE.pt or FILE.ckpt with a state_dict of PyTorch, or FILE.safetensors.
        run_dir: Directory that is made for the run. Default: runs/NAME/TIME, the time in UTC.
        experiment: Module of the experiment with that architecture, such as experiments.alexnet. Default: the
            configuration in a safetensors file, else experiments.fashion_cnn.
    """
    from cnn.exchange.importing import import_run, load_weights

    state, config = load_weights(file, load_experiment(experiment) if experiment else None)
    with named_or_new(run_dir, config.name) as directory:
        print(result_table(import_run(file, directory, state, config)))
    print(f"run directory: {directory}")
