"""Digests of values, leaves and files, by which damage and foreign files are found."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.devices.processes import to_host
from cnn.text import regular_digest


def bytes_digest(content: bytes) -> str:
    """Returns the hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def json_digest(values: Any) -> str:
    """Returns the digest of JSON values, whatever the order of their fields."""
    return bytes_digest(json.dumps(values, sort_keys=True).encode())


def file_digests(directory: Path, but: str) -> dict[str, str]:
    """Returns the digest of each file in a directory and those below by its relative path, all but one.

    Raises:
      OSError: a directory or file cannot be read.
      ValueError: there is something that is neither a directory nor a regular file.
    """
    # Path.rglob would leave out what it cannot list, as if it were missing.
    found = [Path(place, name) for place, _, names in os.walk(directory, onerror=_raise) for name in names]
    return {str(path.relative_to(directory)): _file_digest(path) for path in sorted(found) if path.name != but}


def _raise(error: OSError) -> None:
    raise error


def _file_digest(path: Path) -> str:
    try:
        return regular_digest(path)
    except ValueError as error:
        raise ValueError(f"{path.name} is {error}") from None


def _leaves(arrays: Any) -> dict[str, Any]:
    """Each leaf by its name, such as "params/conv1/kernel"."""
    paths = jax.tree_util.tree_leaves_with_path(arrays)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def leaf_digests(arrays: Any) -> dict[str, str]:
    """Returns the digest of each leaf by name: orbax's own checksums do not cover the contents of the arrays."""
    leaves = _leaves(arrays).items()
    return {name: bytes_digest(np.ascontiguousarray(to_host(leaf)).tobytes()) for name, leaf in leaves}


def leaf_types(arrays: Any) -> dict[str, str]:
    """Returns the dtype and shape of each leaf by name, such as ``float32 [3, 3, 1, 32]``."""
    return {name: f"{leaf.dtype} {list(leaf.shape)}" for name, leaf in _leaves(arrays).items()}


def differing_leaves(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Returns ``"conv1/bias [32] -> missing"`` for each leaf in which two descriptions differ."""
    return [
        f"{name} {before.get(name, 'missing')} -> {after.get(name, 'missing')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
