"""Training that starts with layers of another run."""

import fnmatch
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnn.config import ExperimentConfig, TransferConfig
from cnn.errors import ConfigError
from cnn.rules import NAMES, Rule, checked, instance
from cnn.runs.checkpoint import load_best
from cnn.runs.digests import differing_leaves
from cnn.text import listed
from cnn.training.state import TrainState, abstract_state

_PATTERNS = Rule(lambda value: isinstance(value, list | tuple) and NAMES.holds(tuple(value)), NAMES.allowed)


def match_layers(state: TrainState, source: TrainState, patterns: Sequence[str]) -> list[str]:
    """Returns the names of the matching layers, all of whose leaves are in the source with the same shapes.

    Args:
      state: it may be abstract.
      source: the state that has the layers.
      patterns: names of layers, or patterns such as ``conv*``.

    Raises:
      ConfigError: a pattern matches no layer, or a leaf of a layer is missing from the source or has another shape.
    """
    names = list(state.params)
    if idle := [pattern for pattern in patterns if not fnmatch.filter(names, pattern)]:
        raise ConfigError(f"--transfer.layers has {idle[0]!r}, which matches no layer; the layers are {listed(names)}")
    layers = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    available, expected = (_shapes(_leaves(one, layers)) for one in (source, state))
    if differing := differing_leaves(available, expected):
        raise ConfigError(f"--transfer.layers does not match the source ({'; '.join(differing)}); name fewer layers")
    return layers


@checked(state=instance(TrainState), source=instance(TrainState), patterns=_PATTERNS)
def take_layers(state: TrainState, source: TrainState, patterns: Sequence[str]) -> tuple[TrainState, str]:
    """Returns the state with some layers' parameters and running statistics from another, and a report.

    Args:
      state: before the first step.
      source: the state that has the layers; of its EMA, if it is kept, else of its parameters.
      patterns: names of layers, or patterns such as ``conv*``.

    Returns:
      The state, and lines that name every layer: transferred, initialized at random, or only in the source.

    Raises:
      ConfigError: as of ``match_layers``.
    """
    source = source.eval_state
    layers = match_layers(state, source, patterns)
    # With the current shardings, whatever devices the source is on.
    placed = jax.tree.map(
        lambda old, new: jax.make_array_from_callback(old.shape, old.sharding, lambda part: np.asarray(new)[part]),
        _leaves(state, layers),
        _leaves(source, layers),
    )
    params = state.params | {name: leaves for name, (leaves, _) in placed.items()}
    batch_stats = state.batch_stats | {name: stats for name, (_, stats) in placed.items() if stats}
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if state.ema else {}
    sides = {
        "transferred": layers,
        "initialized at random": [name for name in state.params if name not in layers],
        "only in the source": [name for name in source.params if name not in layers],
    }
    report = "\n".join(f"{side}: {', '.join(names) or 'none'}" for side, names in sides.items())
    return state.replace(params=params, batch_stats=batch_stats, ema=ema), report


def _leaves(state: TrainState, layers: Sequence[str]) -> dict:
    """Parameters and running statistics of some layers, by layer."""
    return {name: (state.params.get(name, {}), state.batch_stats.get(name, {})) for name in layers}


def _shapes(tree: dict) -> dict[str, str]:
    """The shape of each leaf by layer and name."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{path[0].key}/{path[-1].key}": f"{list(leaf.shape)}" for path, leaf in paths}


def check_transfer(config: ExperimentConfig, train_images: int) -> None:
    """Checks the layers that a configuration names, and its size, before anything is written or compiled.

    Raises:
      MemoryError: the network does not fit into memory.
      UserError: a pattern matches no layer, or the other run, or one of its layers, is missing.
      DamagedError: its best checkpoint is damaged.
    """
    state = abstract_state(config, train_images)
    if config.transfer.source is not None:
        match_layers(state, load_best(config.transfer.source)[0].eval_state, config.transfer.layers)


def apply_transfer(state: TrainState, config: TransferConfig) -> tuple[TrainState, str]:
    """Returns the state with the layers that its configuration names in another run, and a report; "" without one.

    Raises:
      UserError: the other run, or one of its layers, is missing.
      DamagedError: its best checkpoint is damaged.
    """
    if config.source is None:
        return state, ""
    state, report = take_layers(state, load_best(config.source)[0], config.layers)
    return state, f"initialized from {config.source}\n{report}\n"
