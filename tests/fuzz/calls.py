"""Calls of the public functions of cnn with one wrong value: right values of each parameter, and wrong ones."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import cnn


class Call(NamedTuple):
    """A call of a function of ``cnn.__all__`` whose arguments are right but for one."""

    function: str
    parameter: str
    """Its name; ``batch.mask`` is a field of it."""
    value: str
    """Of VALUES."""


class WronglyTaken(Exception):
    """A function returned although a value was wrong."""


def _raises(*args: Any) -> Any:
    raise ZeroDivisionError("from the caller's own function")


VALUES: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "None": (lambda: None, {"optional"}),
    "True": (lambda: True, {"bool"}),
    "-1": (lambda: -1, set()),
    "0": (lambda: 0, {"integer0"}),
    "1": (lambda: 1, {"integer0", "integer1"}),
    "1.5": (lambda: 1.5, set()),
    "NaN": (lambda: float("nan"), set()),
    "infinity": (lambda: float("inf"), set()),
    "10**400": (lambda: 10**400, set()),
    "-10**30": (lambda: -(10**30), set()),
    "an empty text": (lambda: "", set()),
    "a text": (lambda: "text", {"new", "name"}),
    "no": (lambda: "no", {"new", "name"}),
    "two lines in colour": (lambda: "a\n\x1b[31mb", {"new"}),
    "a text with a zero byte": (lambda: "a\0b", set()),
    "a lone surrogate": (lambda: "\ud800", set()),
    "a text of 5,000 letters": (lambda: "x" * 5000, set()),
    "bytes": (lambda: b"\xff", set()),
    "an empty list": (lambda: [], {"names"}),
    "an empty tuple": (lambda: (), {"names", "tuple"}),
    "an empty dict": (lambda: {}, {"mapping"}),
    "a list of a text": (lambda: ["text"], {"names?"}),
    "a list of itself": (lambda: _cycle(), set()),
    "a dict of a number": (lambda: {"a": 1}, set()),
    "an object": (object, set()),
    "a type": (lambda: int, {"callable"}),
    "a function that raises": (lambda: _raises, {"callable"}),
    "a path that is a directory": (lambda: Path("empty"), {"new"}),
    "a path of a pipe": (lambda: Path("files/pipe"), set()),
    "a path of notes": (lambda: Path("files/notes.txt"), set()),
    "a path of another run": (lambda: Path("runs/other"), {"run"}),
    "uint8 [0]": (lambda: np.zeros(0, np.uint8), set()),
    "uint8 [16]": (lambda: np.ones(16, np.uint8), {"labels"}),
    "uint8 [16, 28, 28]": (lambda: np.zeros((16, 28, 28), np.uint8), set()),
    "uint8 [0, 28, 28, 1]": (lambda: np.zeros((0, 28, 28, 1), np.uint8), {"empty"}),
    "uint8 [3, 28, 28, 1]": (lambda: np.zeros((3, 28, 28, 1), np.uint8), {"images"}),
    "uint8 [16, 28, 28, 3]": (lambda: np.zeros((16, 28, 28, 3), np.uint8), set()),
    "float32 [16, 28, 28, 1]": (lambda: np.zeros((16, 28, 28, 1), np.float32), set()),
    "int64 [16, 28, 28, 1] of 300": (lambda: np.full((16, 28, 28, 1), 300), set()),
    "int32 [16] of 10": (lambda: np.full(16, 10, np.int32), set()),
    "int32 [16] of -1": (lambda: np.full(16, -1, np.int32), set()),
    "int64 [16] of 2**32": (lambda: np.full(16, 2**32), set()),
    "float64 [16] of NaN": (lambda: np.full(16, np.nan), set()),
    "float32 [16] of 0.5": (lambda: np.full(16, 0.5, np.float32), set()),
    "bool [16, 1]": (lambda: np.ones((16, 1), bool), set()),
    "bool [3]": (lambda: np.ones(3, bool), set()),
    "objects [16]": (lambda: np.array([None] * 16), set()),
    "texts [16]": (lambda: np.array(["a"] * 16), set()),
    "a JAX key": (lambda: jax.random.key(0), set()),
}


def _cycle() -> list:
    inner: list = []
    inner.append(inner)
    return inner


@cache
def tiny_config() -> cnn.ExperimentConfig:
    """That of the runs of the tree."""
    return cnn.ExperimentConfig(
        model=cnn.ModelConfig(conv1_features=2, conv2_features=2, dense_features=4),
        optim=cnn.OptimConfig(batch_size=16),
        train=cnn.TrainConfig(epochs=2),
        log=cnn.LogConfig(figures=False),
    )


def interrupted_run(options: tuple[str, ...], run_dir: str) -> None:
    """Trains an epoch of the run that the options start, and raises Interrupted."""
    from tests.helpers import interrupt_after

    cnn.fit(tiny_config(), run_dir, report=interrupt_after(1))


def _images() -> Any:
    return np.full((16, 28, 28, 1), 7, np.uint8)


def _split() -> cnn.Split:
    return cnn.Split(_images(), np.arange(16, dtype=np.int32) % 10)


def _state() -> cnn.TrainState:
    return cnn.create_state(tiny_config(), 64)


GOOD: dict[str, Callable[[], Any]] = {
    "state": _state,
    "source": _state,
    "images": _images,
    "labels": lambda: np.arange(16, dtype=np.int32) % 10,
    "mask": lambda: np.ones(16, bool),
    "batch": lambda: cnn.Batch(_images(), np.arange(16, dtype=np.int32) % 10),
    "split": _split,
    "train": _split,
    "val": _split,
    "test": _split,
    "splits": lambda: cnn.Splits(_split(), _split(), _split()),
    "metrics": lambda: cnn.Metrics(*map(np.float32, (0, 0, 0))),
    "steps": lambda: 1,
    "batch_size": lambda: 16,
    "config": tiny_config,
    "run_dir": lambda: "runs/good",
    "file": lambda: "files/weights.safetensors",
    "path": lambda: "files/boot.png",
    "shape": lambda: (28, 28, 1),
    "invert": lambda: None,
    "resize": lambda: "pad",
    "seeds": lambda: [0],
    "grid": lambda: {"optim.learning_rate": [0.01]},
    "directory": lambda: "new",
    "patterns": lambda: ["conv*"],
    "train_images": lambda: 64,
    "mesh": lambda: None,
    "teachers": lambda: (),
    "kind": lambda: "cpu",
    "report": lambda: lambda *args: None,
    "warn": lambda: lambda *args: None,
    "track": lambda: lambda *args: None,
    "together": lambda: None,
}
"""A right value by the name of a parameter."""

GOOD_OF: dict[tuple[str, str], Callable[[], Any]] = {
    ("class_names", "config"): cnn.DataConfig,
    ("load_data", "config"): cnn.DataConfig,
    ("make_mesh", "config"): cnn.MeshConfig,
    ("load_safetensors", "config"): lambda: None,
    ("fit", "run_dir"): lambda: "new",
    ("load_images", "path"): lambda: "files/classes",
}
"""Where it depends on the function."""

FITS: dict[str, set[str]] = {
    "images": {"images", "empty"},
    "labels": {"labels"},
    "mask": {"optional"},
    "splits": {"optional"},
    "steps": {"integer0", "integer1"},
    "batch_size": {"integer1"},
    "config": set(),
    "run_dir": {"run"},
    "invert": {"optional", "bool"},
    "directory": {"new"},
    "grid": {"mapping"},
    "train_images": {"optional", "integer1"},
    "mesh": {"optional"},
    "teachers": {"tuple"},
    "report": {"callable"},
    "warn": {"callable"},
    "track": {"callable"},
    "together": {"optional", "bool"},
}
"""Marks of the values that are right, by the name of a parameter; of VALUES none, where it is not listed."""

FITS_OF: dict[tuple[str, str], set[str]] = {
    ("fit", "run_dir"): {"new"},
    ("load_safetensors", "config"): {"optional"},
    ("fit_seeds", "seeds"): set(),
}

FIELDS = {
    "batch": ("images", "labels", "mask"),
    "split": ("images", "labels"),
    "splits": ("train", "val", "test"),
}


def _signature(function: str) -> inspect.Signature:
    value = getattr(cnn, function)
    return inspect.signature(getattr(value, "_function", value))


def _names(function: str) -> list[str]:
    found = _signature(function).parameters.values()
    return [parameter.name for parameter in found if parameter.kind is not parameter.VAR_KEYWORD]


@cache
def parameters() -> dict[str, list[str]]:
    """The parameters, and fields of them, of all public functions and configurations, by name of the function."""
    found = {}
    for name in cnn.__all__:
        value = getattr(cnn, name)
        if isinstance(value, type):
            if dataclasses.is_dataclass(value) and name.endswith("Config"):
                found[name] = [field.name for field in dataclasses.fields(value) if field.init]
            continue
        names = _names(name)
        if not names:
            continue
        found[name] = names + [f"{outer}.{inner}" for outer in names for inner in FIELDS.get(outer, ())]
    return found


def is_right(call: Call) -> bool:
    """Whether the value is right, or may be."""
    marks = VALUES[call.value][1]
    if call.function.endswith("Config"):
        return _fits_field(getattr(cnn, call.function), call.parameter, VALUES[call.value][0]())
    name = call.parameter.rpartition(".")[2]
    return bool(marks & FITS_OF.get((call.function, name), FITS.get(name, set())))


def _fits_field(cls: type, field: str, value: Any) -> bool:
    kind = typing.get_type_hints(cls)[field]
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for one in kinds:
        origin = typing.get_origin(one)
        if origin is Literal and any(type(value) is type(right) and value == right for right in typing.get_args(one)):
            return True
        plain = tuple if origin is tuple else one
        if isinstance(plain, type) and isinstance(value, float if plain is float else plain):
            # The rest is the rule's: whether it lets a right type through.
            return isinstance(value, bool) == (plain is bool)
        if one is float and isinstance(value, int) and not isinstance(value, bool):
            return abs(value) < 10**300
    return False


def run(call: Call) -> None:
    """Makes the call.

    Raises:
      WronglyTaken: it returned, although the value is wrong.
    """
    function, value = getattr(cnn, call.function), VALUES[call.value][0]()
    if call.function.endswith("Config"):
        function(**{call.parameter: value})
    else:
        arguments = {}
        outer, _, inner = call.parameter.partition(".")
        for name in _names(call.function):
            good = GOOD_OF.get((call.function, name), GOOD[name])
            if name != outer:
                arguments[name] = good()
            elif inner:
                arguments[name] = good()._replace(**{inner: value})
            else:
                arguments[name] = value
        keywords = {name: arguments.pop(name) for name in ("batch_size",) if name in arguments}
        jax.block_until_ready(function(*arguments.values(), **keywords))
    if not is_right(call):
        raise WronglyTaken(f"{call.function} took {call.value} for {call.parameter}")
