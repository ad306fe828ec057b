"""The networks of mskjax in plain torch, as one would write them there: what `speed.py` times.

Knows nothing of mskjax.  Layers with parameters are the same, so that numbers of parameters agree
(tests/test_speed.py); the forms that mskjax chose for speed are not copied: pooling, transposed and
3-D convolutions are torch's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from speed_torch_boxes import FasterRCNN
from torch import nn
from torch.nn import functional

GROUPS = 8


class UNet(nn.Module):
    """U-Net with same padding and batch normalisation; with a stem, blocks of pixels are channels.

    Args:
      channels: of the image.
      classes: of a pixel, background included.
      widths: of each level, finest first.
      stem: rows and columns of a block of pixels.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int], stem: int = 1) -> None:
        super().__init__()
        self.stem, inputs = stem, channels * stem**2
        self.down = nn.ModuleList()
        for width in widths:
            self.down.append(_double(inputs, width))
            inputs = width
        self.rise, self.up = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True):
            self.rise.append(nn.ConvTranspose2d(coarse, fine, 2, 2))
            self.up.append(_double(2 * fine, fine))
        self.logits = nn.Conv2d(widths[0], classes * stem**2, 1)

    def forward(self, x: Any) -> Any:
        """(B, C, H, W), which the poolings divide, to (B, classes, H, W)."""
        x, skips = functional.pixel_unshuffle(x, self.stem), []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        for rise, block, skip in zip(self.rise, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], 1))
        return functional.pixel_shuffle(self.logits(x), self.stem)


class Heads(nn.Module):
    """One linear layer per grading."""

    def __init__(self, inputs: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(inputs, n) for name, n in heads.items()})

    def forward(self, x: Any) -> dict[str, Any]:
        """(B, inputs) to grading -> (B, classes)."""
        return {name: head(x) for name, head in self.heads.items()}


