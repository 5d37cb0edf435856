"""Protocol between the measuring and a measured process: one line of JSON per request, one per answer.

The peers import this in their own environment, so it needs only the standard library and NumPy.
"""

import importlib
import itertools
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHAPTER = "fashion_cnn"
"""The rung of the chapter's network."""


def serve(commands: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers each line of stdin until it ends; a waiting process uses no processor time.

    ``{"do": NAME, ...}`` is answered by the return value of the command of that name, called with the other keys as
    keywords, or by ``{"failed": reason}``.
    """
    # Output of libraries goes to stderr, so that stdout has only answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:
            first_line = [*str(error).strip().splitlines(), ""][0]
            answer = {"failed": f"{type(error).__name__}: {first_line}"}
        print(json.dumps(answer), file=answers, flush=True)


def versions(*names: str) -> dict[str, str]:
    """Returns the versions of packages and of this process's Python."""
    return {**{name: importlib.import_module(name).__version__ for name in names}, "python": platform.python_version()}


def memory() -> dict[str, float]:
    """Returns the peak resident memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss includes the resident memory of the parent when it started this process.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return {"MiB": int(lines["VmHWM"].split()[0]) / 2**10}
    return {"MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)}


def load_split(path: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of a split, uint8 [N, 28, 28, 1], and their labels, int32 [N]."""
    with np.load(path) as arrays:
        return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def warm_up_counts(batch_size: int, images: int) -> tuple[int, int]:
    """Returns the numbers of training and validation images for a warm-up: the same batch shapes, few batches."""
    return min(images, 2048 + images % batch_size), 2000


def mean_seconds(call: Callable[[], dict[str, float]], parts: int, least_seconds: float) -> dict[str, float]:
    """Returns the mean seconds of a part of a call, and the metrics that the last of the calls returns.

    Args:
      call: computes all its parts, such as training steps, and returns their metrics.
      parts: their number.
      least_seconds: duration after which no further call is made; one is always made.
    """
    count, metrics, elapsed, begin = 0, {}, 0.0, time.perf_counter()
    while not count or elapsed < least_seconds:
        metrics, count = call(), count + 1
        elapsed = time.perf_counter() - begin
    return {"seconds": elapsed / count / parts, **metrics}


def images_per_second(
    predict: Callable[[np.ndarray], Any], images: np.ndarray, batch_size: int, seconds: float
) -> float:
    """Returns the images per second of calls of ``predict`` on one batch each; the first two are not timed."""
    batches = [images[i : i + batch_size] for i in range(0, len(images) - batch_size + 1, batch_size)]
    for batch in batches[:2]:
        assert np.asarray(predict(batch)).shape == (batch_size, 10)
    count, begin = 0, time.perf_counter()
    elapsed = 0.0
    cycle = itertools.cycle(batches)
    while elapsed < seconds:
        predict(next(cycle))
        count += batch_size
        elapsed = time.perf_counter() - begin
    return count / elapsed
