#!/bin/sh
# Guess: flax.linen.BatchNorm with a mask that leaves nothing of a batch leaves its running statistics as they are.
# Instead: the mean of no elements is 0/0, and is averaged into the statistics: they are NaN after one such batch and
# stay NaN after any number of good ones. Outputs of training are right again with the next batch, so the loss shows
# nothing; only evaluation, which uses the statistics, gives NaN.
# Versions: flax 0.12.12 with jax 0.12.0.1, flax 0.12.8 with jax 0.10.1; CPU (Linux, x86-64).
# Source: own measurement; the documentation calls the mask "the positions for which the mean and variance should be
# computed", and says nothing of none.
# Consequence: where a last batch is padded and shared out over devices (or vmapped over models), one part can be
# padding only; if statistics are not combined over the parts (axis_name), this part's are lost, though the training
# loss is fine.
# Avoid: take the new statistics only where mask.any(), by jnp.where over the batch_stats; or axis_name, so that every
# mask has at least one element.
#
# sh findings/batch_norm_masked_batch.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- ml_dtypes==0.6.0 \
    "jax==0.12.0.1; python_version >= '3.12'" "jax==0.10.1; python_version < '3.12'" \
    "jaxlib==0.12.0.1; python_version >= '3.12'" "jaxlib==0.10.1; python_version < '3.12'" \
    "numpy==2.5.5; python_version >= '3.12'" "numpy==2.4.6; python_version < '3.12'" \
    "flax==0.12.12; python_version >= '3.12'" "flax==0.12.8; python_version < '3.12'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'END'
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

norm = nn.BatchNorm(use_running_average=False, momentum=0.9)
images = jax.random.normal(jax.random.key(0), (8, 3))
variables = norm.init(jax.random.key(1), images)


def train(variables, mask):
    outputs, updates = norm.apply(variables, images, mask=mask, mutable=["batch_stats"])
    return outputs, {**variables, **updates}


def finite(tree):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


_, variables = train(variables, jnp.ones((8, 1), bool))
before = finite(variables["batch_stats"])
_, variables = train(variables, jnp.zeros((8, 1), bool))
after = finite(variables["batch_stats"])
for _ in range(100):
    outputs, variables = train(variables, jnp.ones((8, 1), bool))
later = finite(variables["batch_stats"])
evaluated = nn.BatchNorm(use_running_average=True).apply(variables, images)
print("flax", flax.__version__, "jax", jax.__version__)
print(f"seen: statistics finite before the masked batch: {before}, after it: {after}, 100 good batches later: {later}")
print(f"seen: outputs finite in training: {finite(outputs)}, in evaluation: {finite(evaluated)}")
print("expected: True for all five")
raise SystemExit((before, after, later, finite(outputs), finite(evaluated)) != (True, False, False, True, False))
END
