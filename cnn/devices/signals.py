"""Catches SIGTERM and SIGINT, so that a run is saved before it ends."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cnn.devices.processes import allreduce_max, is_primary

STOPPING = (signal.SIGTERM, signal.SIGINT)

_OWNS_PROCESS = ContextVar("owns_process", default=False)
"""Whether this process is a command's, which may end it; that of a caller of the library, it may not."""


@contextmanager
def owns_process() -> Iterator[None]:
    """Lets a second signal within the block end the process: for commands."""
    token = _OWNS_PROCESS.set(True)
    try:
        yield
    finally:
        _OWNS_PROCESS.reset(token)


@contextmanager
def catch_signals(notice: Callable[[], str] = lambda: "") -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that any process has received within the block, or 0.

    All processes must call it at the same point, so that all stop at the same step. A second signal interrupts at
    once: a command's process ends, whatever it is doing (Python's own handlers would wait until XLA's call returns, so
    a thread reads the signals); a caller of the library gets KeyboardInterrupt as soon as that call returns. An ignored
    signal, as SIGINT is in a shell's background jobs, stays ignored. Outside the main thread, the only one that can
    handle signals, none is caught.

    Args:
      notice: returns a line that is printed to stderr at the first signal; "" prints none.
    """
    received: list[int] = []
    handled = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: allreduce_max(0)
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ends_process = _OWNS_PROCESS.get()

    def watch():
        while number := os.read(reader, 1):
            # All signals that Python handles arrive here, those of the user's own handlers too.
            if number[0] not in handled:
                continue
            received.append(number[0])
            if len(received) > 1 and ends_process:
                os._exit(128 + number[0])
            if len(received) == 1 and is_primary() and (line := notice()):
                print(line, file=sys.stderr, flush=True)

    calls: list[int] = []

    def handle(number, frame):
        # If both arrive during one XLA call, Python calls this once; then ``stop_requested`` raises.
        calls.append(number)
        if len(calls) > 1 and not ends_process:
            raise KeyboardInterrupt

    def stop_requested() -> int:
        if len(received) > 1:
            raise KeyboardInterrupt
        return allreduce_max(received[0] if received else 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop_requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
