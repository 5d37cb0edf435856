"""What several tests of runs share: a narrow network, a run that ends early, damage to files, results without times."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cnn

ROOT = Path(__file__).parents[1]

NARROW = cnn.ModelConfig(conv1_features=4, conv2_features=4, dense_features=8)


def narrow(config: cnn.ExperimentConfig, **train_fields: Any) -> cnn.ExperimentConfig:
    """The experiment, narrow, so that a test compiles and trains in a second or two."""
    return dataclasses.replace(config, model=NARROW, train=dataclasses.replace(config.train, **train_fields))


class Stopped(Exception):
    """What ends a run from within."""


def stop_after(epoch: int) -> Callable[[dict[str, Any]], None]:
    """What ``fit`` takes as ``report``: it ends the run when the epoch has been saved."""

    def report(row):
        if row["epoch"] == epoch:
            raise Stopped

    return report


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
