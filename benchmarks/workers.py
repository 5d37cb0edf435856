"""The measured processes, as seen by the measuring one: started at their first request, idle while others work."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import PEERS_PYTHON

LIMIT = 150
"""Seconds after which an operation counts as failed, unless another limit is given."""

Ask = Callable[..., dict[str, Any]]


class Framework(NamedTuple):
    """Something that trains the chapter's network."""

    module: str
    arguments: tuple[str, ...]
    """IMAGES and PRECISION stand for themselves."""
    environment: dict[str, str] = {}


_KERAS = ("benchmarks.keras_peer", ("IMAGES", "serve", "PRECISION"))
_TORCH = "benchmarks.torch_peer"

FRAMEWORKS = {
    "ours": Framework("benchmarks.our_worker", ("PRECISION",)),
    "keras_tensorflow": Framework(*_KERAS, {"KERAS_BACKEND": "tensorflow"}),
    "torch": Framework(_TORCH, ("IMAGES", "PRECISION", "eager")),
    "torch_compiled": Framework(_TORCH, ("IMAGES", "PRECISION", "compiled")),
    "keras_jax": Framework(*_KERAS, {"KERAS_BACKEND": "jax"}),
}


@contextmanager
def worker(
    name: str,
    images: Path,
    precision: str = "float32",
    environment: dict[str, str] | None = None,
    limit: float = LIMIT,
) -> Iterator[Ask]:
    """Yields a function that sends requests to a framework's process: ``ask("epoch", batch_size=32, images=48_000)``.

    A request that raises, takes over the limit or ends the process returns ``{"failed": reason}``; the next one is
    sent to a new process.

    Args:
      name: a key of FRAMEWORKS.
      images: the file that ``save_images`` wrote.
      precision: "float32" or "bfloat16".
      environment: additional environment variables of the process.
      limit: seconds for an answer.
    """
    framework = FRAMEWORKS[name]
    python = sys.executable if name == "ours" else PEERS_PYTHON
    values = {"IMAGES": str(images), "PRECISION": precision}
    command = [str(python), "-m", framework.module, *(values.get(word, word) for word in framework.arguments)]
    process: subprocess.Popen[str] | None = None

    with tempfile.TemporaryFile("w+") as errors:

        def ask(do: str, **request: Any) -> dict[str, Any]:
            nonlocal process
            if process is None or process.poll() is not None:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, **framework.environment, **(environment or {})},
                    text=True,
                )
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], limit)[0]:
                process.kill()
                process.wait()
                return {"failed": f"took over {limit} seconds"}
            line = process.stdout.readline()
            if line:
                return json.loads(line)
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:]
            return {"failed": f"ended with status {process.wait()}: {''.join(last)}"}

        try:
            yield ask
        finally:
            if process and process.poll() is None:
                # Closing stdin lets it exit, and end the processes that it has started itself.
                assert process.stdin
                process.stdin.close()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
