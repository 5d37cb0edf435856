"""What a field of a configuration may hold: a rule beside the field's type, checked when the configuration is made."""

import math
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

from cnn.errors import ConfigError


class Rule(NamedTuple):
    """What a value must be; ``Annotated[int, Rule(...)]`` gives a field its rule."""

    holds: Callable[[Any], bool]
    allowed: str
    """The same in words, after "must be"."""


def integer(least: int, most: int | None = None) -> Rule:
    """Returns the rule of integers from ``least``, and to ``most`` if there is an end."""
    return Rule(
        lambda value: _is_integer(value) and least <= value and (most is None or value <= most),
        f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}",
    )


def integers(least: int, shortest: int = 0) -> Rule:
    """Returns the rule of tuples of integers from ``least``, so many of them at least."""

    def holds(value):
        return isinstance(value, tuple) and len(value) >= shortest and all(_is_integer(v) and v >= least for v in value)

    return Rule(holds, f"integers of at least {least}{f', {shortest} or more of them' if shortest else ''}")


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
    """Raises ConfigError, which names field, value and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(f"--{name} is {value!r}, but must be {allowed}")


@cache
def _rules(cls: type) -> list[tuple[str, Rule]]:
    """The rules of a dataclass's fields: those beside their types, and those that their types are."""
    found = []
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        found += [(name, rule) for rule in getattr(kind, "__metadata__", ()) if isinstance(rule, Rule)]
        if typing.get_origin(kind) is Literal:
            options = typing.get_args(kind)
            found.append((name, Rule(lambda value, o=options: value in o, f"one of {', '.join(options)}")))
        elif kind is bool:
            found.append((name, Rule(lambda value: isinstance(value, bool), "true or false")))
    return found


class Checked:
    """Base of a frozen dataclass whose fields are checked against their rules when it is made."""

    group = ""
    """Where it lies in the whole configuration, for the message: "optim" makes it ``--optim.batch_size is 0, ...``."""

    def __post_init__(self):
        """Raises ConfigError for the first field whose value its rule does not allow."""
        for name, rule in _rules(type(self)):
            value = getattr(self, name)
            require(rule.holds(value), f"{self.group}.{name}", value, rule.allowed)
