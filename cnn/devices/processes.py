"""Many processes as one run, on JAX's own engine: who is first, what all agree on, where they wait for each other."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from cnn.errors import ConfigError, UserError

HEARTBEAT_SECONDS = 10
"""A process that has said nothing for so long is taken for dead, and the others end."""


def join_processes(coordinator: str | None, processes: int | None, index: int | None) -> None:
    """Joins the other processes of the run; must come before JAX's first use of a device.

    Without arguments, JAX finds out from its surroundings: SLURM, Kubernetes, TPU pods and some others.

    Args:
      coordinator: host:port of the first process, which listens there and nowhere else.
      processes: how many there are.
      index: which one this is, from 0.

    Raises:
      ConfigError: they are not all given, or cannot be found, or the others do not come.
    """
    given = (coordinator, processes, index)
    if any(value is not None for value in given) and None in given:
        raise ConfigError("--coordinator, --processes and --process-index belong together; give all three or none")
    if processes is not None and index is not None and not 0 <= index < processes:
        raise ConfigError(f"--process-index is {index}, but must be from 0 to {processes - 1}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ConfigError(f"--coordinator is {coordinator!r}, but must be host:port, such as 10.0.0.1:8476")
    # It warns of proxies, and says what a cluster's detection tried.
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            index,
            coordinator_bind_address=coordinator or _detected_coordinator(),
            initialization_timeout=60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            # In the end, the others wait for the first one's pictures.
            shutdown_timeout_seconds=300,
        )
    # JAX raises several types here, of which none is public.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--distributed finds no other processes ({reason}); start this by SLURM, on Kubernetes or on a TPU pod, "
            "or name --coordinator HOST:PORT, --processes N and --process-index I"
        ) from error


def _detected_coordinator() -> str | None:
    """The coordinator's address as JAX detects it, if it is one of this host's and the user has named no other.

    Bound to nothing, the coordinator would listen on every interface, to anyone. JAX tells nobody what it has
    detected, so its own function is asked; behind a service's address, as on Kubernetes, nobody can listen.
    """
    from jax._src.clusters import ClusterEnv

    if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return None
    given = os.environ.get("JAX_COORDINATOR_ADDRESS")
    address = ClusterEnv.auto_detect_unset_distributed_params(given, None, None, None, None, 60)[0]
    host, _, port = (address or "").rpartition(":")
    try:
        with socket.create_server((host, 0)):
            return f"{socket.gethostbyname(host)}:{port}"
    except OSError:
        return None


def is_primary() -> bool:
    """Returns whether this process is the one that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def primary_first() -> Iterator[None]:
    """Lets the first process through the block before the others; if it raises, so do they."""
    if not is_primary() and allreduce_max(0):
        raise UserError("the first process has stopped, and says why")
    try:
        yield
    except BaseException:
        if is_primary():
            allreduce_max(1)
        raise
    if is_primary():
        allreduce_max(0)


def allreduce_max(number: int) -> int:
    """Returns the highest of the numbers that all processes, each at the same place, call this with."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def to_host(leaf: jax.Array) -> np.ndarray:
    """Returns an array in this process's memory, wherever its parts lie; all processes must ask for it."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(jax.device_get(leaf))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
