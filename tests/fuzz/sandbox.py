"""What a worker sets before its first example: few images, no network, no pictures, no file outside of its place."""

import contextlib
import hashlib
import io
import os
import sys
import threading
from typing import Any

IMAGES, TEST_IMAGES = 80, 24


class Settled(BaseException):
    """Raised when an accepted command is about to compile what trains or measures."""


def prepare_libraries(compiled: str) -> None:
    """Few images, no network, no pictures, little optimization."""
    import jax
    import matplotlib.figure
    from PIL import Image

    from cnn import datasets
    from cnn.data import cache, idx
    from cnn.errors import DataError
    from cnn.training import state
    from cnn.web import runtime

    Image.new("L", (8, 8)).save(picture := io.BytesIO(), "PNG")

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    known = datasets.DATASETS["fashion_mnist"]
    datasets.DATASETS["fashion_mnist"] = known._replace(train_images=IMAGES, test_images=TEST_IMAGES)
    for field, content in published().items():
        idx.IDX_FILES[field] = idx.IDX_FILES[field]._replace(sha256=hashlib.sha256(content).hexdigest())

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise DataError("no network in a test")

    def not_joined(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no other processes in a test")

    def save(figure: Any, file: Any, **kwargs: Any) -> None:
        with open(file, "wb") if isinstance(file, (str, os.PathLike)) else contextlib.nullcontext(file) as stream:
            stream.write(picture.getvalue())

    # Without onnxruntime-web, accepted lines of play and export --format web end here, before a page is served.
    cache._fetch = runtime._fetch = refuse
    jax.distributed.initialize = not_joined
    # By setattr, as type checkers refuse another signature.
    setattr(matplotlib.figure.Figure, "savefig", save)  # noqa: B010
    compile = jax.stages.Lowered.compile
    setattr(jax.stages.Lowered, "compile", lambda lowered: _Unless(TRAINS_NOT, compile)(lowered))  # noqa: B010
    state.initial_state = _Unless(MAKES_NOT, state.initial_state)


TRAINS_NOT, MAKES_NOT = threading.Event(), threading.Event()
"""Set while an accepted command ends before it compiles a program that trains, or one that makes parameters."""


class _Unless:
    """A function that raises Settled while an event is set; its attributes are the function's."""

    def __init__(self, ends: threading.Event, function: Any):
        self._ends, self._function = ends, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._ends.is_set():
            raise Settled
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def published() -> dict[str, bytes]:
    """The content of the four idx files by field: of every class, in turn, a square with noise."""
    import numpy as np

    from cnn.data import idx

    rng, contents = np.random.default_rng(0), {}
    for field, shape in idx.array_shapes("fashion_mnist").items():
        if "labels" in field:
            array = (np.arange(shape[0]) % 10).astype(np.uint8)
        else:
            array = rng.integers(0, 100, shape, np.uint8)
            for number, image in enumerate(array):
                image[4 : 6 + 2 * (number % 10), 4:20] += 150
        contents[field] = idx.idx_header(shape) + array.tobytes()
    return contents


def guard(allowed: list[str]) -> list[str]:
    """Forbids this process to write anywhere else; returns the list to which each try is added."""
    tried: list[str] = []
    written = {"os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,)}
    written |= dict.fromkeys(("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown"), (0,))
    directories = {"os.rename": (2, 3), "os.link": (3,), "os.symlink": (2,), "os.remove": (1,), "os.mkdir": (2,)}
    directories |= {"os.rmdir": (1,), "os.chmod": (2,), "os.chown": (3,)}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def check(path: Any, directory: int = -1) -> None:
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        if not os.path.isabs(text) and isinstance(directory, int) and directory >= 0:
            text = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), text)
        parent, name = os.path.split(os.path.abspath(text))
        place = os.path.join(os.path.realpath(parent), name)
        if not any(place == root or place.startswith(f"{root}/") for root in allowed):
            tried.append(place)
            raise PermissionError(13, "this process may not write there", text)

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if flags & writing and not isinstance(path, int) and os.fsdecode(path) != os.devnull:
                # A link is not followed, but refused by the system, if the caller says so.
                check(path if flags & os.O_NOFOLLOW else os.path.realpath(path))
        elif event in written:
            places = directories.get(event, ())
            for number, index in enumerate(written[event]):
                check(args[index], args[places[number]] if number < len(places) else -1)

    sys.addaudithook(hook)
    return tried