class VGG(nn.Module):
    """VGG with batch normalisation.

    Args:
      channels: of the image.
      heads: grading -> number of classes.
      width: of the first block.
      blocks: convolutions of each block.
      hidden: units of the two hidden layers.
      pool: rows and columns that are left before them.
      dropout: after each hidden layer.
    """

    def __init__(
        self,
        channels: int,
        heads: Mapping[str, int],
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 4, 4, 4),
        hidden: int = 4096,
        pool: Sequence[int] = (7, 7),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[Any] = []
        for times, count in zip((1, 2, 4, 8, 8), blocks, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, times * width, 3, padding=1)]
                layers += [nn.BatchNorm2d(times * width), nn.ReLU(True)]
                channels = times * width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(tuple(pool)), nn.Flatten())
        flat = channels * pool[0] * pool[1]
        self.hidden = nn.Sequential(
            *(nn.Linear(flat, hidden), nn.ReLU(True), nn.Dropout(dropout)),
            *(nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(dropout)),
        )
        self.heads = Heads(hidden, heads)

    def forward(self, x: Any) -> dict[str, Any]:
        """(B, C, H, W) to grading -> (B, classes)."""
        return self.heads(self.hidden(self.features(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the 3x3 has the stride."""

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        out = 4 * features
        self.body = nn.Sequential(
            *_normed(nn.Conv2d(inputs, features, 1, bias=False)),
            *_normed(nn.Conv2d(features, features, 3, stride, 1, bias=False)),
            *_normed(nn.Conv2d(features, out, 1, bias=False))[:2],
        )
        self.shortcut = None
        if stride > 1 or inputs != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Any) -> Any:
        """(B, inputs, H, W) to (B, 4 features, H / stride, W / stride)."""
        return torch.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """ResNet of bottlenecks.

    Args:
      channels: of the image, which a 1x1 convolution takes to three.
      heads: grading -> number of classes.
      width: of the stem.
      blocks: bottlenecks of each group.
    """

    def __init__(
        self,
        channels: int,
        heads: Mapping[str, int],
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
    ) -> None:
        super().__init__()
        layers: list[Any] = [nn.Conv2d(channels, 3, 1)]
        layers += _normed(nn.Conv2d(3, width, 7, 2, 3, bias=False))
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = width
        for group, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if group and not block else 1
                layers.append(Bottleneck(inputs, width * 2**group, stride))
                inputs = 4 * width * 2**group
        self.body, self.heads = nn.Sequential(*layers), Heads(inputs, heads)

    def forward(self, x: Any) -> dict[str, Any]:
        """(B, C, H, W) to grading -> (B, classes)."""
        return self.heads(self.body(x).mean((2, 3)))


class Block3D(nn.Module):
    """Two 3x3x3 convolutions with a shortcut; the stride is in plane."""

    def __init__(self, inputs: int, features: int, stride: int, norm: str) -> None:
        super().__init__()
        steps = (1, stride, stride)
        self.body = nn.Sequential(
            *_normed(nn.Conv3d(inputs, features, 3, steps, 1, bias=False), norm),
            *_normed(nn.Conv3d(features, features, 3, 1, 1, bias=False), norm)[:2],
        )
        self.shortcut = None
        if stride > 1 or inputs != features:
            conv = nn.Conv3d(inputs, features, 1, steps, bias=False)
            self.shortcut = nn.Sequential(*_normed(conv, norm)[:2])

    def forward(self, x: Any) -> Any:
        """(B, inputs, D, H, W) to (B, features, D, H / stride, W / stride)."""
        return torch.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


class SpineNet(nn.Module):
    """3-D ResNet of basic blocks.

    Args:
      channels: of a crop.
      heads: grading -> number of classes.
      width: of the stem.
      blocks: of each group.
      norm: ``batch`` or ``group``.
      dropout: before the heads.
    """

    def __init__(
        self,
        channels: int,
        heads: Mapping[str, int],
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        stem = nn.Conv3d(channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        layers: list[Any] = _normed(stem, norm)
        layers.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
        inputs = width
        for group, (count, stride) in enumerate(zip(blocks, (1, 1, 2, 2), strict=True)):
            for block in range(count):
                features = width * 2**group
                layers.append(Block3D(inputs, features, 1 if block else stride, norm))
                inputs = features
        self.body, self.dropout = nn.Sequential(*layers), nn.Dropout(dropout)
        self.heads = Heads(inputs, heads)

    def forward(self, x: Any) -> dict[str, Any]:
        """(B, C, D, H, W) to grading -> (B, classes)."""
        return self.heads(self.dropout(self.body(x).mean((2, 3, 4))))


class PixelAlexNet(nn.Module):
    """AlexNet on the blocks around pixels of a slice.

    Args:
      channels: of the slice.
      heads: the one grading of a pixel -> number of classes.
      size: rows and columns of a block.
      width: of the first convolution.
      hidden: units of the two hidden layers.
      dropout: before each of them.
    """

    def __init__(
        self,
        channels: int,
        heads: Mapping[str, int],
        size: int = 33,
        width: int = 64,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.size, layers = size, []
        for number, (times, kernel) in enumerate(((1, 3), (3, 5), (6, 3), (4, 3), (4, 3))):
            layers += [nn.Conv2d(channels, times * width, kernel, padding=kernel // 2)]
            layers.append(nn.ReLU(True))
            channels = times * width
            if number in (0, 1, 4):
                layers.append(nn.MaxPool2d(3, 2))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((6, 6)), nn.Flatten())
        self.hidden = nn.Sequential(
            *(nn.Dropout(dropout), nn.Linear(36 * channels, hidden), nn.ReLU(True)),
            *(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(True)),
        )
        self.heads = Heads(hidden, heads)

    def forward(self, x: Any, centres: Any) -> dict[str, Any]:
        """(B, C, H, W) and (B, N, 2) whole numbers to grading -> (B N, classes)."""
        half = self.size // 2
        padded = functional.pad(x, (half,) * 4, value=float(x.min()))
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1)
        of = torch.arange(len(x), device=x.device)[:, None]
        blocks = windows[of, :, centres[..., 0], centres[..., 1]].flatten(0, 1)
        return self.heads(self.hidden(self.features(blocks)))


NETWORKS: dict[str, Any] = {
    "unet": UNet,
    "vgg": VGG,
    "resnet": ResNet,
    "spinenet": SpineNet,
    "alexnet": PixelAlexNet,
    "faster_rcnn": FasterRCNN,
}


def build(network: str, options: Mapping[str, Any]) -> Any:
    """A network with random weights."""
    return NETWORKS[network](**options)


def parameters(network: Any) -> int:
    """Trained scalars."""
    return sum(p.numel() for p in network.parameters())


def segmentation_loss(logits: Any, target: Any) -> Any:
    """Cross-entropy plus soft Dice over foreground classes, mean over the batch.

    Args:
      logits: (B, K, H, W).
      target: (B, H, W) class numbers.
    """
    entropy = functional.cross_entropy(logits, target)
    wanted = functional.one_hot(target, logits.shape[1]).movedim(-1, 1)[:, 1:].to(logits.dtype)
    found = torch.softmax(logits, 1)[:, 1:]
    both = (found * wanted).sum((2, 3))
    dice = (2 * both + 2) / (found.sum((2, 3)) + wanted.sum((2, 3)) + 2)
    return entropy + (1 - dice).mean()


def grading_loss(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
    """Mean over gradings of the cross-entropy over what is known (class number -1 is not)."""
    losses = [functional.cross_entropy(x, targets[k], ignore_index=-1) for k, x in outputs.items()]
    return torch.stack(losses).mean()


def _double(inputs: int, features: int) -> Any:
    first = nn.Conv2d(inputs, features, 3, padding=1, bias=False)
    second = nn.Conv2d(features, features, 3, padding=1, bias=False)
    return nn.Sequential(*_normed(first), *_normed(second))


def _normed(conv: Any, norm: str = "batch") -> list[Any]:
    """A convolution, its normalisation and ReLU."""
    features = conv.out_channels
    if norm == "group":
        return [conv, nn.GroupNorm(GROUPS, features), nn.ReLU(True)]
    own = nn.BatchNorm3d if isinstance(conv, nn.Conv3d) else nn.BatchNorm2d
    return [conv, own(features), nn.ReLU(True)]
