"""Reads layers' weights from Keras and PyTorch files; executes nothing in them and needs neither framework.

Both are zip archives. A ``.keras`` file holds the layers' description in JSON and their weights in HDF5. In a ``.pt``
file, a pickle maps bytes to tensors. A pickle is a program that can do anything; here it is not run but interpreted:
``pickletools`` lists its instructions, those of a state_dict are followed, any other is refused.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cnn.errors import UserError, first_cause, import_extra

MAX_BYTES = 2**28
"""Maximum total size of an archive's files, and of its arrays."""

MAX_PICKLE_BYTES = 2**20
"""The pickle of a state_dict has some hundred bytes per tensor."""


class SourceLayer(NamedTuple):
    """A layer with weights, in the order of the file."""

    name: str
    kind: str
    """``Conv``, ``Dense`` or ``other``."""
    leaves: dict[str, np.ndarray]
    """float32 ``kernel``, [H, W, C, F] or [inputs, outputs], and ``bias``, if it has one."""


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yields an archive; raises UserError if it, or its content while it is read, is damaged."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; name a .keras, .pt or .safetensors file")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(sum(member.file_size for member in archive.infolist()), path)
            yield archive
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is damaged, or not an archive from Keras 3 or PyTorch 1.6 and later ({error}); save it again"
        ) from error
    # Damage in a zip, JSON, HDF5 or pickle raises exceptions of many types.
    except Exception as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {first_cause(error)}); save it again") from error


def _check_size(size: int, path: Path) -> None:
    if size > MAX_BYTES:
        raise UserError(f"{path} holds {size:,} bytes, but at most {MAX_BYTES:,} are read")


KERAS_LAYERS = {"Conv2D": ("Conv", "conv2d"), "Dense": ("Dense", "dense")}
"""By layer class: its kind here, and the group of its weights, numbered from the second on."""


def read_keras(path: Path) -> list[SourceLayer]:
    """Returns the layers of a ``.keras`` file that have weights.

    Raises:
      UserError: the package h5py is missing, or the file is damaged, too large, or of another kind.
    """
    h5py = import_extra("h5py")
    with _opened(path) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            datasets = {}
            # Visits only the file itself, and follows no links out of it.
            file.visititems(lambda name, item: datasets.update({name: item} if hasattr(item, "shape") else {}))
            _check_size(sum(item.nbytes for item in datasets.values()), path)
            weights = {name: _read_dataset(item) for name, item in datasets.items() if _is_weight(name)}
        layers, counts = [], Counter()
        for layer in json.loads(archive.read("config.json"))["config"]["layers"]:
            name, kind = layer["config"]["name"], layer["class_name"]
            if layer["config"].get("data_format") == "channels_first":
                raise UserError(f"{path} has channels first in {name!r}; only channels_last can be imported")
            if kind in KERAS_LAYERS:
                kind, group = KERAS_LAYERS[kind]
                prefix = f"layers/{group}_{counts[group]}/vars" if counts[group] else f"layers/{group}/vars"
                counts[group] += 1
                keys = {"kernel": f"{prefix}/0", "bias": f"{prefix}/1"}
                leaves = {leaf: weights.pop(key) for leaf, key in keys.items() if key in weights}
                layers.append(SourceLayer(name, kind, leaves))
    # Weights of other layers are not dropped silently.
    return layers + [SourceLayer(name, "other", {"values": values}) for name, values in weights.items()]


def _is_weight(name: str) -> bool:
    """Excludes the optimizer and the state of random generators."""
    return name.startswith("layers/") and "/seed_generator/" not in name


def _read_dataset(dataset: Any) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is stored in another file")
    return np.asarray(dataset, np.float32)


STORAGES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
}
"""dtypes of a PyTorch file."""


