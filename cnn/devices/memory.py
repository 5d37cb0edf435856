"""Memory that a process may still use, so that what cannot fit is refused before it is compiled."""

import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax


def available_bytes() -> float:
    """Returns how many bytes more fit into memory: that of the accelerators, or of the host if that is more.

    Infinite where the system does not say it.
    """
    accelerators = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.devices() if _is_near(device)]
    return max(sum(accelerators), _host_bytes())


def spare_bytes(devices: Any) -> int:
    """Returns the bytes of images that a device has room for beside the training: half of what is free."""
    stats = [device.memory_stats() for device in devices if _is_near(device)]
    free = [stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats if stat and "bytes_limit" in stat]
    available = min(free, default=_host_bytes())
    return sys.maxsize if math.isinf(available) else int(max(available, 0) / 2)


def _is_near(device: Any) -> bool:
    return device.platform != "cpu" and device.process_index == jax.process_index()


def _host_bytes() -> float:
    """The host's free memory and swap space, or less by the limits of the process and its control group."""
    available = math.inf
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    with suppress(OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            available = min(available, limit - used)
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        # "max" means that there is no limit.
        with suppress(OSError, ValueError):
            available = min(available, int(Path("/sys/fs/cgroup", limit).read_text()))
    return available


def require_memory(arrays: Any, what: str) -> Any:
    """Returns the arrays, or their shapes, if memory can hold them.

    Raises:
      MemoryError: it cannot.
    """
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))
    available = available_bytes()
    if needed > available:
        free = max(available, 0)
        raise MemoryError(f"{what} takes {needed / 2**30:,.1f} GiB, but {free / 2**30:,.1f} GiB are available")
    return arrays


def fitting(program: Any) -> Any:
    """Returns a compiled program if memory can hold its intermediate values.

    Raises:
      MemoryError: it cannot.
    """
    analysis = program.memory_analysis()
    needed = getattr(analysis, "temp_size_in_bytes", 0)
    require_memory(jax.ShapeDtypeStruct((max(needed, 0),), "uint8"), "a step, with its activations,")
    return program
