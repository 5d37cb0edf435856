"""Processes forked from one that has imported everything and computed nothing: importing takes half of their time."""

import atexit
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

import jax

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["cnn.run", "cnn.runs.fit", "cnn.look.tracking", "orbax.checkpoint", "tyro"])


class Forked:
    """``python -m MODULE ARGUMENTS`` with the interface of subprocess.Popen: the module's main() with its sys.argv."""

    def __init__(self, module: str, *arguments: str, function: str = "main", environment: dict[str, str] | None = None):
        out_reader, out_writer = PROCESSES.Pipe(duplex=False)
        err_reader, err_writer = PROCESSES.Pipe(duplex=False)
        options = module, function, arguments, {**os.environ, **(environment or {})}, out_writer, err_writer
        self._process = PROCESSES.Process(target=_run, args=options)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid
        out_writer.close()
        err_writer.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(reader.fileno())) for reader in (out_reader, err_reader))

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Returns the rest of what the process prints until it ends."""
        outputs = ["", ""]

        def read(index: int, stream: Any) -> None:
            if not stream.closed:
                with stream:
                    outputs[index] = stream.read()

        readers = [threading.Thread(target=read, args=pair) for pair in enumerate((self.stdout, self.stderr))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
        self.wait(timeout)
        assert self.returncode is not None, f"process {self.pid} has not ended within {timeout} seconds"
        return outputs[0], outputs[1]


def _run(
    module: str, function: str, arguments: tuple[str, ...], environment: dict[str, str], out: Any, err: Any
) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    # As in tests/conftest.py.
    gc.freeze()
    # Those of the forkserver may have been files, which can be sought in.
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    # JAX read the environment when it was imported.
    jax.config.update("jax_disable_most_optimizations", environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "True")
    sys.argv = [module, *arguments]
    try:
        getattr(importlib.import_module(module), function)()
    finally:
        # A forked process of multiprocessing ends without them, and jax.distributed leaves the cluster there.
        atexit._run_exitfuncs()
