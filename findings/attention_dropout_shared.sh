#!/bin/sh
# Guess: dropout of attention weights draws for every image and head, as flax's own Dropout layer does for its inputs.
# Instead: MultiHeadDotProductAttention draws one mask of queries and keys, and uses it for all images of the batch and
# all heads (broadcast_dropout is True by default), in Linen and in NNX: equal images have equal outputs in training,
# and a token that does not see another one does not see it in the whole batch.
# Versions: flax 0.12.12 with jax 0.12.0.1, flax 0.12.8 with jax 0.10.1; CPU (Linux, x86-64).
# Source: own measurement; the documentation of the argument says "broadcasted dropout along batch dims". PyTorch's and
# Keras' layers draw for each image and head.
# Consequence: the noise of a step does not average out over the batch, so a rate that was found with another library
# acts more strongly; on one device per image, nothing of it is seen.
# Avoid: broadcast_dropout=False, or a Dropout layer after the attention.
#
# sh findings/attention_dropout_shared.sh runs the pinned versions; packages given as arguments replace them.
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
from flax import nnx

# Four times the same image of six tokens.
tokens = jnp.tile(jax.random.normal(jax.random.key(0), (1, 6, 8)), (4, 1, 1))


def equal_images(outputs):
    return int(jnp.all(outputs == outputs[:1], axis=(1, 2)).sum())


def linen(**options):
    layer = nn.MultiHeadDotProductAttention(num_heads=2, dropout_rate=0.5, deterministic=False, **options)
    variables = layer.init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, tokens)
    return layer.apply(variables, tokens, rngs={"dropout": jax.random.key(3)})


def of_nnx():
    layer = nnx.MultiHeadAttention(2, 8, dropout_rate=0.5, deterministic=False, decode=False, rngs=nnx.Rngs(0))
    return layer(tokens)


dropped = nn.Dropout(0.5, deterministic=False).apply({}, tokens, rngs={"dropout": jax.random.key(3)})
seen = [equal_images(outputs) for outputs in (dropped, linen(broadcast_dropout=False), linen(), of_nnx())]
print("flax", flax.__version__, "jax", jax.__version__)
print("seen: of 4 equal images, so many have the outputs of the first: Dropout, attention with broadcast_dropout=False,")
print("      attention by default, nnx.MultiHeadAttention:", seen)
print("expected: [1, 1, 1, 1]")
raise SystemExit(seen != [1, 1, 4, 4])
END
