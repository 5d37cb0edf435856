"""3 x 3 convolutions with 2.25 times fewer multiplications, for the CPU: Winograd's F(2 x 2, 3 x 3).

An output tile of 2 x 2 pixels depends on an input tile of 4 x 4. Transformed by small constant matrices, the
convolution of a tile takes 16 products instead of 36 multiplications; over channels and tiles, these are 16 matrix
products. Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
arXiv:1509.09308, section 4.1, the source of the matrices below. The rounding errors are about as large as those of
the direct sum.
"""

import jax.numpy as jnp
from jax import Array, lax

_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))

MAX_CHUNK = 32
"""Images per chunk: the data between transforms and products stays in the cache, and two threads have enough work."""

MIN_CHANNELS = 32
"""With fewer channels or features, the transforms cost more than the products save."""


def fits(images_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: tuple[int, int], padding: str) -> bool:
    """Returns whether ``conv`` supports a convolution and is faster: tiles must fit, channels outweigh transforms."""
    even = images_shape[1] % 2 == images_shape[2] % 2 == 0
    wide = min(kernel_shape[2:]) >= MIN_CHANNELS
    return even and wide and kernel_shape[:2] == (3, 3) and strides == (1, 1) and padding == "SAME"


def conv(images_BxHxWxC: Array, kernel_3x3xCxF: Array) -> Array:
    """Returns the "SAME" convolution [B, H, W, F] of images whose H and W are even."""
    (batch, height, width, _), features = images_BxHxWxC.shape, kernel_3x3xCxF.shape[-1]
    kernels = sum(_transform(_KERNEL, list(kernel_3x3xCxF)), [])

    def conv_chunk(images_BxHxWxC):
        inputs = _matrices(_transform(_INPUT, _tiles(images_BxHxWxC, 4, 1)))
        shape = (len(images_BxHxWxC), height // 2, width // 2, features)
        products = [(part @ kernel).reshape(shape) for part, kernel in zip(inputs, kernels, strict=True)]
        outputs = _transform(_OUTPUT, _rows(products))
        return jnp.stack([jnp.stack(row, 3) for row in outputs], 2).reshape(-1, height, width, features)

    return lax.map(conv_chunk, _chunks(images_BxHxWxC)).reshape(-1, height, width, features)[:batch]


def kernel_gradient(images_BxHxWxC: Array, grads_BxHxWxF: Array) -> Array:
    """Returns the gradient of the kernel, [3, 3, C, F], given the gradients of the outputs of ``conv``."""

    def add_chunk(totals_16xCxF, chunk):
        inputs = _matrices(_transform(_INPUT, _tiles(chunk[0], 4, 1)))
        outputs = _matrices(_transform(_transposed(_OUTPUT), _tiles(chunk[1], 2, 0)))
        products = [part.T @ grads for part, grads in zip(inputs, outputs, strict=True)]
        return totals_16xCxF + jnp.stack(products), None

    totals = jnp.zeros((16, images_BxHxWxC.shape[-1], grads_BxHxWxF.shape[-1]), images_BxHxWxC.dtype)
    totals, _ = lax.scan(add_chunk, totals, (_chunks(images_BxHxWxC), _chunks(grads_BxHxWxF)))
    return jnp.stack([jnp.stack(row) for row in _transform(_transposed(_KERNEL), _rows(totals))])


def _chunks(images_BxHxWxC):
    """The images, padded with zeros, in n equal chunks [n, B / n, H, W, C] of at most ``MAX_CHUNK`` images."""
    batch, *shape = images_BxHxWxC.shape
    count = max(1, -(-batch // MAX_CHUNK))
    return jnp.pad(images_BxHxWxC, ((0, -batch % count), (0, 0), (0, 0), (0, 0))).reshape(count, -1, *shape)


def _tiles(images_BxHxWxC, size, pad):
    """The pixels of all tiles, by their position in the tile: rows of arrays [B, H / 2, W / 2, C]."""
    height, width = images_BxHxWxC.shape[1:3]
    padded = lax.optimization_barrier(jnp.pad(images_BxHxWxC, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
    return [
        [padded[:, top : top + height - 1 : 2, left : left + width - 1 : 2] for left in range(size)]
        for top in range(size)
    ]


def _transform(matrix, tile):
    """Matrix times tile times transposed matrix, for a tile of arrays: a list of rows."""
    columns = [_combine(matrix, column) for column in zip(*tile, strict=True)]
    return [_combine(matrix, row) for row in zip(*columns, strict=True)]


def _combine(matrix, parts):
    """The product of a constant matrix with a vector of arrays, without the terms that are zero."""
    return [
        sum(part if weight == 1 else weight * part for weight, part in zip(row, parts, strict=True) if weight)
        for row in matrix
    ]


def _transposed(matrix):
    return tuple(zip(*matrix, strict=True))


def _rows(parts):
    return [parts[first : first + 4] for first in range(0, 16, 4)]


def _matrices(tile):
    """A matrix [tiles, channels] for each position in the tile, in memory: a product should not compute it again."""
    return [lax.optimization_barrier(part.reshape(-1, part.shape[-1])) for row in tile for part in row]
