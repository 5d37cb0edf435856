"""Which run a directory holds, and whether its files are of that run: digests of the values in config.json."""

import uuid
from typing import Any, NamedTuple

from cnn.runs.digests import json_digest

ID = "run"
"""The field of config.json that no other run has; older runs have none."""

RUN = "run_sha256"
"""The field of a checkpoint's description that names its run."""

_CONFIG, _RESULT = "config_sha256", "sha256"
"""Fields of result.json: the digest of config.json's values, and that of its own other values."""

SIGNED = _CONFIG, _RESULT


class Identity(NamedTuple):
    """A run, as its checkpoints name it."""

    digest: str
    """Of the values in config.json, but the number of epochs if it may be raised."""
    is_recorded: bool
    """Whether everything that the run has written names it."""

    def is_named_by(self, description: dict[str, Any]) -> bool:
        """Returns whether a checkpoint is of this run; one that names none is, if it may be older than the names."""
        return description.get(RUN, None if self.is_recorded else self.digest) == self.digest


def new_id() -> str:
    """Returns a random ID: two runs of one configuration and one data set are two runs."""
    return uuid.uuid4().hex


def identify(values: dict[str, Any]) -> Identity:
    """Returns the identity of the run with these values in its config.json."""
    config, train = values["config"], values["config"].get("train", {})
    # As of rundir.check_entries, which lets only these runs train longer.
    if config.get("optim", {}).get("schedule", "constant") == "constant" and not train.get("fused"):
        train = {name: value for name, value in train.items() if name != "epochs"}
    return Identity(json_digest({**values, "config": {**config, "train": train}}), ID in values)


def sign(result: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Returns a result with digests of config.json's values and of its own, instead of those that it may have."""
    result = {name: value for name, value in result.items() if name not in SIGNED} | {_CONFIG: json_digest(values)}
    return {**result, _RESULT: json_digest(result)}


def is_signed(result: dict[str, Any], values: dict[str, Any]) -> bool:
    """Returns whether a result has its digests, which is so unless it may be older than they are."""
    return ID in values or _RESULT in result


def differing_digest(result: dict[str, Any], values: dict[str, Any]) -> str:
    """Returns what a result does not agree with: its own digest or that of config.json; "" if it agrees with both."""
    expected = sign(result, values)
    if result.get(_RESULT) != json_digest({name: value for name, value in result.items() if name != _RESULT}):
        return "its digest"
    return "" if result == expected else "config.json"
