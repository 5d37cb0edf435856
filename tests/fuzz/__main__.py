"""Runs commands and functions on drawn bad inputs, and prints what is wrong: ``python -m tests.fuzz --examples 20000``.

tests/test_fuzz.py runs some 300 examples; ``make fuzz`` runs 20,000.
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests import compile_cache
from tests.fuzz import inputs
from tests.fuzz.judge import KINDS, Finding
from tests.fuzz.runner import SHARES, run_shard
from tests.fuzz.worker import Settings


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=("", *SHARES), default="", help="one kind of examples")
    options = parser.parse_args()
    print(f"{options.examples:,} examples, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        shards = []
        for number in range(options.processes):
            place = Path(os.path.realpath(directory), str(number))
            place.mkdir()
            compiled = compile_cache.claim_directory(f"fuzz{number}")
            share = options.examples // options.processes
            shards.append((Settings(place, compiled), share, options.seed + number, options.only))
        with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
            outcomes = list(pool.map(run_shard, shards))
    counts, found = Counter(), {}
    for shard_counts, shard_found in outcomes:
        counts += shard_counts
        for finding, cases in shard_found.items():
            found.setdefault(finding, []).extend(cases)
    report(counts, found)
    return 1 if found or any(counts[kind] for kind in KINDS) else 0


def report(counts: Counter, found: dict[Finding, list[Any]]) -> None:
    """Prints each finding with its smallest example, and the counts."""
    for finding, cases in sorted(found.items()):
        example, outcome = min(cases, key=lambda case: len(inputs.describe(case[0])))
        print(f"\n{finding.kind}: {finding.cause} ({len(cases) - 1} examples)\n  {inputs.describe(example)}")
        if outcome.mutation:
            print(f"  after {outcome.mutation}")
        for text in (outcome.error or outcome.stderr).strip().splitlines()[-1:]:
            print(f"  {text[:300]}")
    print()
    for name in (*SHARES, *sorted(name for name in counts if name not in SHARES and name not in KINDS), *KINDS):
        print(f"{counts[name]:6} {name}")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
