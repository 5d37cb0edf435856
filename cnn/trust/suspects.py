"""The suspects among the labels of a run: trainings without each fold, then confident learning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnn.config import ExperimentConfig
from cnn.data.labels import Decision
from cnn.data.splits import find_origins
from cnn.errors import ConfigError
from cnn.look.evaluation import NAME, WORST
from cnn.look.scores import MANY
from cnn.resolution import model_class_names
from cnn.runs import rundir
from cnn.runs.result import load_images
from cnn.text import columns, shortened
from cnn.trust.confident import confident_joint, estimate_joint, find_suspects
from cnn.trust.folds import out_of_sample

SHOWN = 1000
"""Maximum number of suspects in a page."""

PAIRS = 100
"""Maximum number of pairs of classes in labels.json."""


class Findings(NamedTuple):
    """What is suspected of a run's labels."""

    values: dict[str, Any]
    """For labels.json: ``classes``, ``suspects``, the most doubtful first, and what they follow from."""
    images: np.ndarray
    """Of the first ``SHOWN`` suspects, uint8 [M, H, W, C]."""
    decisions: list[Decision]
    """Of the run's own --data.labels, whose images are suspects no more."""
    names: tuple[str, ...]
    """Of the classes."""
    key: str
    """Digest of the run."""


def find_wrong_labels(
    run_dir: Path, directory: Path, folds: int = 5, report: Callable[[str], None] = lambda line: None
) -> Findings:
    """Trains a run's configuration without each fold of its images, and returns the images whose label is doubtful.

    Args:
      run_dir: directory of the run, whose training and validation images are looked at.
      directory: for the trainings, as of ``out_of_sample``; the same call resumes them.
      folds: number of folds, 3 to 20.
      report: called with a line for each finished fold.

    Raises:
      UserError: the run, its images or the directory cannot be used.
      Stopped: a signal was received, and the training is saved.
    """
    config = rundir.read_description(run_dir)["config"]
    # A finished run's result names its configuration: one that was changed since is refused.
    rundir.read_result(run_dir)
    _check_source(run_dir, config)
    splits, names = load_images(run_dir), model_class_names(config)
    indices_N, decisions = find_origins(config.data)
    probabilities_NxK = out_of_sample(config, splits, directory, folds, report)
    labels_N = np.concatenate([splits.train.labels, splits.val.labels])
    found = find_suspects(probabilities_NxK, labels_N)
    is_open_M = ~np.isin(indices_N[found.images], [decision.image for decision in decisions])
    images_M, suggestions_M = found.images[is_open_M], found.suggestions[is_open_M]
    train = len(splits.train.labels)
    suspects = [
        {
            "index": int(indices_N[image]),
            "split": "training" if image < train else "validation",
            "label": names[labels_N[image]],
            "label_probability": round(float(probabilities_NxK[image, labels_N[image]]), 6),
            "suggestion": names[suggestion],
            "confidence": round(float(probabilities_NxK[image, suggestion]), 6),
        }
        for image, suggestion in zip(images_M.tolist(), suggestions_M.tolist(), strict=True)
    ]
    values = {
        "out_of_sample_accuracy": float((probabilities_NxK.argmax(1) == labels_N).mean()),
        "images": len(labels_N),
        "folds": folds,
        "threshold": found.threshold,
        **_noise(probabilities_NxK, labels_N, names),
        "classes": _by_class(labels_N, images_M, suggestions_M, names),
        "suspects": suspects,
    }
    shown = [splits.train.images[i] if i < train else splits.val.images[i - train] for i in images_M[:SHOWN]]
    images = np.array(shown, np.uint8).reshape(-1, *config.data.image_shape)
    return Findings(values, images, decisions, names, rundir.read_identity(run_dir).digest)


def _check_source(run_dir: Path, config: ExperimentConfig) -> None:
    """Raises ConfigError if the run starts with layers that have seen its images, so that no fold is unseen."""
    source = config.transfer.source
    if source is not None:
        digests = [rundir.read_description(Path(path))["data_sha256"] for path in (source, run_dir)]
        if digests[0] == digests[1]:
            raise ConfigError(
                f"{run_dir} starts with layers of {source}, which was trained on the same images, so that no fold is "
                "unseen; name a run without --transfer.source"
            )


def _noise(probabilities_NxK: np.ndarray, labels_N: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The number of wrong labels by the estimated joint distribution, and the pairs of classes with most of them."""
    joint_KxK = estimate_joint(confident_joint(probabilities_NxK, labels_N), labels_N)
    wrong_KxK = joint_KxK * ~np.eye(len(joint_KxK), dtype=bool) * len(labels_N)
    order = np.argsort(-wrong_KxK, axis=None, kind="stable")[:PAIRS]
    pairs = [(names[i], names[j], float(wrong_KxK[i, j])) for i, j in (divmod(int(k), len(names)) for k in order)]
    return {
        "estimated_wrong": round(float(wrong_KxK.sum()), 1),
        "estimated_pairs": [
            {"label": label, "true": true, "images": round(images, 1)}
            for label, true, images in pairs
            if images >= 0.05
        ],
    }


def _by_class(
    labels_N: np.ndarray, images_M: np.ndarray, suggestions_M: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Each class with its images, its suspects and what is suggested for most of them."""
    images_K, rows = np.bincount(labels_N, minlength=len(names)), []
    for label, name in enumerate(names):
        suggested_K = np.bincount(suggestions_M[labels_N[images_M] == label], minlength=len(names))
        most = int(suggested_K.argmax())
        suggestion = {"suggestion": names[most], "suggested": int(suggested_K[most])} if suggested_K[most] else {}
        rows.append({"class": name, "images": int(images_K[label]), "suspects": int(suggested_K.sum()), **suggestion})
    return rows


def format_findings(values: dict[str, Any]) -> str:
    """Returns labels.json as a table: class, images, suspects, and the most frequent suggestion."""
    rows = values["classes"]
    if len(rows) > MANY:
        rows = sorted(rows, key=lambda row: -row["suspects"])[:WORST]
    names = [shortened(row["class"], NAME) for row in rows]
    width = max(14, *(columns(name) + 2 for name in names))
    lines = [f"{'class':{width}}{'images':>10}{'suspects':>10}  most frequent suggestion"]
    for name, row in zip(names, rows, strict=True):
        most = f"{shortened(row['suggestion'], NAME)} ({row['suggested']:,})" if row["suspects"] else ""
        lines.append(
            f"{name}{' ' * (width - columns(name))}{row['images']:>10,}{row['suspects']:>10,}  {most}".rstrip()
        )
    if len(rows) < len(values["classes"]):
        lines.append(f"and {len(values['classes']) - len(rows):,} other classes, with no more suspects, in labels.json")
    suspects = len(values["suspects"])
    lines += [
        "",
        f"{suspects:,} of {values['images']:,} labels are suspect: another class is more probable, and the label has a "
        f"probability of at most {values['threshold']:.4f}",
        f"accuracy on images left out: {values['out_of_sample_accuracy']:.4f}; "
        f"wrong labels by the confident joint, similar classes included: about {values['estimated_wrong']:,.0f}",
    ]
    return "\n".join(lines)
