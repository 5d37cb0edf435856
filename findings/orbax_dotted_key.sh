#!/bin/sh
# Guess: every leaf of a saved tree of dictionaries comes back as it was, or the save fails.
# Instead: the leaves are stored by their path joined with dots. If the tree has both {"a": {"b": x}} and the key
# "a.b", one value is written for both if their shapes are equal: the other is lost, without an error when saving or
# loading. (Arrays of other shapes are refused when written.)
# Versions: orbax-checkpoint 0.12.8, tensorstore 0.1.86, jax 0.12.0.1; CPU (Linux, x86-64).
# Source: own measurement; no restriction of keys is documented. Writes run side by side: either value may be kept.
# Consequence: parameters under PyTorch's flat names ("layer1.weight", for weights that were taken over) beside a
# nested tree of the same layers, as when both are compared: one set of weights comes back as the other.
# Avoid: no dots in keys: nest flat names ("layer1.weight".split(".")), or replace the dot before saving.
#
# sh findings/orbax_dotted_key.sh runs the pinned versions; packages given as arguments replace them.
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
import pathlib

import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.WARNING)
nested, flat = np.arange(4.0), np.full(4, 7.0)


def loaded(name, tree):
    path = pathlib.Path.cwd() / name
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path)


both = loaded("both", {"layer1": {"weight": nested}, "layer1.weight": flat})
alone = loaded("alone", {"layer1.weight": flat})
values = both["layer1"]["weight"], both["layer1.weight"]
print("orbax-checkpoint", ocp.__version__)
print("saved: nested", nested.tolist(), "flat", flat.tolist())
print("seen: nested", values[0].tolist(), "flat", values[1].tolist())
print("seen: the flat key alone:", alone["layer1.weight"].tolist())
print("expected: what was saved, or an error")
equal = [np.array_equal(values[0], nested), np.array_equal(values[1], flat)]
one_lost = np.array_equal(*values) and sorted(equal) == [False, True]
raise SystemExit(not (one_lost and np.array_equal(alone["layer1.weight"], flat)))
END
