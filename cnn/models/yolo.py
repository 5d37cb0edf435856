"""A one-stage detector: a residual trunk, and a grid of cells that each predict a box.

Sources: J. Redmon et al., You Only Look Once, arXiv:1506.02640, section 2: the grid, objectness times class. J. Redmon
and A. Farhadi, YOLOv3, arXiv:1804.02767, section 2.1: a box's centre from its cell, its size as an exponential. K. He
et al., arXiv:1512.03385, section 4.2: the blocks of the trunk. Changed: one grid of one box a cell, without anchors;
the centre may lie up to two cells away.
"""

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cnn.detection.boxes import centres
from cnn.models.family import Family
from cnn.models.layers import Add, BatchNorm, Concatenate, Conv
from cnn.rules import integer, integers, zero_or


@dataclass(frozen=True)
class YoloConfig(Family):
    """A detector; each stage halves the image size, and doubles the features after the first."""

    family = "yolo"
    task = "detection"

    classes: Annotated[int, zero_or(1, 65_536)] = 0
    """Number of classes; 0 for that of the data."""
    blocks: Annotated[tuple[int, ...], integers(0, 200, 1, 8)] = (0, 1, 2)
    """Residual blocks of each stage, after the convolution that halves the image size."""
    features: Annotated[int, integer(1, 512)] = 16
    """Kernels of each convolution in the first stage."""

    @property
    def smallest_side(self) -> int:
        """Pixels that the shorter side of an image must have, for a grid of 2 x 2."""
        return 2 ** (len(self.blocks) + 1)

    def module(self) -> nn.Module:
        """Returns the network."""
        return Yolo(self)


class Boxes(nn.Module):
    """The box of a cell, by its four outputs: the centre, in cells from its own, and the size."""

    @nn.compact
    def __call__(self, outputs_BxRxCx4: Array) -> Array:
        """Returns x_min, y_min, x_max, y_max as fractions of the image's sides, float32 [B, R, C, 4]."""
        rows, columns = outputs_BxRxCx4.shape[1:3]
        cell = jnp.array([1 / columns, 1 / rows])
        outputs = outputs_BxRxCx4.astype(jnp.float32)
        centre = centres(rows, columns) + 2 * cell * jnp.tanh(outputs[..., :2])
        # Bounded, so that no step makes a size infinite.
        half = cell * jnp.exp(jnp.clip(outputs[..., 2:], -6, 6))
        return jnp.concatenate([centre - half, centre + half], -1)


class Yolo(nn.Module):
    """Stages of a convolution with stride 2 and residual blocks; then the predictions of each cell of a grid."""

    config: YoloConfig

    @nn.compact
    def __call__(self, images_BxHxWxC: Array, *, train: bool, mask_B: Array | None = None) -> Array:
        """Returns each cell's box, objectness logit and class logits, float32 [B, R, C, 5 + K], of images from 0 to 1.

        The boxes are fractions of the image's sides. BatchNorm ignores images whose mask is False.
        """
        config = self.config

        def conv_norm(x_BxHxWxC, names, features, stride=1, activation=nn.relu):
            conv, norm = names
            x = Conv(features, strides=(stride, stride), activation=None, use_bias=False, name=conv)(x_BxHxWxC)
            return BatchNorm(activation, name=norm)(x, train=train, mask_B=mask_B)

        x, features = images_BxHxWxC.astype(config.dtype), config.features
        for stage, blocks in enumerate(config.blocks, 1):
            features = config.features * 2 ** (stage - 1)
            x = conv_norm(x, (f"conv{stage}", f"norm{stage}"), features, stride=2)
            for index in range(1, blocks + 1):
                block, shortcut = f"block{stage}_{index}", x
                x = conv_norm(x, (f"{block}_conv1", f"{block}_norm1"), features)
                x = conv_norm(x, (f"{block}_conv2", f"{block}_norm2"), features, activation=None)
                x = Add(name=block)(x, shortcut)
        x = conv_norm(x, ("head", "head_norm"), features)

        def cells(outputs, name):
            return Conv(outputs, (1, 1), activation=None, name=name)(x)

        boxes = Boxes(name="boxes")(cells(4, "box"))
        logits = [cells(1, "objectness").astype("float32"), cells(config.classes, "classes").astype("float32")]
        return Concatenate(name="cells")(boxes, *logits)
