"""Reads layers' weights from the files of Keras 2 and 3, without Keras: ``.keras``, ``.h5`` and ``.weights.h5``.

A ``.keras`` file is a zip archive of the layers' description in JSON and their weights in HDF5; those weights alone are
``.weights.h5``. Its groups are named by class and number, whatever the layers are called:
``layers/conv2d_1/vars/0``, and of an inner model ``layers/sequential/layers/conv2d/vars/0``.

The older ``.h5`` names its groups by layer, ``model_weights/my_conv/my_conv/kernel:0``, and of an inner model
``model_weights/inner/my_conv/kernel:0``, with more groups in between in Keras 3. ``model.save`` adds the description as
an attribute, ``save_weights`` the names of the outer layers.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cnn.errors import UserError, import_extra
from cnn.exchange.source_layers import MAX_BYTES, SourceLayer, check_size, guarded, open_archive
from cnn.text import parse_json

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

KINDS = {"Conv2D": "Conv", "Dense": "Dense", "LSTM": "Recurrent", "GRU": "Recurrent", "SimpleRNN": "Recurrent"}
"""By layer class: the kind here."""

NDIMS = {4: "Conv", 2: "Dense"}
"""By number of a kernel's axes: the kind, where a file names no classes."""


class _Group(NamedTuple):
    """The arrays of a layer, by leaf."""

    order: tuple[tuple[str, int], ...]
    """Sorts the groups of a file; where two have different texts at first, their order in the network is unknown."""
    name: str
    leaves: dict[str, np.ndarray]
    class_name: str | None
    """None if the file names no classes."""


def read_keras(path: Path) -> list[SourceLayer]:
    """Returns the layers of a ``.keras``, ``.h5`` or ``.weights.h5`` file that have weights.

    Raises:
      UserError: the package h5py is missing; or the file is damaged, too large, of another kind, or does not say in
        which order layers of equal shapes are used.
    """
    h5py = import_extra("h5py")
    with guarded(path):
        with path.open("rb") as file:
            is_hdf5 = file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
        if is_hdf5:
            content, config = path.read_bytes(), None
        else:
            with open_archive(path) as archive:
                content, config = archive.read("model.weights.h5"), parse_json(archive.read("config.json"))
        _check_heaps(content)
        with h5py.File(io.BytesIO(content)) as file:
            names, weights = _read_weights(file, path)
            if config is not None or any(re.fullmatch(r".+/vars/\d+", name) for name in weights):
                groups = _numbered_groups(names, weights, config, path)
            else:
                groups = _named_groups(file, "model_weights" in names, len(content), weights, path)
    if not groups:
        raise UserError(f"{path} has no weights of layers; model.save(...) writes a file that can be imported")
    # Without classes, convolutions come first, as in all networks that can be imported.
    pairs = [(group, _source_layer(group)) for group in groups]
    pairs.sort(key=lambda pair: (pair[1].kind if pair[0].class_name is None else "", pair[0].order, pair[0].name))
    _check_order(pairs, path)
    return [layer for _, layer in pairs]


def _check_heaps(content: bytes) -> None:
    """Raises ValueError if a heap of texts in an HDF5 file is damaged, in which HDF5 2.0.0 can loop for ever.

    A heap is a header with its size, and objects of an index, 14 bytes with their size, and the content, up to one of
    index 0, which is the rest.
    """
    start, most = content.find(b"GCOL\1\0\0\0"), len(content) // 16
    while start >= 0:
        place, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
        index = 1
        while index and end - place >= 16 and most > 0:
            index = int.from_bytes(content[place : place + 2], "little")
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            place += 16 + (size + 7) // 8 * 8 if index else size
            most -= 1
        if end > len(content) or place > end or end - place >= 16:
            raise ValueError("a heap of texts is damaged")
        start = content.find(b"GCOL\1\0\0\0", start + 8)


