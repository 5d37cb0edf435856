"""The base class of all model configurations: common fields, and the network that they describe."""

import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import flax.linen as nn

from cnn.rules import Checked, require, zero_or


@dataclass(frozen=True)
class Family(Checked):
    """Base class of the model configurations, each in a file with its network: in ``cnn/models``, or one's own."""

    family: str = field(default="", init=False, repr=False)
    """Name of the family: of one's own, the module and name of the class."""
    classes: Annotated[int, zero_or(2, 65_536)] = 0
    """Number of classes; 0 for that of the data."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type in which the layers compute; parameters, optimizer and loss are always float32."""

    group = "model"
    task = "classification"
    """What the network learns, by its name in ``cnn/training/tasks.py``."""
    smallest_side = 1
    """Pixels that the shorter side of an image must have, so that pooling leaves one."""

    def __post_init__(self):
        """Raises ConfigError for a value that is not allowed."""
        super().__post_init__()
        object.__setattr__(self, "family", family_name(type(self)))

    def module(self) -> nn.Module:
        """Returns the network: images [B, H, W, C] from 0 to 1 -> logits [B, K], or what its task takes."""
        raise NotImplementedError

    def check_images(self, image_shape: tuple[int, int, int]) -> None:
        """Raises ConfigError if the network cannot take images of a shape [H, W, C]."""
        height, width, _ = image_shape
        allowed = f"at least {self.smallest_side} x {self.smallest_side} with {self.family}"
        require(min(height, width) >= self.smallest_side, "data.image_size", f"{height} x {width}", allowed)


def family_name(cls: type[Family]) -> str:
    """Returns the name of a family: what its class says, or else the module and name of the class."""
    if "family" in vars(cls):
        return vars(cls)["family"]
    # Of a program that is run as a module, the name by which it can be imported.
    spec = getattr(sys.modules["__main__"], "__spec__", None) if cls.__module__ == "__main__" else None
    return f"{spec.name if spec else cls.__module__}.{cls.__qualname__}"


def families(base: type[Family] = Family) -> dict[str, type[Family]]:
    """Returns all classes of model configurations that have been imported so far, by the names of their families."""
    found = {}
    for cls in base.__subclasses__():
        found |= {family_name(cls): cls, **families(cls)}
    return found
