"""Configurations as dictionaries and back, and the fields in which two differ."""

import dataclasses
from typing import Any

from cnn.config import ExperimentConfig
from cnn.errors import ConfigError, FamilyError
from cnn.models import SHIPPED, ModelConfig
from cnn.models.family import Family, families
from cnn.rules import field_types
from cnn.text import VALUE, printable, shown


def config_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Returns the values of a configuration by option name, such as ``optim.batch_size``."""
    groups = dataclasses.asdict(config)
    del groups["name"]
    return {f"{group}.{name}": value for group, fields in groups.items() for name, value in fields.items()}


def from_dict(values: Any, cls: Any = ExperimentConfig, prefix: str = "") -> Any:
    """Returns the configuration that ``dataclasses.asdict`` was given; missing fields take their defaults.

    Args:
      values: the result of ``dataclasses.asdict``, perhaps read from JSON.
      cls: the dataclass to construct.
      prefix: path of ``values`` within the configuration, for messages.

    Raises:
      ConfigError: a field is unknown, or its value is not allowed.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"{prefix or 'the configuration'} is {shown(values)}, but must be an object with named fields"
        )
    names = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ConfigError(f"unknown field {prefix}{printable(unknown[0], VALUE)}; the fields are {', '.join(names)}")
    fields = {}
    for name, value in values.items():
        kind = field_types(cls, name)[0]
        if kind is Family:
            kind, value = _select_family(value)
        if dataclasses.is_dataclass(kind):
            value = from_dict(value, kind, f"{prefix}{name}.")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def _select_family(values: Any) -> tuple[type[Family], Any]:
    """Returns the model configuration that the ``family`` of the values names, and the other values.

    Only classes that have been imported are found: the word of a file imports nothing.
    """
    if not isinstance(values, dict) or "family" not in values:
        return ModelConfig, values
    family, known = values["family"], families()
    allowed = (
        f"one of {', '.join(cls.family for cls in SHIPPED)}, or one that is imported: --experiment MODULE names it"
    )
    if not isinstance(family, str) or family not in known:
        raise FamilyError(f"--model.family is {shown(family)}, but must be {allowed}")
    return known[family], {name: value for name, value in values.items() if name != "family"}


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns ``"optim.batch_size 32 -> 64"`` for each field in which two configurations differ."""
    if type(old) is not type(new):
        return [f"{prefix}family {old.family} -> {new.family}"]
    changes = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(before):
            changes += differences(before, after, f"{prefix}{f.name}.")
        elif before != after:
            changes.append(f"{prefix}{f.name} {before} -> {after}")
    return changes
