"""The device mesh, and the sharding of arrays on it: images over ``data``, features of parameters over ``model``.

The step functions are the same on any mesh; XLA inserts the collectives.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import P
from jax.sharding import AxisType, Mesh, NamedSharding

from cnn.config import MeshConfig
from cnn.devices.processes import to_host
from cnn.errors import ConfigError, install_command
from cnn.rules import Rule, checked, instance


# jaxlib carries no types, so jax.Device is Any to a type checker.
def find_devices(kind: str) -> list[Any]:
    """Returns the devices of a kind in all processes: "cpu", "gpu", "tpu", or "auto" for the fastest kind.

    Raises:
      ConfigError: JAX finds no device of this kind.
    """
    if kind == "auto":
        return jax.devices()
    try:
        return jax.devices(kind)
    except RuntimeError as error:
        raise ConfigError(
            f"--train.device is {kind!r}, but JAX sees no such device, only {jax.devices()[0].platform}; "
            f"use auto, or install JAX's build for it: {install_command('tpu' if kind == 'tpu' else 'cuda')}"
        ) from error


@checked(config=instance(MeshConfig), kind=Rule(lambda kind: isinstance(kind, str) and kind != "", "a kind of device"))
def make_mesh(config: MeshConfig, kind: str = "auto") -> Mesh:
    """Returns the mesh, with axes ``data`` and ``model``, of the devices of a kind in all processes.

    Raises:
      ConfigError: there are not enough devices or, with several processes, too many.
    """
    devices = find_devices(kind)
    data = config.data or max(len(devices) // config.model, 1)
    size = data * config.model
    if size > len(devices) or (jax.process_count() > 1 and size < len(devices)):
        raise ConfigError(
            f"--mesh.data {config.data} and --mesh.model {config.model} do not fit {len(devices)} devices; "
            f"their product must be {'exactly' if jax.process_count() > 1 else 'at most'} that"
        )
    return jax.make_mesh((data, config.model), ("data", "model"), (AxisType.Auto,) * 2, devices=devices[:size])


def unaliased(array: Any) -> Any:
    """Returns a copy of a NumPy array that its owner may write to; anything else as it is, such as a file mapped "r".

    On a CPU, JAX may read a NumPy array where it lies, even after the call has returned (jax-ml/jax#37830).
    """
    owner = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return np.array(array)
        owner = owner.base
    return array


def replicate(arrays: Any, mesh: Mesh) -> Any:
    """Returns host arrays, equal in all processes, replicated on every device of the mesh; not aliases of them."""
    arrays = jax.tree.map(unaliased, arrays)
    if mesh.size == 1:
        return jax.device_put(arrays, mesh.devices.item())
    replicated = NamedSharding(mesh, P())
    # device_put would send the arrays to the other processes to compare them.
    return jax.tree.map(
        lambda array: jax.make_array_from_callback(array.shape, replicated, lambda part: np.asarray(array)[part]),
        arrays,
    )


def shard_features(tree: Any, mesh: Mesh | None) -> Any:
    """Returns a traced state with the last axis of each leaf sharded over ``model``, where ``model`` divides it."""
    if mesh is None:
        return tree

    def place(leaf):
        divides = leaf.ndim > 0 and leaf.shape[-1] % mesh.shape["model"] == 0
        spec = P(*[None] * (leaf.ndim - 1), "model") if divides else P()
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Returns traced arrays with the first axis sharded over ``data``, padded with zeros to fit."""
    if mesh is None:
        return tree

    def place(array):
        padded = jnp.pad(array, ((0, -array.shape[0] % mesh.shape["data"]), *[(0, 0)] * (array.ndim - 1)))
        return jax.lax.with_sharding_constraint(padded, NamedSharding(mesh, P("data")))

    return jax.tree.map(place, tree)


def on_one_device(state: Any) -> Any:
    """Returns the state of a multi-process run on one local device, for use by this process only; others unchanged."""
    if jax.process_count() == 1:
        return state
    data = jax.tree.map(to_host, state.replace(key=jax.random.key_data(state.key)))
    data = jax.device_put(data, jax.local_devices()[0])
    return data.replace(key=jax.random.wrap_key_data(data.key), spec=data.spec._replace(mesh=None))


def usable_cores() -> int | None:
    """Returns the number of cores available to this process, on which the bits of a result on CPU depend."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
