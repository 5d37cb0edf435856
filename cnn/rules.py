"""Validation rules of configuration fields, annotated beside their types and checked on construction."""

import dataclasses
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

from cnn.errors import ConfigError
from cnn.text import shown

INT32 = 2**31 - 1
"""Largest integer of a configuration: JAX's integers have 32 bits."""

FLOAT32 = 3.4e38
"""Largest number of a configuration, rounded down."""


Function = TypeVar("Function", bound=Callable[..., Any])


class Rule(NamedTuple):
    """A condition on a value; ``Annotated[int, Rule(...)]`` attaches it to a field."""

    holds: Callable[[Any], bool]
    allowed: str
    """The allowed values in words, after "must be"."""


def integer(minimum: int, maximum: int = INT32) -> Rule:
    """Returns the rule for integers from ``minimum`` to ``maximum``."""
    return Rule(
        lambda value: _is_integer(value) and minimum <= value <= maximum, f"an integer from {minimum} to {maximum:,}"
    )


def zero_or(minimum: int, maximum: int) -> Rule:
    """Returns the rule for 0 and the integers from ``minimum`` to ``maximum``."""
    rule = integer(minimum, maximum)
    return Rule(lambda value: _is_integer(value) and (value == 0 or rule.holds(value)), f"0 or {rule.allowed}")


def integers(minimum: int, maximum: int, min_length: int = 0, max_length: int = 200) -> Rule:
    """Returns the rule for tuples of ``min_length`` to ``max_length`` integers from ``minimum`` to ``maximum``."""
    one = integer(minimum, maximum)
    return Rule(
        lambda value: (
            isinstance(value, tuple) and min_length <= len(value) <= max_length and all(map(one.holds, value))
        ),
        f"{min_length} to {max_length} integers from {minimum} to {maximum:,}",
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -FLOAT32 <= value <= FLOAT32


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200


def _is_path(value: object) -> bool:
    # It is written to config.json, in UTF-8.
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_file_name(value: object) -> bool:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    # Half of a surrogate pair cannot be part of a name; a byte that is not UTF-8 can.
    if not isinstance(text, str) or text == "" or any(c == "\0" or "\ud800" <= c <= "\udc7f" for c in text):
        return False
    parts = os.fsencode(text).split(b"/")
    return sum(map(len, parts)) < 4000 and max(map(len, parts)) <= 255


def _is_grid(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(field, str) and hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping)
        for field, values in value.items()
    )


def _unique(values: tuple) -> bool:
    return len(set(values)) == len(values)


def _is_multiplier(value: object) -> bool:
    pattern, _, factor = value.rpartition("=") if isinstance(value, str) else ("", "", "")
    try:
        return _is_text(pattern) and 0 <= float(factor) <= FLOAT32
    except ValueError:
        return False


def _texts(min_length: int = 0, is_one: Callable[[Any], bool] = _is_text) -> Callable[[Any], bool]:
    """Returns the condition on a tuple of at least ``min_length`` texts of which each fulfils another."""
    return lambda value: isinstance(value, tuple) and len(value) >= min_length and all(map(is_one, value))


