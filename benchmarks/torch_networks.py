"""The networks of the rungs in PyTorch, with the layers of ``cnn/models`` under their names. Needs PyTorch.

They are what one would write in PyTorch for channels-last memory, except for two things that equal outputs need: the
padding of a convolution with a stride of 2 is uneven, as in "SAME", and feature maps are flattened with the channels
last. One difference remains, without effect on speed or on the outputs: the running variances of BatchNorm2d are
those of a sample, n / (n - 1) times ours.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

torch: Any = importlib.import_module("torch")
nn, F = torch.nn, torch.nn.functional


class _Conv(nn.Conv2d):
    """A convolution without a bias, as a normalization follows, padded as "SAME" is for a kernel of 3 x 3 or 1 x 1."""

    def __init__(self, channels: int, features: int, size: int = 3, stride: int = 1, groups: int = 1):
        super().__init__(channels, features, size, stride, size // 2 * (stride == 1), groups=groups, bias=False)

    def forward(self, images: Any) -> Any:
        if self.stride == (2, 2):
            height, width = images.shape[2:]
            images = F.pad(images, (width % 2, 1, height % 2, 1))
        return super().forward(images)


def _norm(features: int) -> Any:
    return nn.BatchNorm2d(features, eps=1e-5, momentum=0.1)


class _Flatten(nn.Module):
    """Flattens height, width and channels, in this order, which is that of channels-last memory."""

    def forward(self, images: Any) -> Any:
        return images.permute(0, 2, 3, 1).flatten(1)


class _GlobalAveragePool(nn.Module):
    def forward(self, images: Any) -> Any:
        return images.mean((2, 3))


def _sequential(**layers: Any) -> Any:
    return nn.Sequential(OrderedDict(layers))


def _conv_relu(number: int, channels: int, features: int, size: int = 3, pool: bool = True) -> dict[str, Any]:
    layers = {f"conv{number}": nn.Conv2d(channels, features, size, padding=size // 2), f"relu{number}": nn.ReLU()}
    return {**layers, f"pool{number}": nn.MaxPool2d(2)} if pool else layers


def _fashion_cnn() -> Any:
    return _sequential(
        **_conv_relu(1, 1, 32),
        **_conv_relu(2, 32, 64),
        flatten=_Flatten(),
        dense=nn.Linear(7 * 7 * 64, 100),
        relu=nn.ReLU(),
        dropout=nn.Dropout(0.4),
        logits=nn.Linear(100, 10),
    )


class _Rows(nn.LSTM):
    """An LSTM over the rows of images, with one bias for each gate as in ours; its output is the last hidden state."""

    def __init__(self, columns: int, features: int):
        super().__init__(columns, features, batch_first=True)
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", torch.zeros(4 * features), persistent=False)

    def forward(self, images: Any) -> Any:
        return super().forward(images[:, 0])[0][:, -1]


def _lstm() -> Any:
    return _sequential(recurrent=_Rows(28, 128), dropout=nn.Dropout(0.3), logits=nn.Linear(128, 10))


def _alexnet() -> Any:
    return _sequential(
        **_conv_relu(1, 1, 24, size=5),
        **_conv_relu(2, 24, 64),
        **_conv_relu(3, 64, 96, pool=False),
        **_conv_relu(4, 96, 96, pool=False),
        **_conv_relu(5, 96, 64),
        flatten=_Flatten(),
        dense1=nn.Linear(3 * 3 * 64, 256),
        relu6=nn.ReLU(),
        dropout1=nn.Dropout(0.5),
        dense2=nn.Linear(256, 256),
        relu7=nn.ReLU(),
        dropout2=nn.Dropout(0.5),
        logits=nn.Linear(256, 10),
    )


class _ResidualBlock(nn.Module):
    """Two convolutions and a shortcut without parameters: every other pixel, and zeros for the missing channels."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.conv1 = _Conv(channels, features, stride=features // channels)
        self.norm1 = _norm(features)
        self.conv2 = _Conv(features, features)
        self.norm2 = _norm(features)
        self.missing = features - channels

    def forward(self, images: Any) -> Any:
        outputs = F.relu(self.norm1(self.conv1(images)))
        outputs = self.norm2(self.conv2(outputs))
        shortcut = F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.missing)) if self.missing else images
        return F.relu(outputs + shortcut)


def _resnet20() -> Any:
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = {f"block{i}": _ResidualBlock(*widths[i - 1 : i + 1]) for i in range(1, 10)}
    start = {"conv": _Conv(1, 16), "norm": _norm(16), "relu": nn.ReLU()}
    return _sequential(**start, **blocks, pool=_GlobalAveragePool(), logits=nn.Linear(64, 10))


