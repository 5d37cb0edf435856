#!/bin/sh
# Guess: a layer that normalizes float32 inputs returns values with mean 0 and variance 1, wherever their mean is.
# Instead: flax's LayerNorm, GroupNorm and BatchNorm, in Linen and in NNX, compute the variance as E[x^2] - E[x]^2
# (use_fast_variance is True by default). For inputs around 1,000 that differ by 0.1 the two terms agree in all digits
# that float32 has: the variance is 0 or anything up to 0.1, and values are scaled by up to 1,000 instead of 10. No
# error and no NaN: a negative variance is clipped to 0.
# Versions: flax 0.12.12 with jax 0.12.0.1, flax 0.12.8 with jax 0.10.1; CPU (Linux, x86-64).
# Source: own measurement; the documentation says "less numerically stable", and nothing of the size.
# Consequence: pixels, sensors or time stamps with a large offset, or a residual stream that has drifted, are amplified
# a hundredfold, and differently in each row; with a small mean, as after initialization, nothing is seen.
# Avoid: use_fast_variance=False, which costs a second pass; or take away the offset before.
#
# sh findings/layer_norm_large_mean.sh runs the pinned versions; packages given as arguments replace them.
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
import numpy as np
from flax import nnx

rng = np.random.default_rng(0)
near, far = (rng.normal(mean, 0.1, (512, 256)).astype(np.float32) for mean in (1, 1000))


def spread(layer, inputs):
    """The standard deviation of a layer's outputs."""
    return float(np.asarray(layer.init_with_output(jax.random.key(0), inputs)[0], np.float64).std())


layers = {
    "LayerNorm": nn.LayerNorm(),
    "GroupNorm": nn.GroupNorm(num_groups=4),
    "BatchNorm": nn.BatchNorm(use_running_average=False),
    "LayerNorm, use_fast_variance=False": nn.LayerNorm(use_fast_variance=False),
}
seen = {name: (spread(layer, near), spread(layer, far)) for name, layer in layers.items()}
of_nnx = nnx.LayerNorm(256, rngs=nnx.Rngs(0))
seen["nnx.LayerNorm"] = tuple(float(np.asarray(of_nnx(inputs), np.float64).std()) for inputs in (near, far))
print("flax", flax.__version__, "jax", jax.__version__)
print("standard deviation of the outputs for inputs of deviation 0.1 around 1, and around 1,000; expected: 1.0 1.0")
for name, (small, large) in seen.items():
    print(f"seen: {name}: {small:.3f} {large:.3f}")
right = all(abs(small - 1) < 0.01 for small, _ in seen.values())
stable = abs(seen.pop("LayerNorm, use_fast_variance=False")[1] - 1) < 0.01
raise SystemExit(not (right and stable and all(large > 5 for _, large in seen.values())))
END
