#!/bin/sh
# Guess: a checkpoint whose metric is NaN ranks last: with the best one kept, a NaN accuracy changes nothing.
# Instead: NaN ranks first. CheckpointManager(best_fn, max_to_keep=1) deletes the checkpoint of 0.9 for that of NaN,
# and the next one after it, of 0.2, replaces both; best_step() then names the last step. AnyPreservationPolicy of
# LatestN and BestN loses the best one too. No message.
# Versions: orbax-checkpoint 0.12.8, jax 0.12.0.1; CPU (Linux, x86-64).
# Source: own measurement; best_fn is documented to "determine the quality score of the checkpoint", without a word on
# NaN. The project's list of traps has it too, in one line.
# Consequence: a single evaluation with NaN (one bad image, a division by an empty class) deletes the best weights of a
# run of days, for good.
# Avoid: hand over -inf for NaN (inf where lower is better), or refuse to save; never a non-finite metric.
#
# sh findings/orbax_nan_metric.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- orbax-checkpoint==0.12.8 tensorstore==0.1.86 \
    "jax==0.12.0.1; python_version >= '3.12'" "jax==0.10.1; python_version < '3.12'" \
    "jaxlib==0.12.0.1; python_version >= '3.12'" "jaxlib==0.10.1; python_version < '3.12'" \
    "numpy==2.5.5; python_version >= '3.12'" "numpy==2.4.6; python_version < '3.12'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'END'
import logging
import math
import pathlib

import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.WARNING)
managers = ocp.checkpoint_managers
ACCURACIES = (0.1, 0.9, math.nan, 0.2, 0.3)


def kept(name, accuracies, **options):
    """The steps that are left after checkpoints with these accuracies were saved, and the best of them."""
    options = ocp.CheckpointManagerOptions(**options)
    with ocp.CheckpointManager(pathlib.Path.cwd() / name, options=options) as manager:
        for step, accuracy in enumerate(accuracies):
            manager.save(step, args=ocp.args.StandardSave({"w": np.ones(2)}), metrics={"accuracy": accuracy})
            manager.wait_until_finished()
        return list(manager.all_steps()), manager.best_step()


def accuracy(metrics):
    return metrics["accuracy"]


def policy():
    best = managers.BestN(get_metric_fn=accuracy, n=1)
    return managers.AnyPreservationPolicy([managers.LatestN(1), best])


ranked = {"best_fn": accuracy, "best_mode": "max", "max_to_keep": 1}
finite = tuple(-math.inf if math.isnan(value) else value for value in ACCURACIES)
seen = {
    "best_fn": kept("a", ACCURACIES, **ranked),
    "BestN": kept("b", ACCURACIES, preservation_policy=policy())[0],
    "best_fn, NaN as -inf": kept("c", finite, **ranked),
    "BestN, NaN as -inf": kept("d", finite, preservation_policy=policy())[0],
}
print("orbax-checkpoint", ocp.__version__)
print("accuracies of steps 0 to 4:", ACCURACIES)
for name, steps in seen.items():
    print(f"seen: {name}: kept {steps}")
print("expected: best_fn keeps step 1, BestN and LatestN keep steps 1 and 4")
raise SystemExit(list(seen.values()) != [([4], 4), [4], ([1], 1), [1, 4]])
END
