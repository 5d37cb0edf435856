"""The base class of all model configurations: common fields, and the network that they describe."""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn

from cnn.rules import Checked, integer


@dataclass(frozen=True)
class Family(Checked):
    """Base class of the model configurations, each in a file of ``cnn/models`` with its network."""

    family: str = ""
    """Model family, chosen by the experiment."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which the layers compute; parameters, optimizer and loss are always float32."""

    group = "model"

    def module(self) -> nn.Module:
        """Returns the network: images [B, H, W, C] from 0 to 1 -> logits [B, K]."""
        raise NotImplementedError

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ConfigError if the network cannot take images of a shape [H, W, C]."""
