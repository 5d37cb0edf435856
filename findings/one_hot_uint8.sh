#!/bin/sh
# Guess: jax.nn.one_hot(labels, 1000) has a single one in each row, whatever integer type the labels are stored in.
# Instead: for uint8 labels there are four ones in a row: label 3 also sets the columns 259, 515 and 771. The columns
# are counted in the labels' own dtype, where they wrap at 256; int8 wraps likewise.
# Versions: jax 0.12.0.1 and 0.10.1, optax 0.2.8, CPU (Linux, x86-64); plain integer arithmetic, the same everywhere.
# Source: own measurement. The documentation promises a one at the index and zeros elsewhere, and names no dtype.
# Consequence: labels are often stored as uint8 (CIFAR-100, idx and npz files). Fine-tuned with a 1,000-class head left
# in place, the cross-entropy of one_hot targets is summed over four classes, three of which do not exist: a loss of
# 27.6 instead of 6.9, and gradients that reward the wrong outputs.
# Avoid: labels.astype(int32) when they are loaded; or a loss of integer labels, which is right for uint8.
#
# sh findings/one_hot_uint8.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- ml_dtypes==0.6.0 optax==0.2.8 \
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
import jax
import jax.numpy as jnp
import numpy as np
import optax

classes, logits = 1000, jnp.zeros((1, 1000))
rows = {dtype: jax.nn.one_hot(jnp.array([3], dtype), classes) for dtype in ("uint8", "int8", "int32")}
columns = {dtype: np.flatnonzero(row).tolist() for dtype, row in rows.items()}
losses = {dtype: float(optax.softmax_cross_entropy(logits, row)[0]) for dtype, row in rows.items()}
right = float(optax.softmax_cross_entropy_with_integer_labels(logits, jnp.array([3], "uint8"))[0])
print("jax", jax.__version__, "optax", optax.__version__)
for dtype in rows:
    print(f"seen: label 3 as {dtype}: ones in columns {columns[dtype]}, cross-entropy {losses[dtype]:.3f}")
print(f"seen: cross-entropy of the integer label, uint8: {right:.3f}")
print("expected: column [3] and 6.908 for all")
wrapped = [3, 259, 515, 771]
same = columns == {"uint8": wrapped, "int8": wrapped, "int32": [3]}
close = abs(losses["uint8"] - 27.631) < 0.01 and abs(losses["int32"] - 6.908) < 0.01 and abs(right - 6.908) < 0.01
raise SystemExit(not (same and close))
END
