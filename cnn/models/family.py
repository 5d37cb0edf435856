"""What every family of models has: its fields in a configuration, and the network that they describe."""

from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn

from cnn.rules import Checked, integer


@dataclass(frozen=True)
class Family(Checked):
    """Base of the families' configurations, each of which lies beside its network in a file of ``cnn/models``."""

    family: str = ""
    """Family of models, which an experiment chooses."""
    classes: Annotated[int, integer(2)] = 10
    """Number of classes."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type that the layers compute in; parameters, optimizer and loss are float32 in any case."""

    group = "model"

    def module(self) -> nn.Module:
        """Returns the network: images [B, H, W, C] from 0 to 1 -> logits [B, K]."""
        raise NotImplementedError

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ConfigError if the network cannot take images of a shape [H, W, C]."""
