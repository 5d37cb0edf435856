"""A run -> how well its network tells what it does not know: digits, noise and flat images beside its test images."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.image_files import fit_image, reading
from cnn.errors import RunDirError
from cnn.look.run_figures import OUTPUT_HINT
from cnn.runs import outputs, rundir
from cnn.runs.checkpoint import load_best
from cnn.runs.result import load_images
from cnn.training.state import TrainState
from cnn.training.tasks import require_task
from cnn.trust.measured import Numbers, read_measured
from cnn.trust.novelty import BEST, SCORES, separation
from cnn.trust.reference import (
    HINT,
    Reference,
    embed,
    layers,
    make_reference,
    network_digest,
    read_reference,
    scores,
    write_reference,
)

IMAGES = 2_000
"""Maximum number of images of a kind."""

BYTES = 2**27
"""Maximum size of the images of a kind, in bytes: there are fewer large ones."""

SEED = 0
"""Of the noise."""


def digits(config: ExperimentConfig) -> np.ndarray | None:
    """Returns scikit-learn's 1,797 handwritten digits, fitted as ``predict`` fits a file; None if it is not installed.

    They are 8 x 8 pixels, light on dark, and part of the package: nothing is fetched.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return None
    from PIL import Image

    how, loaded = reading(config.data), cast(Any, load_digits())
    pixels_NxHxW = np.round(loaded.images[: _count(config)] * (255 / 16)).astype(np.uint8)
    return np.stack([fit_image(Image.fromarray(image), **how)[0] for image in pixels_NxHxW])


def noise(config: ExperimentConfig) -> np.ndarray:
    """Returns images in which each value is drawn uniformly from 0 to 255."""
    return np.random.default_rng(SEED).integers(0, 256, (_count(config), *config.data.image_shape), np.uint8)


