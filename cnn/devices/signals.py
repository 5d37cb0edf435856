"""Catches SIGTERM and SIGINT, so that a run is saved before it ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnn.devices.processes import allreduce_max

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def catch_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that any process has received within the block, or 0.

    All processes must call it at the same point, so that all stop at the same step. A second signal ends the process
    immediately: Python's own handlers would wait until XLA's call returns, so a thread reads the signals. An ignored
    signal, as SIGINT is in a shell's background jobs, stays ignored. Outside the main thread, the only one that can
    handle signals, none is caught.
    """
    received = [0]
    handled = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: allreduce_max(0)
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch():
        while number := os.read(reader, 1):
            # All signals that Python handles arrive here, those of the user's own handlers too.
            if number[0] not in handled:
                continue
            if received[0]:
                os._exit(128 + number[0])
            received[0] = number[0]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda number, frame: None) for number in handled}
    try:
        yield lambda: allreduce_max(received[0])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