class _InvertedBlock(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection; a shortcut between equal shapes."""

    def __init__(self, channels: int, features: int, expansion: int, stride: int):
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self.expand = _Conv(channels, wide, 1)
            self.norm1 = _norm(wide)
        self.depthwise = _Conv(wide, wide, stride=stride, groups=wide)
        self.norm2 = _norm(wide)
        self.reduce = nn.Linear(wide, channels // 4)
        self.excite = nn.Linear(channels // 4, wide)
        self.project = _Conv(wide, features, 1)
        self.norm3 = _norm(features)
        self.expands, self.adds = expansion > 1, channels == features and stride == 1

    def forward(self, images: Any) -> Any:
        outputs = F.silu(self.norm1(self.expand(images))) if self.expands else images
        outputs = F.silu(self.norm2(self.depthwise(outputs)))
        factors = torch.sigmoid(self.excite(F.silu(self.reduce(outputs.mean((2, 3))))))
        outputs = self.norm3(self.project(outputs * factors[:, :, None, None]))
        return outputs + images if self.adds else outputs


def _efficientnet() -> Any:
    blocks = {"block1": _InvertedBlock(16, 16, 1, 1)}
    for stage, (channels, features) in enumerate(((16, 24), (24, 40), (40, 80))):
        blocks[f"block{2 + 2 * stage}"] = _InvertedBlock(channels, features, 4, 2)
        blocks[f"block{3 + 2 * stage}"] = _InvertedBlock(features, features, 4, 1)
    return _sequential(
        conv=_Conv(1, 16),
        norm=_norm(16),
        swish=nn.SiLU(),
        **blocks,
        head=_Conv(80, 320, 1),
        head_norm=_norm(320),
        head_swish=nn.SiLU(),
        pool=_GlobalAveragePool(),
        dropout=nn.Dropout(0.2),
        logits=nn.Linear(320, 10),
    )


class _Tokens(nn.Module):
    """Flattens the pixels to tokens and adds a learned embedding of each position."""

    def __init__(self, tokens: int, features: int):
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(tokens, features))

    def forward(self, images: Any) -> Any:
        return images.flatten(2).transpose(1, 2) + self.position


class _TransformerBlock(nn.Module):
    """Attention and two dense layers, each after a normalization and with a shortcut."""

    def __init__(self, features: int = 64, heads: int = 4, hidden: int = 128):
        super().__init__()
        self.norm1 = nn.LayerNorm(features, eps=1e-6)
        self.queries_keys_values = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)
        self.norm2 = nn.LayerNorm(features, eps=1e-6)
        self.dense1 = nn.Linear(features, hidden)
        self.dense2 = nn.Linear(hidden, features)
        self.dropout = nn.Dropout(0.1)
        self.heads = heads

    def forward(self, tokens: Any) -> Any:
        batch, count, features = tokens.shape
        heads = self.queries_keys_values(self.norm1(tokens)).view(batch, count, 3, self.heads, -1)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        attended = attended.transpose(1, 2).reshape(batch, count, features)
        tokens = tokens + self.dropout(self.project(attended))
        hidden = F.gelu(self.dense1(self.norm2(tokens)), approximate="tanh")
        return tokens + self.dropout(self.dense2(hidden))


class _TokenMean(nn.Module):
    def forward(self, tokens: Any) -> Any:
        return tokens.mean(1)


def _vit() -> Any:
    return _sequential(
        patches=nn.Conv2d(1, 64, 4, stride=4),
        tokens=_Tokens(49, 64),
        **{f"block{number}": _TransformerBlock() for number in range(1, 7)},
        norm=nn.LayerNorm(64, eps=1e-6),
        pool=_TokenMean(),
        logits=nn.Linear(64, 10),
    )


NETWORKS: dict[str, Callable[[], Any]] = {
    "fashion_cnn": _fashion_cnn,
    "lstm": _lstm,
    "alexnet": _alexnet,
    "resnet20": _resnet20,
    "efficientnet": _efficientnet,
    "vit": _vit,
}
"""By the name of the rung; an image is [1, 28, 28], and the outputs are logits [B, 10]."""


def make_network(rung: str, seed: int = 0) -> Any:
    """Returns a network, channels last in memory; its outputs are logits [B, 10]."""
    torch.manual_seed(seed)
    return NETWORKS[rung]().to(memory_format=torch.channels_last)


def load(network: Any, arrays: dict[str, Any]) -> None:
    """Sets all weights and running statistics of a network; raises RuntimeError for a missing or unknown name."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    counters = {name: buffer for name, buffer in network.named_buffers() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**tensors, **counters})