def read_torch(path: Path) -> list[SourceLayer]:
    """Returns the layers of a file from ``torch.save(model.state_dict(), path)``.

    Raises:
      UserError: the file is damaged, too large, of another kind, or holds more than a state_dict.
    """
    with _opened(path) as archive:
        root = next((name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if root is None:
            raise UserError(f"{path} has no data.pkl, so it is not from PyTorch; {_hint(path)}")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")

        read = cache(archive.read)

        def storage(identity: tuple) -> Storage:
            _, kind, key, _, _ = identity
            if not isinstance(kind, str) or not isinstance(key, str):
                raise ValueError("a storage has no name")
            return Storage(np.frombuffer(read(f"{root}data/{key}"), STORAGES[kind]))

        if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
            raise UserError(f"{path} holds more than the tensors of a state_dict; {_hint(path)}")
        tensors = _follow(archive.read(f"{root}data.pkl"), storage, path)
        if not isinstance(tensors, dict) or not all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
            raise UserError(f"{path} holds more than the tensors of a state_dict; {_hint(path)}")
        _check_size(sum(8 * tensor.size for tensor in tensors.values()), path)
        layers: dict[str, dict[str, np.ndarray]] = {}
        for name, tensor in tensors.items():
            layer, _, leaf = name.rpartition(".")
            layers.setdefault(layer, {})[leaf] = np.asarray(tensor, np.float32)
    return [_torch_layer(name, leaves) for name, leaves in layers.items()]


def _hint(path: Path) -> str:
    return f'torch.save(model.state_dict(), "{path.name}") writes a file that can be imported'


def _torch_layer(name: str, leaves: dict[str, np.ndarray]) -> SourceLayer:
    kinds = {2: ("Dense", (1, 0)), 4: ("Conv", (2, 3, 1, 0))}
    weight = leaves.get("weight")
    if weight is None or weight.ndim not in kinds or not leaves.keys() <= {"weight", "bias"}:
        return SourceLayer(name, "other", leaves)
    kind, axes = kinds[weight.ndim]
    bias = {"bias": leaves["bias"]} if "bias" in leaves else {}
    return SourceLayer(name, kind, {"kernel": weight.transpose(axes), **bias})


class Storage(NamedTuple):
    """The buffer of tensors; a type of its own, so that a tensor, which need not be contiguous, never passes as one."""

    values: np.ndarray


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray:
    """What ``torch._utils._rebuild_tensor_v2`` returns: a view of a storage."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError("a tensor is not described by a storage and numbers")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= len(storage.values):
        raise ValueError("a tensor exceeds its storage")
    steps = [stride * storage.values.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], shape, steps, writeable=False)


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
}
"""By function that the pickle of a state_dict calls: the replacement called here."""

CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}


def _follow(content: bytes, storage: Callable[[tuple], Storage], path: Path) -> Any:
    """Returns the object that the pickle of a state_dict describes; ``pickletools`` documents the instructions.

    Names stay strings, and only the functions in ``CALLS`` are called, so no pickle can do more than they do.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    def set_items(items: list[Any]) -> None:
        for name, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(name, str):
                raise UserError(f"{path} holds more than the tensors of a state_dict; {_hint(path)}")
            stack[-1][name] = value

    instructions: Any = genops(content)
    for opcode, argument, _ in instructions:
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name]())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop(len(stack) - marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                name = ".".join(argument.split(" ") if opcode.name == "GLOBAL" else pop(2))
                if name not in CALLS and name not in STORAGES:
                    raise UserError(f"{path} names {name!r}, which is not part of a state_dict; {_hint(path)}")
                stack.append(name)
            case "REDUCE":
                function, arguments = pop(2)
                if not isinstance(function, str):
                    raise ValueError("a call without a function name")
                stack.append(CALLS[function](*arguments))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "SETITEM":
                set_items(pop(2))
            case "SETITEMS":
                set_items(pop(len(stack) - marks.pop()))
            case "BUILD":
                # Module versions, all that a state_dict has besides its tensors.
                stack.pop()
            case "STOP":
                return stack.pop()
            case name:
                raise UserError(f"{path} holds more than the tensors of a state_dict ({name}); {_hint(path)}")
