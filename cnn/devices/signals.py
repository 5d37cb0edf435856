"""SIGTERM and SIGINT: caught, so that a run is saved before it ends."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnn.devices.processes import allreduce_max

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def catch_signals() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the signal that any process has received within the block, 0 before that.

    All processes must call it at the same place, so that all stop at the same step. A second signal ends the process at
    once, whatever it is doing: Python's own handlers would wait until XLA's call returns, so a thread reads the
    signals. One that is ignored, as SIGINT is in a shell's background jobs, stays ignored. Outside of the main thread,
    which alone can handle signals, none is caught.
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
            # All signals come here that Python handles, those of the user's own handlers too.
            if number[0] not in handled:
                continue
            if received[0]:
                os._exit(128 + number[0])
            received[0] = number[0]

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda number, frame: None) for number in handled}
    try:
        yield lambda: allreduce_max(received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)
