"""Multi-process runs with jax.distributed: the primary process, collectives on the host, barriers, exit."""

import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import jax
import numpy as np

from cnn.errors import ConfigError, Stopped, UserError

HEARTBEAT_SECONDS = 10
"""Heartbeat timeout; the other processes exit when it expires."""


def join_processes(coordinator: str | None, processes: int | None, index: int | None) -> None:
    """Joins the other processes of the run; call this before JAX's first use of a device.

    Without arguments, JAX detects the cluster: SLURM, Kubernetes, TPU pods and some others.

    Args:
      coordinator: host:port of the primary process, which listens only there.
      processes: number of processes.
      index: index of this process, from 0.

    Raises:
      ConfigError: an argument is missing or invalid, no cluster is detected, or the others do not join in time.
    """
    given = (coordinator, processes, index)
    if any(value is not None for value in given) and None in given:
        raise ConfigError("--coordinator, --processes and --process-index belong together; give all three or none")
    if processes is not None and index is not None and not 0 <= index < processes:
        raise ConfigError(f"--process-index is {index}, but must be from 0 to {processes - 1}")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise ConfigError(f"--coordinator is {coordinator!r}, but must be host:port, such as 10.0.0.1:8476")
    # It warns about proxies and logs each attempt to detect a cluster.
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            index,
            coordinator_bind_address=coordinator or _detected_coordinator(),
            initialization_timeout=60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            # At the end, the other processes wait while the primary process draws figures.
            shutdown_timeout_seconds=300,
        )
    # JAX raises several types here, none of them public.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--distributed could not join other processes ({reason}); use SLURM, Kubernetes or a TPU pod, "
            "or give --coordinator HOST:PORT, --processes N and --process-index I"
        ) from error


def _detected_coordinator() -> str | None:
    """Returns the coordinator's address as JAX detects it, if it is this host's and the user has set no other.

    Without a bind address, the coordinator would listen on every interface, to anyone. JAX does not publish the address
    that it detected, so its own function is called; the address of a service, as on Kubernetes, cannot be bound.
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
    """Returns whether this is the process that writes and prints."""
    return jax.process_index() == 0


@contextmanager
def primary_first() -> Iterator[None]:
    """Runs the block on the primary process before the others; if it raises there, it raises on all."""
    if not is_primary() and allreduce_max(0):
        raise UserError("the primary process has failed; see its error message")
    try:
        yield
    except BaseException:
        if is_primary():
            allreduce_max(1)
        raise
    if is_primary():
        allreduce_max(0)


def allreduce_max(number: int) -> int:
    """Returns the maximum of a number over all processes; all must call it at the same point."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def to_host(leaf: jax.Array) -> np.ndarray:
    """Returns an array in host memory, wherever its shards are; all processes must call it."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(jax.device_get(leaf))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def leave(command: Callable[[], None], exit_status: Callable[[Callable[[], None]], int]) -> NoReturn:
    """Runs a command and ends this process with its exit status.

    Of several processes, one that fails ends at once: an orderly exit would wait for processes that may be waiting for
    this one. A signal that all have agreed on ends all of them in order.

    Args:
      command: what to run.
      exit_status: runs it, reports the user's errors, and returns the status.
    """
    in_order = True

    def run():
        nonlocal in_order
        try:
            command()
        except BaseException as error:
            in_order = isinstance(error, Stopped)
            raise

    try:
        status = exit_status(run)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        status = 1
    if not in_order and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