def _read_weights(file: Any, path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns the names of everything in an HDF5 file, and the arrays that are weights of layers, by name."""
    names, datasets = [], {}

    def visit(name: str, item: Any) -> None:
        # Of Keras 2.12 and 2.13; and on Windows.
        name = name.replace("\\", "/").replace("_layer_checkpoint_dependencies", "layers")
        names.append(name)
        if hasattr(item, "shape"):
            datasets[name] = item

    # Visits only the file itself, and follows no links out of it.
    file.visititems(visit)
    check_size(sum(item.nbytes for item in datasets.values()), path)
    # Those of random generators are no weights; and an optimizer has some for each weight.
    ignored = re.compile(r"(optimizer|optimizer_weights|metrics|vars)/|(.*/)?(seed_generator|random_generator)/")
    return names, {name: _read_dataset(item) for name, item in datasets.items() if not ignored.match(name)}


def _read_dataset(dataset: Any) -> np.ndarray:
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is stored in another file")
    # The size of an array of objects is not that of its values.
    if dataset.dtype.kind not in "fiu" and dataset.dtype != np.dtype("V2"):
        raise ValueError(f"{dataset.name} has the dtype {dataset.dtype}")
    values = np.asarray(dataset)
    # Keras 3 stores bfloat16 as two bytes without a type.
    return np.asarray(values.view(jnp.bfloat16) if values.dtype.kind == "V" else values, np.float32)


def _numbered_groups(names: list[str], weights: dict[str, np.ndarray], config: Any, path: Path) -> list[_Group]:
    """Returns the groups of ``.keras`` and ``.weights.h5``."""
    leaves: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in weights.items():
        group, _, number = name.rpartition("/vars/")
        # A recurrent layer keeps its weights in its cell.
        order = ("kernel", "recurrent_kernel", "bias") if group.endswith("/cell") else ("kernel", "bias")
        leaf = order[int(number)] if number.isdecimal() and int(number) < len(order) else number
        leaves[group.removesuffix("/cell")][leaf] = values
    if config is None:
        return [
            _Group(tuple(map(_numbered, group.split("/"))), group, arrays, None) for group, arrays in leaves.items()
        ]
    children: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        parent, _, child = name.rpartition("/")
        children[parent].append(child)

    def described(layers: Iterable[Any], parent: str) -> Iterator[tuple[str, Any]]:
        # Keras 2.12 and 2.13 skip numbers, so that only their order counts.
        groups = defaultdict(list)
        for child in sorted(children[parent], key=_numbered, reverse=True):
            groups[_numbered(child)[0]].append(f"{parent}/{child}")
        for layer in layers:
            # An input has no group in a Sequential.
            if matching := groups[_snake_case(layer["class_name"])]:
                group = matching.pop()
                if "layers" in layer["config"]:
                    yield from described(layer["config"]["layers"], f"{group}/layers")
                else:
                    yield group, layer

    groups = []
    for position, (group, layer) in enumerate(described(config["config"]["layers"], "layers")):
        _check_channels(layer, path)
        if group in leaves:
            name, arrays = layer["config"]["name"], leaves.pop(group)
            groups.append(_Group((("", position),), name, arrays, layer["class_name"]))
    # Weights of other layers are not dropped silently.
    return groups + [_Group(((group, 0),), group, arrays, "") for group, arrays in leaves.items()]


def _numbered(name: str) -> tuple[str, int]:
    """``conv2d_1`` -> ``("conv2d", 1)``; the first has no number."""
    text, _, number = name.rpartition("_")
    return (text, int(number)) if text and number.isdecimal() and len(number) < 10 else (name, 0)


def _snake_case(class_name: str) -> str:
    """``MaxPooling2D`` -> ``max_pooling2d``, as Keras names groups."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)).lower()


def _check_channels(layer: Any, path: Path) -> None:
    if layer["config"].get("data_format") == "channels_first":
        name = layer["config"]["name"]
        raise UserError(f"{path} has channels first in {name!r}; only channels_last can be imported")


def _named_groups(file: Any, has_model: bool, size: int, weights: dict[str, np.ndarray], path: Path) -> list[_Group]:
    """Returns the groups of ``.h5``, of a whole model or of weights only; ``size`` is that of the file."""
    leaves: dict[tuple[str, ...], dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in weights.items():
        *group, leaf = name.removeprefix("model_weights/").split("/")
        # TensorFlow 1 numbers the variables of a model that was loaded again, and their groups.
        plain = re.sub(r"(_\d+)?(:\d+)?$", "", leaf)
        arrays = leaves[tuple(group) or (leaf,)]
        arrays[leaf if plain in arrays else plain] = values

    def described(layers: Iterable[Any], outer: str = "") -> Iterator[tuple[tuple[str, str], Any]]:
        for layer in layers:
            name = layer["config"]["name"]
            if "layers" in layer["config"]:
                yield from described(layer["config"]["layers"], outer or name)
            else:
                yield (outer or name, name), layer

    places: dict[tuple[str, str], tuple[int, str | None]] = {}
    config = _texts(file, "model_config", size)
    if config:
        for position, (key, layer) in enumerate(described(parse_json(config[0])["config"]["layers"])):
            _check_channels(layer, path)
            places[key] = position, layer["class_name"]
    else:
        for position, name in enumerate(_texts(file["model_weights"] if has_model else file, "layer_names", size)):
            places[name, name] = position, None
    groups = []
    for group, arrays in leaves.items():
        keys = [key for key in ((group[0], group[-1]), (group[0], group[0])) if key in places]
        position, class_name = places[keys[0]] if keys else (-1, "" if config else None)
        order = (("" if keys else group[0], position), *((name, 0) for name in group[1:]))
        groups.append(_Group(order, "/".join(group), arrays, class_name))
    return groups


def _texts(item: Any, name: str, size: int) -> list[str]:
    """Returns an attribute of one or more texts; none if it is missing, or may exceed ``MAX_BYTES``.

    Texts of variable length are stored in the file once, but read as often as they are referred to.
    """
    if name not in item.attrs:
        return []
    attribute = item.attrs.get_id(name)
    # Of any other type, a damaged one may crash HDF5.
    if attribute.dtype.kind != "S" and (attribute.dtype.metadata or {}).get("vlen") not in (bytes, str):
        raise ValueError(f"{name} is no text")
    length = size if attribute.dtype.kind == "O" else attribute.dtype.itemsize
    if prod(attribute.shape) * length > MAX_BYTES:
        return []
    texts = np.atleast_1d(item.attrs[name]).tolist()
    return [text.decode() if isinstance(text, bytes) else text for text in texts]


def _source_layer(group: _Group) -> SourceLayer:
    kernel, names = group.leaves.get("kernel"), group.leaves.keys()
    kind = None if kernel is None or not names <= {"kernel", "bias"} else NDIMS.get(kernel.ndim)
    if names == {"kernel", "recurrent_kernel", "bias"}:
        kind = "Recurrent"
    if kind is None or group.class_name is not None and KINDS.get(group.class_name) != kind:
        return SourceLayer(group.name, "other", group.leaves)
    return SourceLayer(group.name, kind, group.leaves)


def _check_order(pairs: list[tuple[_Group, SourceLayer]], path: Path) -> None:
    """Raises UserError for two layers of equal shapes whose order in the network is unknown."""
    last: dict[str, _Group] = {}
    for group, layer in pairs:
        shapes = str(sorted((name, values.shape) for name, values in layer.leaves.items()))
        before = last.get(shapes)
        last[shapes] = group
        if before and layer.kind != "other":
            different = [(a, b) for a, b in zip(before.order, group.order, strict=False) if a != b]
            if not different or different[0][0][0] != different[0][1][0]:
                raise UserError(
                    f"{path} does not say which of {before.name!r} and {group.name!r}, of equal shapes, is used first; "
                    "save the model, not only its weights, with model.save(...)"
                )
