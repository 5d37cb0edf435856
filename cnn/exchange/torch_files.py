"""Reads layers' weights from the files of PyTorch, without PyTorch and without executing anything in them.

``torch.save`` writes a zip archive, in which a pickle maps bytes to tensors. A pickle is a program that can do
anything; here it is not run but interpreted: ``pickletools`` lists its instructions, tensors and plain containers are
followed, and anything else becomes a ``Skipped``.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cnn.errors import UserError
from cnn.exchange.source_layers import SourceLayer, check_size, guarded, open_archive

MAX_PICKLE_BYTES = 2**20
"""A pickle has some hundred bytes per tensor."""

STORAGES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(jnp.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
"""dtypes of a PyTorch file."""

EMA = ("state_dict_ema", "model_ema")
"""The state_dict that is taken if a checkpoint of timm or DeiT has two: the one that they evaluate."""


class Skipped(NamedTuple):
    """An object of a pickle that is neither a tensor nor a plain container, and is not made."""

    name: str
    """Of its class or function."""


def read_torch(path: Path) -> list[SourceLayer]:
    """Returns the layers of a file from ``torch.save``: of a ``state_dict``, or of a dictionary with one in it.

    Raises:
      UserError: the file is damaged, too large, of another kind, or holds no state_dict, or several.
    """
    with guarded(path), open_archive(path) as archive:
        root = next((name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if root is None:
            raise UserError(f"{path} has no data.pkl, so it is not from PyTorch; {_hint(path)}")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path} was written on a big-endian machine; save it again on a little-endian one")

        read = cache(archive.read)

        def storage(identity: tuple) -> Storage | Skipped:
            _, kind, key, _, _ = identity
            if not isinstance(kind, str) or not isinstance(key, str):
                raise ValueError("a storage has no name")
            return (
                Storage(np.frombuffer(read(f"{root}data/{key}"), STORAGES[kind])) if kind in STORAGES else Skipped(kind)
            )

        if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
            raise UserError(f"{path} holds more than the tensors of a state_dict; {_hint(path)}")
        skipped: list[str] = []
        tensors = _state_dict(_follow(archive.read(f"{root}data.pkl"), storage, skipped, path), skipped, path)
        check_size(sum(8 * tensor.size for tensor in tensors.values()), path)
        layers: dict[str, dict[str, np.ndarray]] = {}
        for name, tensor in tensors.items():
            layer, _, leaf = name.rpartition(".")
            layers.setdefault(layer, {})[leaf] = np.asarray(tensor, np.float32)
    return [_torch_layer(name, leaves) for name, leaves in layers.items()]


def _state_dict(content: Any, skipped: list[str], path: Path) -> dict[str, np.ndarray]:
    """Returns the state_dict that a file holds, or the only one of a dictionary, without its scalars."""
    found = {"": content} if _is_state_dict(content) else {}
    if not found and isinstance(content, dict):
        found = {name: value for name, value in content.items() if _is_state_dict(value)}
    ema = [name for name in EMA if name in found]
    if len(found) > 1 and len(ema) != 1:
        names = ", ".join(map(repr, found))
        raise UserError(f"{path} holds several state_dicts ({names}), but one is imported; {_hint(path)}")
    if not found:
        if skipped:
            raise UserError(f"{path} names {skipped[0]!r}, which is not part of a state_dict; {_hint(path)}")
        raise UserError(f"{path} holds no state_dict, which is a dictionary of tensors only; {_hint(path)}")
    tensors = found[ema[0]] if ema else next(iter(found.values()))
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, np.ndarray) and tensor.ndim}


def _is_state_dict(value: Any) -> bool:
    """Whether a value is a dictionary of tensors and numbers by name, and any tensor is of two axes or more."""
    return (
        isinstance(value, dict)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, np.ndarray | int | float) for tensor in value.values())
        and any(isinstance(tensor, np.ndarray) and tensor.ndim > 1 for tensor in value.values())
    )


def _hint(path: Path) -> str:
    return f'torch.save(model.state_dict(), "{path.name}") writes a file that can be imported'


RECURRENT = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
"""The leaves of an LSTM, GRU or RNN of one layer and one direction."""


def _recurrent_layer(name: str, leaves: dict[str, np.ndarray]) -> SourceLayer:
    """A recurrent layer with the gates in the order here, which of a GRU is another."""
    features = leaves["weight_hh_l0"].shape[1]
    gates = len(leaves["bias_hh_l0"]) // features
    if gates == 3:
        order = np.arange(3 * features).reshape(3, features)[[1, 0, 2]].ravel()
        leaves = {leaf: values[order] for leaf, values in leaves.items()}
    biases = leaves["bias_ih_l0"], leaves["bias_hh_l0"]
    return SourceLayer(
        name,
        "Recurrent",
        {
            "kernel": leaves["weight_ih_l0"].T,
            "recurrent_kernel": leaves["weight_hh_l0"].T,
            "bias": np.stack(biases) if gates == 3 else biases[0] + biases[1],
        },
    )


def _torch_layer(name: str, leaves: dict[str, np.ndarray]) -> SourceLayer:
    if leaves.keys() == RECURRENT:
        return _recurrent_layer(name, leaves)
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


def _tensor(storage: Storage | Skipped, offset: int, shape: tuple, strides: tuple, *rest: Any) -> np.ndarray | Skipped:
    """What ``torch._utils._rebuild_tensor_v2`` returns: a view of a storage."""
    if isinstance(storage, Skipped):
        return storage
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
"""By function that a pickle of tensors calls: the replacement called here."""

CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
}

VALUES = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"),
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
}
"""Instructions whose argument is the value."""


def _follow(content: bytes, storage: Callable[[tuple], Any], skipped: list[str], path: Path) -> Any:
    """Returns the object that a pickle describes, and adds to ``skipped`` the names of what it does not make.

    Names stay strings, and only the functions in ``CALLS`` are called, so no pickle can do more than they do.
    ``pickletools`` documents the instructions.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return items

    def skip(name: Any) -> Skipped:
        if not isinstance(name, str):
            raise ValueError("a call without a function name")
        skipped.append(name)
        return Skipped(name)

    def set_items(items: list[Any]) -> None:
        for name, value in zip(items[::2], items[1::2], strict=True):
            # An optimizer numbers its parameters. Other keys are not even hashed, which can take for ever.
            if isinstance(stack[-1], dict) and isinstance(name, str | int):
                stack[-1][name] = value

    def append(items: list[Any]) -> None:
        if isinstance(stack[-1], list):
            stack[-1].extend(items)

    instructions: Any = genops(content)
    for opcode, argument, _ in instructions:
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in VALUES:
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
                stack.append(".".join(argument.split(" ") if opcode.name == "GLOBAL" else pop(2)))
            case "REDUCE":
                function, arguments = pop(2)
                is_known = isinstance(function, str) and function in CALLS
                stack.append(CALLS[function](*arguments) if is_known else skip(function))
            case "NEWOBJ":
                stack.append(skip(pop(2)[0]))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "SETITEM":
                set_items(pop(2))
            case "SETITEMS":
                set_items(pop(len(stack) - marks.pop()))
            case "APPEND":
                append(pop(1))
            case "APPENDS" | "ADDITEMS":
                append(pop(len(stack) - marks.pop()))
            case "BUILD":
                # The attributes of an object, such as the versions of modules in a state_dict.
                stack.pop()
            case "STOP":
                return stack.pop()
            case name:
                raise UserError(f"{path} holds more than tensors and numbers ({name}); {_hint(path)}")
