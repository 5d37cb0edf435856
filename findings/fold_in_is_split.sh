#!/bin/sh
# Guess: keys derived by jax.random.fold_in(key, i) are unrelated to those of jax.random.split(key, n).
# Instead: fold_in(key, i) is the very key split(key, n)[i], for each i below n. JAX's checker of reused keys, which
# does notice a key that is drawn from twice, says nothing.
# Versions: jax 0.12.0.1 and 0.10.1 (with the default jax_threefry_partitionable); CPU (Linux, x86-64).
# Source: intended by JAX's maintainers (jax-ml/jax pull request 13341); neither function's documentation says so.
# Consequence: a program that splits its root key for the weights, the data order and dropout, and then folds the step,
# the epoch or the number of a seed into the same root, uses the key of the weights again at step 0, and that of the
# data order at step 1: equal random numbers where independent ones are assumed, the same for every seed.
# Avoid: give every use a key of its own by one of the two, and fold in numbers only into a key that is not split.
#
# sh findings/fold_in_is_split.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- ml_dtypes==0.6.0 \
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

root = jax.random.key(42)
weights_key, order_key = jax.random.split(root)
with jax.debug_key_reuse(True):
    weights = jax.random.normal(weights_key, (4,))
    noise = jax.random.normal(jax.random.fold_in(root, 0), (4,))
    try:
        jax.random.normal(weights_key, (4,))
        caught = False
    except jax.errors.KeyReuseError:
        caught = True
keys = jax.random.key_data(jax.random.split(root, 1000))
folded = jax.random.key_data(jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(1000)))
same = int((keys == folded).all(-1).sum())
print("jax", jax.__version__)
print("seen: weights     ", weights)
print("seen: step 0's    ", noise)
print(f"seen: {same} of 1,000 keys of split are those of fold_in; the checker catches a key used twice: {caught}")
print("expected: different numbers, 0 of 1,000, or an error from the checker")
raise SystemExit(not (same == 1000 and bool((weights == noise).all()) and caught))
END
