"""How idle the machine is: the processor time that fixed loops get in processes of their own, and the load average.

Other processes slow the frameworks down unequally: PyTorch's threads wait for each other at each operation, so that it
loses a factor of 5 to 20 to one other process, which makes a comparison worthless.
"""

import os
import subprocess
import sys
import time
from typing import Any

from cnn.devices.sharding import usable_cores

LEAST_SHARE = 0.95
"""Of the wall time, at least this share is processor time of a loop that runs on every core of an idle machine."""

MOST_LOAD = 0.25
"""Processes per core that run or wait to, by the average of the last minute, when nothing of ours has run in it."""

_LOOP = """
import time
begin, used = time.perf_counter(), time.process_time()
for _ in range(5_000_000):
    pass
print((time.process_time() - used) / (time.perf_counter() - begin), time.perf_counter() - begin)
"""


def probe() -> dict[str, Any]:
    """Returns the load of a core, and of loops on all cores the smallest share of its time and the most seconds."""
    cores = usable_cores() or 1
    load = os.getloadavg()[0] / cores
    loops = [
        subprocess.Popen([sys.executable, "-S", "-c", _LOOP], stdout=subprocess.PIPE, text=True) for _ in range(cores)
    ]
    shares, seconds = zip(*(map(float, loop.communicate()[0].split()) for loop in loops), strict=True)
    return {"share": min(shares), "seconds": max(seconds), "load": load}


def is_idle(found: dict[str, Any], most_load: float | None = None) -> bool:
    """Returns whether only the loops ran; the load counts only before our own processes, which raise it."""
    return found["share"] >= LEAST_SHARE and (most_load is None or found["load"] <= most_load)


def wait_for_load(seconds: float = 300.0) -> dict[str, Any]:
    """Returns a probe before anything of ours runs.

    Args:
      seconds: time that the load average gets to fall if the loops run alone: it remembers what ended a minute ago.
    """
    end = time.monotonic() + seconds
    while is_idle(found := probe()) and not is_idle(found, MOST_LOAD) and time.monotonic() < end:
        time.sleep(5)
    return found


def refusal(found: dict[str, Any]) -> str:
    """Returns the line that reports a busy machine."""
    return (
        f"error: the machine is busy: loops on all cores get {found['share']:.0%} of their time (at least "
        f"{LEAST_SHARE:.0%} if it is idle), and the load average of a core is {found['load']:.2f} (before the start at "
        f"most {MOST_LOAD}); end other programs and repeat"
    )
