"""Where arrays live."""

import os
from typing import Any

import jax

from cnn.errors import ConfigError


# jaxlib carries no types, so jax.Device is Any to a type checker.
def find_device(kind: str) -> Any:
    """Returns JAX's first device of a kind: "cpu", "gpu", "tpu", or "auto" for the fastest kind that is there.

    Raises:
      ConfigError: JAX sees no such device.
    """
    if kind == "auto":
        return jax.devices()[0]
    try:
        return jax.devices(kind)[0]
    except RuntimeError as error:
        raise ConfigError(
            f"--train.device is {kind!r}, but JAX sees no such device, only {jax.devices()[0].platform}; "
            "take auto, or install JAX's build for it: pip install -c constraints.txt -e '.[cuda]' or '.[tpu]'"
        ) from error


def usable_cores() -> int | None:
    """Returns the number of cores that this process may use, on which the bits of a result on CPU depend."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
