"""Shared by tests of runs: a narrow network, few images, an interruption, damage to files, results without times."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import cnn

ROOT = Path(__file__).parents[1]

NARROW = cnn.ModelConfig(conv1_features=4, conv2_features=4, dense_features=8)


def narrow(config: cnn.ExperimentConfig, **train_fields: Any) -> cnn.ExperimentConfig:
    """The experiment, narrow, so that a test compiles and trains in a second or two."""
    return dataclasses.replace(config, model=NARROW, train=dataclasses.replace(config.train, **train_fields))


def shrink(splits: cnn.Splits, *counts: int) -> cnn.Splits:
    """The first images of each split; one count is that of all three."""
    pairs = zip(splits, counts * (3 // len(counts)), strict=True)
    return cnn.Splits(*(cnn.Split(split.images[:count], split.labels[:count]) for split, count in pairs))


class Detector(NamedTuple):
    """A finished run of a detector of scenes."""

    run_dir: Path
    config: cnn.ExperimentConfig
    result: cnn.Result
    splits: cnn.Splits


class Interrupted(Exception):
    """Ends a run from within."""


def interrupt_after(epoch: int) -> Callable[[dict[str, Any]], None]:
    """A ``report`` of ``fit`` that ends the run when the epoch has been saved."""

    def report(row):
        if row["epoch"] == epoch:
            raise Interrupted

    return report


def assert_same(actual: Any, expected: Any) -> None:
    """Both trees have the same structure, and the same bits in every leaf."""
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def largest_file(checkpoint: Path) -> Path:
    """The file with most of a checkpoint's arrays."""
    return max(checkpoint.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_times(value: Any) -> Any:
    """Nested dicts and lists without the fields that say how long something took."""
    times = ("seconds", "images_per_second", "spent")
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name not in times}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value
