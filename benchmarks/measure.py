"""Shared by all measurements: options, the machine, images for the peers, summary statistics, and the JSON file."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import cnn
from cnn.cli import exit_status, parse_options
from cnn.devices.sharding import usable_cores

RESULTS = Path(__file__).parent / "results"
PEERS_PYTHON = Path(os.environ.get("PEERS_PYTHON", ".venv-peers/bin/python"))
"""Python of the environment of the peers; the variable PEERS_PYTHON names another."""


def run_main(main: Callable[..., None]) -> None:
    """Calls a benchmark's ``main`` with the options of the command line as its parameters, and exits."""
    program = f"python -m benchmarks.{Path(sys.argv[0]).stem}"
    sys.exit(exit_status(lambda: parse_options(main, program, sys.argv[1:])()))


def compiled_programs_in(directory: Path) -> dict[str, str]:
    """Returns the environment variables with which a process caches compiled programs as our commands do."""
    return {"JAX_COMPILATION_CACHE_DIR": str(directory), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}


def machine() -> dict[str, Any]:
    """Returns the processor, the number of cores that this process may use, and the versions that affect speed."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor()
        ),
        "vector_extensions": [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in flags],
        "cores": usable_cores(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }


def summary(values: list[float]) -> dict[str, float]:
    """Returns mean, standard deviation (n - 1), median, minimum, maximum and n."""
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def save_images(path: Path, count: int | None = None) -> cnn.Splits:
    """Writes the images, or the first of each split, to an .npz for another environment, and returns all."""
    splits = cnn.load_data(cnn.DataConfig())
    arrays = {
        f"{name}_{field}": getattr(split, field)[:count]
        for name, split in splits._asdict().items()
        for field in split._fields
    }
    np.savez(path, **arrays)
    return splits


def origin() -> dict[str, str]:
    """Returns the command line and the date."""
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
    return {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime())}


def write_result(name: str, values: dict[str, Any], directory: Path = RESULTS) -> None:
    """Writes <name>.json with the command, the date and the machine."""
    directory.mkdir(parents=True, exist_ok=True)
    values = {**origin(), "machine": machine(), **values}
    path = directory / f"{name}.json"
    path.write_text(json.dumps(values, indent=2) + "\n")
    print(f"wrote {path}")
