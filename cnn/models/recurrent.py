"""Recurrent networks, which read an image row by row: LSTM, GRU and the simple RNN."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from cnn.models.family import Family
from cnn.models.layers import Dense, Dropout
from cnn.rules import RATE, WIDTH

Cell = Literal["lstm", "gru", "rnn"]


@dataclass(frozen=True)
class RecurrentConfig(Family):
    """A recurrent network: the rows of an image are a sequence, and the last hidden state is classified."""

    family = "recurrent"

    cell: Cell = "lstm"
    """Long short-term memory, gated recurrent unit, or the simple recurrent cell."""
    features: Annotated[int, WIDTH] = 128
    """Units of the hidden state."""
    dropout_rate: Annotated[float, RATE] = 0.2
    """Dropout rate of the last hidden state."""

    def module(self) -> nn.Module:
        """Returns the network."""
        return RecurrentNetwork(self)


class State(NamedTuple):
    """What a cell passes on to the next step."""

    hidden_BxF: Array
    memory_BxF: Array
    """The memory cell of an LSTM; of the other cells, unused."""


def _lstm(state: State, inputs: list[Array], recurrent: list[Array]) -> State:
    """Returns the state after a step of long short-term memory.

    Source: S. Hochreiter and J. Schmidhuber, doi:10.1162/neco.1997.9.8.1735, with the forget gate of F. A. Gers et al.,
    doi:10.1162/089976600300015015.
    """
    input_gate, forget_gate, candidate, output_gate = (a + b for a, b in zip(inputs, recurrent, strict=True))
    memory = nn.sigmoid(forget_gate) * state.memory_BxF + nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return State(nn.sigmoid(output_gate) * jnp.tanh(memory), memory)


def _gru(state: State, inputs: list[Array], recurrent: list[Array]) -> State:
    """Returns the state after a step of a gated recurrent unit.

    Source: K. Cho et al., arXiv:1406.1078, equations 5 to 8, but with the reset gate after the product, as in cuDNN,
    Keras and PyTorch.
    """
    update, reset = (nn.sigmoid(a + b) for a, b in zip(inputs[:2], recurrent[:2], strict=True))
    candidate = jnp.tanh(inputs[2] + reset * recurrent[2])
    return State(update * state.hidden_BxF + (1 - update) * candidate, state.memory_BxF)


def _rnn(state: State, inputs: list[Array], recurrent: list[Array]) -> State:
    """Returns the state after a step of the simple cell: J. L. Elman, doi:10.1207/s15516709cog1402_1."""
    return State(jnp.tanh(inputs[0] + recurrent[0]), state.memory_BxF)


class Kind(NamedTuple):
    """A kind of cell."""

    gates: tuple[str, ...]
    """In the order of the kernels' columns, which is that of Keras."""
    step: Any
    recurrent_bias: bool
    """Whether the products with the hidden state have a bias of their own, which the reset gate multiplies."""


CELLS: dict[Cell, Kind] = {
    "lstm": Kind(("input", "forget", "candidate", "output"), _lstm, False),
    "gru": Kind(("update", "reset", "candidate"), _gru, True),
    "rnn": Kind(("candidate",), _rnn, False),
}


class Rows(nn.Module):
    """The rows of an image as a sequence, from top to bottom."""

    @nn.compact
    def __call__(self, images_BxHxWxC: Array) -> Array:
        """Returns [B, H, W * C]."""
        return images_BxHxWxC.reshape(*images_BxHxWxC.shape[:2], -1)


def _initial_bias(gates: tuple[str, ...], features: int) -> Array:
    """Zeros, and ones for a forget gate: R. Jozefowicz et al., ICML 2015, section 2.1."""
    return jnp.concatenate([jnp.full(features, float(gate == "forget")) for gate in gates])


class Recurrent(nn.Module):
    """A recurrent layer, whose outputs are the hidden states after each step.

    The parameters have the shapes and orders of Keras': of G gates, ``kernel`` [D, G F], ``recurrent_kernel`` [F, G F]
    and ``bias`` [G F]; of a GRU [2, 3 F], of the inputs and of the hidden state.
    """

    cell: Cell
    features: int

    @nn.compact
    def __call__(self, sequence_BxTxD: Array) -> Array:
        """Returns [B, T, features]."""
        dtype, features, kind = sequence_BxTxD.dtype, self.features, CELLS[self.cell]
        gates, width = kind.gates, len(kind.gates) * self.features
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (sequence_BxTxD.shape[-1], width))
        recurrent_kernel = self.param("recurrent_kernel", nn.initializers.orthogonal(), (features, width))
        shape = (2, width) if kind.recurrent_bias else (width,)
        bias = self.param("bias", lambda key: jnp.broadcast_to(_initial_bias(gates, features), shape))
        biases = bias if kind.recurrent_bias else (bias, jnp.zeros(width))
        # Gate by gate, and the inputs' products within the loop: in half of the time of wide products and slices.
        weights = [
            [jnp.split(array, len(gates), -1) for array in (matrix.astype(dtype), vector)]
            for matrix, vector in zip((kernel, recurrent_kernel), biases, strict=True)
        ]

        def products(values_BxD: Array, matrices: list[Array], vectors: list[Array]) -> list[Array]:
            return [
                (values_BxD.astype(dtype) @ matrix).astype(jnp.float32) + vector
                for matrix, vector in zip(matrices, vectors, strict=True)
            ]

        def step(state: State, inputs_BxD: Array) -> tuple[State, Array]:
            state = kind.step(state, products(inputs_BxD, *weights[0]), products(state.hidden_BxF, *weights[1]))
            return state, state.hidden_BxF.astype(dtype)

        zeros = jnp.zeros((len(sequence_BxTxD), features), jnp.float32)
        _, hidden_TxBxF = lax.scan(step, State(zeros, zeros), sequence_BxTxD.swapaxes(0, 1))
        return hidden_TxBxF.swapaxes(0, 1)


class Last(nn.Module):
    """The last step of a sequence."""

    @nn.compact
    def __call__(self, sequence_BxTxD: Array) -> Array:
        """Returns [B, D]."""
        return sequence_BxTxD[:, -1]


class RecurrentNetwork(nn.Module):
    """Reads an image's rows from top to bottom, then classifies the last hidden state."""

    config: RecurrentConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool) -> Array:
        """Returns logits [B, K], float32, of images scaled to 0..1; needs a "dropout" key if ``train``."""
        config = self.config
        x = Rows(name="rows")(images_BxHxWxC.astype(config.dtype))
        x = Recurrent(config.cell, config.features, name="recurrent")(x)
        x = Last(name="last")(x)
        x = Dropout(config.dropout_rate, name="dropout")(x, train=train)
        return Dense(config.classes, activation=None, name="logits")(x).astype("float32")