POSITIVE = Rule(lambda value: _is_real(value) and value > 0, "a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: _is_real(value) and value >= 0, "a finite number of at least 0")
FRACTION = Rule(lambda value: _is_real(value) and 0 < value < 1, "between 0 and 1, exclusive")
RATE = Rule(lambda value: _is_real(value) and 0 <= value < 1, "at least 0 and below 1")
PROBABILITY = Rule(lambda value: _is_real(value) and 0 <= value <= 1, "from 0 to 1")
SHARE = Rule(lambda value: _is_real(value) and (value == 0 or 0.01 <= value <= 1), "0, or from 0.01 to 1")
DEGREES = Rule(lambda value: _is_real(value) and 0 <= value <= 180, "from 0 to 180")
SEED = integer(0, 2**32 - 1)
CONCENTRATION = Rule(lambda value: _is_real(value) and (value == 0 or 1e-3 <= value <= 1e3), "0, or from 0.001 to 1000")
MULTIPLIERS = Rule(
    _texts(is_one=_is_multiplier),
    "layer names or patterns with finite numbers of at least 0, such as conv*=0.1",
)
NAMES = Rule(
    _texts(min_length=1),
    "layer names or patterns, such as conv*, at least one",
)
IMAGE_SIZE = Rule(
    lambda value: isinstance(value, tuple) and len(value) <= 2 and all(map(integer(1, 4096).holds, value)),
    "a height and a width from 1 to 4096, or one number for both",
)
CLASS_NAMES = Rule(
    lambda value: _texts()(value) and _unique(value),
    "names of at most 200 printable characters, one for each class, no two alike",
)
COUNTS = integers(0, 2**31 - 1, max_length=65_536)
PATH = Rule(lambda value: value is None or _is_path(value), "the path of a directory, in UTF-8")
PATHS = Rule(
    lambda value: isinstance(value, tuple) and len(value) <= 16 and all(map(_is_path, value)),
    "the paths of at most 16 directories, in UTF-8",
)
FILE = Rule(_is_file_name, "the path of a file or directory, whose names have at most 255 bytes")
FUNCTION = Rule(callable, "a function")
GRID = Rule(_is_grid, "a dict of sequences by field, such as {'augment.flip': [True, False]}")
YES_NO = Rule(lambda value: isinstance(value, bool), "True or False")
WIDTH = integer(1, 65_536)
BLOCKS = integer(1, 200)


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises ConfigError, which names field, value and allowed values, unless the condition holds."""
    if not condition:
        raise ConfigError(f"--{name} is {shown(value)}, but must be {allowed}")


def one_of(options: tuple[str | int, ...]) -> Rule:
    """Returns the rule for one of some texts or integers."""
    return Rule(
        lambda value: isinstance(value, str | int) and not isinstance(value, bool) and value in options,
        f"one of {', '.join(map(str, options))}",
    )


def instance(kind: type, allowed: str = "") -> Rule:
    """Returns the rule for instances of a class, by default one of ``cnn``."""
    return Rule(lambda value: isinstance(value, kind), allowed or f"a cnn.{kind.__name__}")


def instances(kind: type) -> Rule:
    """Returns the rule for tuples of instances of a class of ``cnn``."""
    allowed = f"a tuple of cnn.{kind.__name__}"
    return Rule(lambda value: isinstance(value, tuple) and all(isinstance(one, kind) for one in value), allowed)


def optional(rule: Rule) -> Rule:
    """Returns the rule for None and what another rule allows."""
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.allowed}, or None")


def checked(**rules: Rule) -> Callable[[Function], Function]:
    """Returns the decorator of a public function whose arguments must follow rules, whatever a caller passes.

    The function raises ConfigError for the first that does not, before it does anything.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            for name, rule in rules.items():
                if name in given and not rule.holds(given[name]):
                    raise ConfigError(f"{name} is {shown(given[name])}, but must be {rule.allowed}")
            return function(*args, **kwargs)

        return cast(Function, call)

    return decorate


@cache
def _rules(cls: type) -> list[tuple[str, Rule]]:
    """Returns the rules of a dataclass's fields: those annotated, and those implied by Literal and bool."""
    rules = []
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        rules += [(name, rule) for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, Rule)]
        if typing.get_origin(kind) is Literal:
            options = typing.get_args(kind)
            rules.append((name, one_of(options)))
        elif kind is bool:
            rules.append((name, YES_NO._replace(allowed="true or false")))
    return rules


@cache
def _real_fields(cls: type) -> list[str]:
    return [name for name, kind in typing.get_type_hints(cls).items() if kind is float]


class Checked:
    """Base of a frozen dataclass whose fields are checked against their rules on construction."""

    group = ""
    """Field name in ExperimentConfig, for messages: "optim" gives ``--optim.batch_size is 0, ...``."""

    def __post_init__(self):
        """Raises ConfigError for the first field whose value breaks its rule."""
        for name, rule in _rules(type(self)):
            value = getattr(self, name)
            require(rule.holds(value), f"{self.group}.{name}", value, rule.allowed)
        for name in _real_fields(type(self)):
            # JAX cannot convert every integer that a float can be.
            object.__setattr__(self, name, float(getattr(self, name)))


OF_CLASSIFICATION = {
    "augment": (),
    "distill": (),
    "optim": ("label_smoothing", "class_weights"),
    "train": ("dynamics",),
}
"""Fields that a detector has no use for, by group; () for all of a group."""


def check_task(config: Any) -> None:
    """Raises ConfigError if an experiment has a field of classification only with a detector, or vice versa."""
    family, monitor = config.model.family, config.train.monitor
    if config.model.task == "classification":
        require(not config.data.scenes, "data.scenes", config.data.scenes, f"0 with {family}, a classifier")
        require(monitor != "val_map", "train.monitor", monitor, f"another with {family}, a classifier")
        return
    for group, names in OF_CLASSIFICATION.items():
        given = getattr(config, group)
        for name in names or [field.name for field in dataclasses.fields(given)]:
            value, default = getattr(given, name), getattr(type(given)(), name)
            require(value == default, f"{group}.{name}", value, f"left out with {family}, a detector")
    monitors = "val_loss", "val_accuracy", "val_map"
    require(monitor in monitors, "train.monitor", monitor, f"one of {', '.join(monitors)} with {family}, a detector")


def field_types(cls: type, name: str) -> tuple[Any, ...]:
    """Returns the type of a field, or all types of a union."""
    kind = typing.get_type_hints(cls)[name]
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
