"""What users call: the jitted functions of a state, for any number of images, with errors that name the argument.

A program is compiled for one number of images. So that a handful of programs serve all numbers, images are padded on
the host to a power of two, beyond a batch to a batch times a power of two; of the padding no batch is computed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from cnn.data.splits import Split
from cnn.devices.sharding import unaliased
from cnn.errors import ConfigError, DataError, UserError
from cnn.rules import INT32
from cnn.text import shown
from cnn.training import detecting, steps
from cnn.training.metrics import Metrics, merge, zero_metrics
from cnn.training.state import TrainState
from cnn.training.task import Batch, check_images


class Jitted:
    """A jitted function of a state, called as ``call`` says; ``lower``, ``trace`` and all else are the function's."""

    def __init__(
        self,
        function: Any,
        call: Callable[..., Any] | None = None,
        data: type[tuple] | None = None,
        check: Callable[..., None] | None = None,
    ):
        """Takes the jitted function, how it is called if not as it is, and how its arguments are checked.

        Args:
          function: the jitted function.
          call: called in its place.
          data: the type of the images and labels among its arguments.
          check: called with its other arguments; raises UserError.
        """
        self._function, self._call, self._data, self._check_others = function, call or function, data, check
        self.__doc__, self.__name__ = function.__doc__, function.__name__.lstrip("_")

    def __call__(self, state: TrainState, *args: Any, **kwargs: Any) -> Any:
        """Calls the function.

        Raises:
          UserError: the state's buffers were donated to an earlier step, or another argument is wrong.
          DataError: images or labels do not fit the state, with the dtype that the caller's arrays have.
        """
        self._check(state, *args, **kwargs)
        if self._data is not None:
            # It may still compute when the caller writes the next images into the same array; call_padded waits.
            args, kwargs = jax.tree.map(unaliased, (args, kwargs))
        try:
            return self._call(state, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            if any(leaf.is_deleted() for leaf in jax.tree.leaves(state) if isinstance(leaf, Array)):
                raise UserError(
                    f"the state that {self.__name__} is given was donated to an earlier step; "
                    "use the state which that step returned"
                ) from error
            raise

    def _check(self, state: Any, *args: Any, batch_size: Any = 1, **kwargs: Any) -> None:
        """Raises UserError for an argument that JAX would convert, or refuse in words of its own."""
        if not isinstance(state, TrainState):
            kind = type(state).__name__
            raise UserError(f"{self.__name__} is given a {kind} as state; cnn.create_state or cnn.load_best makes one")
        if not is_count(batch_size, 1):
            raise ConfigError(f"batch_size is {shown(batch_size)}, but must be an integer of at least 1")
        if self._data is not None:
            given = [data for data in (*args, *kwargs.values()) if isinstance(data, self._data)]
            if not given:
                raise DataError(f"{self.__name__} is given no cnn.{self._data.__name__}; make one of images and labels")
            check_data(state, given[0])
        if self._check_others is not None:
            self._check_others(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the jitted function."""
        return getattr(self._function, name)


def is_count(value: object, minimum: int) -> bool:
    """Whether a value is an integer, Python's or NumPy's, of at least a minimum, and of 32 bits."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(minimum <= value <= INT32)


def check_data(state: TrainState, data: Any) -> None:
    """Raises DataError unless a batch or split fits a state, and JAX takes its labels and mask as they are.

    JAX converts integers to int32, by which a label can become that of another class, and sums a mask of numbers.
    """
    labels_N, mask_N = data.labels, getattr(data, "mask", None)
    if not hasattr(labels_N, "dtype"):
        raise DataError(f"labels are a {type(labels_N).__name__}, but must be an array, integers [N]")
    steps.check_input(state, data)
    if mask_N is not None and (getattr(mask_N, "dtype", None) != np.bool_ or np.shape(mask_N) != labels_N.shape[:1]):
        raise DataError(f"mask is {shown(mask_N)}, but must be an array, bool {list(labels_N.shape[:1])}")
    if isinstance(labels_N, np.ndarray):
        state.spec.task.check_labels(state.spec, labels_N, mask_N)


def power_of_two(count: int) -> int:
    """Returns the smallest power of two that is at least a number; 0 for 0."""
    return 1 << (count - 1).bit_length() if count else 0


def padded_size(count: int, batch_size: int) -> int:
    """Returns the number of images that a number is padded to: a power of two, or ``batch_size`` times one."""
    if count <= batch_size:
        return min(power_of_two(count), batch_size)
    return batch_size * power_of_two(-(-count // batch_size))


def pad(array_Nx: np.ndarray, size: int) -> np.ndarray:
    """Returns an array with zeros added to its first axis up to a size; the same array if it has that size."""
    if len(array_Nx) == size:
        return array_Nx
    return np.concatenate([array_Nx, np.zeros((size - len(array_Nx), *array_Nx.shape[1:]), array_Nx.dtype)])


def is_on_host(state: TrainState, *arrays: Any) -> bool:
    """Whether arrays are NumPy's, and the state is not traced: what is on a device stays there, and is not padded."""
    return all(isinstance(array, np.ndarray) for array in arrays) and not isinstance(state.step, Tracer)


def call_padded(function: Callable[..., Any], state: TrainState, images_NxHxWxC: Any, size: int) -> Any:
    """Returns what a function of a state and images gives for each image, called with them padded to a size."""
    outputs, count = function(state, pad(images_NxHxWxC, size)), len(images_NxHxWxC)
    if count == size:
        return jax.block_until_ready(outputs)
    # By NumPy: JAX would compile a slice for each number.
    return jax.tree.map(lambda output: jnp.asarray(np.asarray(output)[:count]), outputs)


@partial(jax.jit, static_argnames="batch_size")
def _predict_batches(state: TrainState, images_MxHxWxC: Array, batches: Array, *, batch_size: int) -> Array:
    """The probabilities [M, K] of the first batches; of the others, those of zero logits."""
    images = images_MxHxWxC.reshape(-1, batch_size, *images_MxHxWxC.shape[1:])
    logits_of = partial(steps.batch_outputs, state.eval_state)
    classes = jax.eval_shape(logits_of, images[0]).shape[-1]
    logits = jnp.zeros((*images.shape[:2], classes))
    logits = lax.fori_loop(0, batches, lambda i, logits: logits.at[i].set(logits_of(images[i])), logits)
    return jax.nn.softmax(logits.reshape(-1, classes))


@partial(jax.jit, static_argnames="batch_size")
def _evaluate_batches(state: TrainState, split: Split, count: Array, *, batch_size: int) -> Metrics:
    """The metrics of the first ``count`` images, at least a batch of them."""

    def body(index, metrics):
        return merge(metrics, steps.metrics_from(state, split, index * batch_size, count, batch_size))

    return lax.fori_loop(0, (count + batch_size - 1) // batch_size, body, zero_metrics())


def _predict(state: TrainState, images: Any, *, batch_size: int = 128) -> Any:
    check_images(state.spec, images)
    if not is_on_host(state, images):
        return steps.predict(state, images, batch_size=batch_size)
    function = partial(steps.predict, batch_size=batch_size)
    if len(images) > batch_size:
        batches = np.int32(-(-len(images) // batch_size))
        function = partial(_predict_batches, batches=batches, batch_size=batch_size)
    return call_padded(function, state, images, padded_size(len(images), batch_size))


def _detect(state: TrainState, images: Any, *, batch_size: int = 128) -> Any:
    check_images(state.spec, images)
    if not len(images):
        raise DataError("there are no images, but must be at least 1")
    if not is_on_host(state, images):
        return detecting.detect(state, images, batch_size=batch_size)
    function = partial(detecting.detect, batch_size=batch_size)
    return call_padded(function, state, images, padded_size(len(images), batch_size))


def _evaluate(state: TrainState, split: Split, *, batch_size: int = 128) -> Any:
    steps.check_input(state, split, batch_size)
    if not is_on_host(state, *split):
        return steps.evaluate(state, split, batch_size=batch_size)
    count, size = len(split.labels), padded_size(len(split.labels), batch_size)
    images, labels = (pad(array, size) for array in split)
    if count <= batch_size:
        return steps.eval_step(state, Batch(images, labels, np.arange(size) < count))
    return _evaluate_batches(state, Split(images, labels), np.int32(count), batch_size=batch_size)


def _check_steps(metrics: Any, split: Any, steps: Any, **batch_size: Any) -> None:
    if not isinstance(metrics, Metrics):
        raise ConfigError(f"metrics are {shown(metrics)}, but must be a cnn.Metrics")
    on_device = isinstance(steps, Array) and jnp.issubdtype(steps.dtype, jnp.integer) and steps.ndim == 0
    if not on_device and not is_count(steps, 0):
        raise ConfigError(f"steps is {shown(steps)}, but must be an integer of at least 0")


train_step, eval_step = (Jitted(function, data=Batch) for function in (steps.train_step, steps.eval_step))
train_epoch = Jitted(steps.train_epoch, data=Split)
train_steps = Jitted(steps.train_steps, data=Split, check=_check_steps)
evaluate, predict = Jitted(steps.evaluate, _evaluate, Split), Jitted(steps.predict, _predict)
detect = Jitted(detecting.detect, _detect)