def flat(config: ExperimentConfig) -> np.ndarray:
    """Returns an image of each of the 256 greys, with the same value everywhere."""
    greys = np.arange(256, dtype=np.uint8)[:: -(-256 // min(256, _count(config)))]
    return np.broadcast_to(greys[:, None, None, None], (len(greys), *config.data.image_shape)).copy()


def _count(config: ExperimentConfig) -> int:
    return int(min(IMAGES, max(2, BYTES // np.prod(config.data.image_shape))))


UNKNOWN = {"digits": digits, "noise": noise, "flat": flat}
"""By name, what makes images of a kind that no network here was trained on."""


def separations(
    state: TrainState, reference: Reference, known_NxHxWxC: np.ndarray, unknown: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns the content of ``unknown.json``, as plain numbers.

    Any images may be compared, such as those of classes that were left out of the training.

    Args:
      state: a trained state.
      reference: what ``make_reference`` returns of it.
      known_NxHxWxC: images of the known classes, of neither the training nor the validation split.
      unknown: by name, images of other kinds.
    """
    known = scores(embed(state, known_NxHxWxC), reference)
    others = {name: scores(embed(state, images), reference) for name, images in unknown.items()}
    limits = dict(zip(SCORES, map(float, reference.thresholds), strict=True))
    names = layers(state)
    return {
        "best_score": BEST,
        "images": len(known_NxHxWxC),
        "training_images": len(reference.indices_M),
        "scores": {
            score: {
                "name": name.format(**names),
                "threshold": limits[score],
                "flagged": float((known[score] > limits[score]).mean()),
                "unknown": {
                    other: separation(known[score], values[score], limits[score])._asdict()
                    for other, values in others.items()
                },
            }
            for score, name in SCORES.items()
        },
    }


def evaluate_unknown(run_dir: Path, output: Path | None = None) -> str:
    """Evaluates the scores of a run, writes ``unknown.json``, and returns what is printed.

    Keeps ``novelty.npz`` in the run if it has none, and can be written to.

    Args:
      run_dir: directory of the run.
      output: directory for the file; None for the run's.

    Raises:
      UserError: the directory holds no run, or a detector's, or its images are missing, or the file cannot be written.
      DamagedError: the checkpoint is damaged.
    """
    file = (output or run_dir) / outputs.UNKNOWN
    require_task(rundir.read_description(run_dir)["config"], "classification", "evaluate --unknown")
    if output is None:
        outputs.check_file(file, "unknown", [run_dir])
    else:
        outputs.check_directory(output, "unknown", [run_dir], [outputs.UNKNOWN])
    state, config = load_best(run_dir)
    splits = load_images(run_dir)
    reference, notes = read_reference(run_dir, state), []
    if reference is None:
        reference = make_reference(state, splits)
        try:
            write_reference(run_dir, state, reference)
        except RunDirError as error:
            notes.append(f"novelty.npz is not kept: {error}".removesuffix(f"; {HINT}"))
    images = {name: make(config) for name, make in UNKNOWN.items()}
    if images["digits"] is None:
        notes.append("scikit-learn, which has the digits, is not installed; their rows are left out")
    unknown = {name: array for name, array in images.items() if array is not None}
    values = separations(state, reference, splits.test.images, unknown)
    # By which the report knows that the file is of this network.
    values["network_sha256"] = network_digest(run_dir, state)
    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunDirError(f"cannot write {file.parent}: {error.strerror}; {OUTPUT_HINT}") from error
    rundir.write_json(file, values, OUTPUT_HINT)
    return "\n".join([format_unknown(values), *notes, "", f"wrote {file}"])


def format_unknown(values: dict[str, Any]) -> str:
    """Returns the content of ``unknown.json`` as a table."""
    shown = {key: score["name"] + " *" * (key == values["best_score"]) for key, score in values["scores"].items()}
    width = max(map(len, shown.values())) + 2
    interval = "95 % interval"
    lines = [f"{'images':8}{'score':{width}}{'AUROC':>8}  {interval:16}{'FPR 95':>8}  {interval:16}{'flagged':>8}"]
    for other in next(iter(values["scores"].values()))["unknown"]:
        for key, score in values["scores"].items():
            row = score["unknown"][other]
            cells = [
                f"{row[name]:>8.4f}  {f'{low:.4f} to {high:.4f}':16}"
                for name in ("auroc", "fpr")
                for low, high in [row[f"{name}_interval"]]
            ]
            lines.append(f"{other:8}{shown[key]:{width}}{''.join(cells)}{row['flagged']:>8.4f}")
    best = values["scores"][values["best_score"]]
    return "\n".join(
        [
            *lines,
            "",
            f"AUROC against the {values['images']:,} test images; FPR 95: the share of these images that is accepted "
            "where 95 % of the test images are",
            f"* what predict uses: flagged is the share above its threshold {best['threshold']:.4g}, which 5 % of the "
            f"validation images exceed, and {100 * best['flagged']:.1f} % of the test images",
        ]
    )


def read_unknown(run_dir: Path) -> dict[str, Any] | None:
    """Returns the content of a run's unknown.json; None if there is none.

    Raises:
      RunDirError: it is damaged, or of another version.
    """
    return read_measured(run_dir / outputs.UNKNOWN, "--unknown", _numbers)


def _numbers(values: dict[str, Any]) -> Numbers:
    """The counts and shares of unknown.json."""
    if list(values["scores"]) != list(SCORES) or values["best_score"] not in SCORES:
        raise ValueError("it has other scores")
    scores, counts = list(values["scores"].values()), [values["images"]]
    kinds, shares = list(scores[0]["unknown"]), [score["flagged"] for score in scores]
    for score in scores:
        if not kinds or list(score["unknown"]) != kinds or not isinstance(score["name"], str):
            raise ValueError("its scores differ in their images")
        for row in score["unknown"].values():
            counts.append(row["images"])
            shares += [row["auroc"], row["fpr"], row["flagged"]]
            for low, high in (row["auroc_interval"], row["fpr_interval"]):
                shares += [low, high]
    return counts, shares
