"""The safetensors format, in NumPy: a JSON header of names, dtypes and places, then the arrays' bytes.

The package of that name orders the metadata at random, so that it does not write the same file twice, and is not part
of the plain installation, for which a network ships. The format: https://github.com/huggingface/safetensors.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn.text import MAX_BYTES, parse_json, read_regular

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""dtypes by their names in a header; the format has a few more, which no weights have."""


def write_tensors(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Returns the content of a file with arrays by name, and metadata in the order of the dictionary."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata}
    parts, end = [], 0
    for name, array in sorted(arrays.items()):
        # A scalar's shape, too, is kept; tobytes gives rows first, whatever the order in memory.
        parts.append(array.tobytes())
        place = [end, end := end + len(parts[-1])]
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Other readers map the arrays into memory, and want them aligned.
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Returns metadata and arrays of a file.

    Raises:
      OSError, ValueError: it cannot be read, or is not of this format; the message is the reason alone.
    """
    content = read_regular(path, MAX_BYTES)
    size = 8 + int.from_bytes(content[:8], "little")
    if not 8 < size <= len(content):
        raise ValueError("its header exceeds the file")
    header = parse_json(content[8:size])
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its header is not that of arrays by name")
    data = content[size:]
    places = {name: _place(name, entry) for name, entry in header.items()}
    ends = [0]
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != ends[-1]:
            raise ValueError(f"the bytes of {name} do not follow those before")
        ends.append(end)
    if ends[-1] != len(data):
        raise ValueError(f"it has {len(data):,} bytes of arrays, but its header describes {ends[-1]:,}")
    return metadata, {
        name: np.frombuffer(data[begin:end], dtype).reshape(shape)
        for name, (dtype, shape, begin, end) in places.items()
    }


def _place(name: str, entry: Any) -> tuple[np.dtype, list[int], int, int]:
    """The dtype, shape and place of an array, of which the place has as many bytes as the shape needs."""
    try:
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        fits = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        if fits and end - begin == math.prod(shape) * dtype.itemsize:
            return dtype, shape, begin, end
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"its header does not describe {name} as dtype, shape and place")
