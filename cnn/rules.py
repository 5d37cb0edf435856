"""Validation rules of configuration fields, annotated beside their types and checked on construction."""

import math
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

from cnn.errors import ConfigError


class Rule(NamedTuple):
    """A condition on a value; ``Annotated[int, Rule(...)]`` attaches it to a field."""

    holds: Callable[[Any], bool]
    allowed: str
    """The allowed values in words, after "must be"."""


def integer(minimum: int, maximum: int | None = None) -> Rule:
    """Returns the rule for integers of at least ``minimum`` and, if given, at most ``maximum``."""
    return Rule(
        lambda value: _is_integer(value) and minimum <= value and (maximum is None or value <= maximum),
        f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}",
    )


def integers(minimum: int, min_length: int = 0) -> Rule:
    """Returns the rule for tuples of at least ``min_length`` integers, each at least ``minimum``."""

    def holds(value):
        return isinstance(value, tuple) and len(value) >= min_length and all(map(integer(minimum).holds, value))

    return Rule(holds, f"integers of at least {minimum}{f', {min_length} or more of them' if min_length else ''}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_multiplier(value: object) -> bool:
    pattern, _, factor = value.rpartition("=") if isinstance(value, str) else ("", "", "")
    try:
        return pattern != "" and 0 <= float(factor) < math.inf
    except ValueError:
        return False


POSITIVE = Rule(lambda value: _is_real(value) and value > 0, "a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: _is_real(value) and value >= 0, "a finite number of at least 0")
FRACTION = Rule(lambda value: _is_real(value) and 0 < value < 1, "between 0 and 1, exclusive")
RATE = Rule(lambda value: _is_real(value) and 0 <= value < 1, "at least 0 and below 1")
PROBABILITY = Rule(lambda value: _is_real(value) and 0 <= value <= 1, "from 0 to 1")
SEED = Rule(lambda value: _is_integer(value) and 0 <= value < 2**32, "an integer from 0 to 2**32 - 1")
MULTIPLIERS = Rule(
    lambda value: isinstance(value, tuple) and all(_is_multiplier(one) for one in value),
    "layer names or patterns with finite numbers of at least 0, such as conv*=0.1",
)
NAMES = Rule(
    lambda value: isinstance(value, tuple) and value != () and all(isinstance(one, str) for one in value),
    "layer names or patterns, such as conv*, at least one",
)
PATH = Rule(lambda value: value is None or isinstance(value, str), "the path of a directory")


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raises ConfigError, which names field, value and allowed values, unless the condition holds."""
    if not condition:
        raise ConfigError(f"--{name} is {value!r}, but must be {allowed}")


@cache
def _rules(cls: type) -> list[tuple[str, Rule]]:
    """Returns the rules of a dataclass's fields: those annotated, and those implied by Literal and bool."""
    rules = []
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        rules += [(name, rule) for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, Rule)]
        if typing.get_origin(kind) is Literal:
            options = typing.get_args(kind)
            rules.append((name, Rule(lambda value, o=options: value in o, f"one of {', '.join(options)}")))
        elif kind is bool:
            rules.append((name, Rule(lambda value: isinstance(value, bool), "true or false")))
    return rules


class Checked:
    """Base of a frozen dataclass whose fields are checked against their rules on construction."""

    group = ""
    """Field name in ExperimentConfig, for messages: "optim" gives ``--optim.batch_size is 0, ...``."""

    def __post_init__(self):
        """Raises ConfigError for the first field whose value breaks its rule."""
        for name, rule in _rules(type(self)):
            value = getattr(self, name)
            require(rule.holds(value), f"{self.group}.{name}", value, rule.allowed)
