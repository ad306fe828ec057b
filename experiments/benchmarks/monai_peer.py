"""Masks and grades by MONAI, for a given time: NumPy in, NumPy out.  Knows nothing of mskjax.

Written as a competent user of MONAI would, from its documented defaults, and for a budget of
minutes on few cores.  What was chosen, and why:

* Masks.  BasicUNet as documented (features 32, 32, 64, 128, 256, 32; instance normalisation, leaky
  ReLU .1, transposed convolutions), in 2-D over the slices: at a pitch of several pixels a 3-D
  network of the same time sees fewer patients.  Or DynUNet with its default filters, residual
  blocks, kernels of 3 and strides of 2, at most four of them, while 8 pixels are left.
  `DiceCELoss` over all classes, Dice over the batch, since a slice often lacks a structure; targets
  are the class fractions of the pixels, which is what `DiceCELoss` takes without ``to_onehot_y``.
* Images.  `NormalizeIntensity` of each volume; `RandAffine` on the whole slice (15 degrees, 15 %,
  half the time a shift), then `RandCropByPosNegLabel`, two of three crops around a structure;
  smoothing, noise, gain and gamma.  Prediction by `SlidingWindowInferer`, Gaussian, half overlap,
  in windows of the size of training, whose statistics instance normalisation was trained on.
* Grades.  `resnet18` with one output per class of each grading, 3-D or, for crops of one slice,
  2-D; cross-entropy summed over the gradings that a crop has.  Crops are standardised by mean and
  deviation of all training crops, not each by itself: how bright a disc is beside its
  vertebrae is a sign.  `RandAffine` (10 degrees, 10 %, 5 % of shift), mirrored slices, gain, noise.
* AdamW, .001, its default decay of .01, warm-up over a twentieth of the time, cosine to nothing at
  its end; the last weights are taken, so no patient is spent on choosing.  Channels last.  The
  time is wall-clock of the training loop alone: loading, resampling and prediction are not counted.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import monai
import numpy as np
import torch
from monai import transforms as mt
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet, resnet18
from torch import nn

RATE = 1e-3
WARM_UP = 0.05  # of the time
HALVINGS = 16  # pixels of a patch are multiples: four poolings
AT_ONCE = 32  # crops, or windows, in a prediction


@dataclasses.dataclass(frozen=True)
class Training:
    """How a training went.

    Attributes:
      seconds: wall-clock of the loop.
      steps: of the optimiser.
      loss: mean of the last tenth of the steps.
      parameters: of the network.
    """

    seconds: float
    steps: int
    loss: float
    parameters: int


def environment() -> dict[str, Any]:
    """Versions, threads and the device that is used."""
    return {
        "torch": torch.__version__,
        "monai": monai.__version__,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "device": str(_device()),
    }


class Masks:
    """A network for masks of slices.

    Args:
      network: ``basic_unet`` or ``dyn_unet``.
      channels: of a volume.
      classes: K, background included.
      patch: rows, columns; rounded up to what four poolings can halve.
      seed: of weights, crops and transforms.
    """

    def __init__(
        self, network: str, channels: int, classes: int, patch: Sequence[int], seed: int
    ) -> None:
        monai.utils.set_determinism(seed)
        rows, cols = (max(2 * HALVINGS, -(-n // HALVINGS) * HALVINGS) for n in patch)
        self.patch, self.classes, self.seed = (rows, cols), classes, seed
        self.network = _placed(_unet(network, channels, classes, self.patch), 2)

    def train(
        self,
        volumes: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        seconds: float,
        batch: int,
    ) -> Training:
        """Trains for a given time.

        Args:
          volumes: (C, S, H, W) float32 of each study.
          labels: (K, S, H, W) float32, fractions of the classes in each voxel.
          seconds: wall-clock; at least one step is made.
          batch: slices of a step.
        """
        slices = [
            {"image": image[:, s].copy(), "label": label[:, s].copy()}
            for image, label in zip(map(_normalised, volumes), labels, strict=True)
            for s in range(image.shape[1])
        ]
        transform = _slice_transform(self.patch)
        transform.set_random_state(self.seed)
        loss = DiceCELoss(softmax=True, batch=True)

        def one(number: int) -> tuple[Any, Any]:
            (found,) = transform(slices[number])
            return found["image"], found["label"]

        batches = _batches(len(slices), batch, one, self.seed)
        return _fitted(self.network, loss, batches, seconds)

    def predict(self, volume: np.ndarray) -> np.ndarray:
        """(K, S, H, W) float32 probabilities of a (C, S, H, W) volume."""
        windows = SlidingWindowInferer(self.patch, AT_ONCE, overlap=0.5, mode="gaussian")
        slices = torch.from_numpy(_normalised(volume)).movedim(1, 0).contiguous().to(_device())
        self.network.eval()
        with torch.inference_mode():
            found = torch.softmax(windows(slices, self.network), 1)
        return found.movedim(0, 1).cpu().numpy()


class Grades:
    """A network for grades of crops.

    Args:
      shape: of a crop: slices, rows, columns, channels.
      heads: grading -> number of classes.
      seed: of weights, order and transforms.
    """

    def __init__(self, shape: Sequence[int], heads: Mapping[str, int], seed: int) -> None:
        monai.utils.set_determinism(seed)
        self.heads, self.seed = dict(heads), seed
        self.axes = 3 if shape[0] > 1 else 2
        network = resnet18(
            spatial_dims=self.axes,
            n_input_channels=shape[-1],
            num_classes=sum(self.heads.values()),
        )
        self.network = _placed(network, self.axes)
        self.mean, self.deviation = np.float32(0), np.float32(1)

    def train(
        self,
        crops: np.ndarray,
        targets: Mapping[str, np.ndarray],
        seconds: float,
        batch: int,
    ) -> Training:
        """Trains for a given time.

        Args:
          crops: (N, slices, rows, columns, channels) float32.
          targets: grading -> (N,) class numbers, -1 where a crop has none.
          seconds: wall-clock; at least one step is made.
          batch: crops of a step.
        """
        axes = tuple(range(crops.ndim - 1))
        self.mean = crops.mean(axes, dtype=np.float64).astype(np.float32)
        self.deviation = crops.std(axes, dtype=np.float64).astype(np.float32) + np.float32(1e-6)
        images = self._inputs(crops)
        wanted = np.stack([targets[name] for name in self.heads], 1).astype(np.int64)
        transform = _crop_transform(images.shape[2:])
        transform.set_random_state(self.seed)
        known = nn.CrossEntropyLoss(ignore_index=-1, reduction="sum")

        def loss(outputs: Any, truth: Any) -> Any:
            parts = outputs.split(list(self.heads.values()), 1)
            each = [
                known(own, truth[:, k]) / (truth[:, k] >= 0).sum().clamp(min=1)
                for k, own in enumerate(parts)
            ]
            return torch.stack(each).sum()

        def one(number: int) -> tuple[Any, Any]:
            return transform(images[number]), torch.from_numpy(wanted[number])

        batches = _batches(len(images), batch, one, self.seed)
        return _fitted(self.network, loss, batches, seconds)

    def predict(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Grading -> (N, classes) float32 probabilities."""
        images = torch.from_numpy(self._inputs(crops)).to(_device())
        self.network.eval()
        with torch.inference_mode():
            found = torch.cat([self.network(part) for part in images.split(AT_ONCE)])
        parts = found.split(list(self.heads.values()), 1)
        return {
            name: torch.softmax(own, 1).cpu().numpy()
            for name, own in zip(self.heads, parts, strict=True)
        }

    def _inputs(self, crops: np.ndarray) -> np.ndarray:
        """Channels first; without the axis of slices where there is one slice."""
        moved = np.moveaxis((crops - self.mean) / self.deviation, -1, 1)
        return np.ascontiguousarray(moved if self.axes == 3 else moved[:, :, 0])


def _unet(name: str, channels: int, classes: int, patch: Sequence[int]) -> nn.Module:
    if name == "basic_unet":
        return BasicUNet(spatial_dims=2, in_channels=channels, out_channels=classes)
    halvings = int(math.log2(min(patch) // 4))  # 4 to 7 pixels are left at the bottom
    strides = [1] + [2] * min(halvings, int(math.log2(HALVINGS)))
    return DynUNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=classes,
        kernel_size=[3] * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
        res_block=True,
    )


def _slice_transform(patch: Sequence[int]) -> mt.Compose:
    both = ("image", "label")
    return mt.Compose(
        [
            mt.SpatialPadd(both, patch, mode="edge"),
            mt.RandAffined(
                both,
                prob=0.9,
                rotate_range=math.radians(15),
                scale_range=(0.15, 0.15),
                translate_range=[n // 20 for n in patch],
                mode="bilinear",
                padding_mode="border",
            ),
            mt.RandCropByPosNegLabeld(
                both, label_key="label", spatial_size=patch, pos=2, neg=1, num_samples=1
            ),
            mt.RandGaussianSmoothd("image", (0.25, 1.0), (0.25, 1.0), prob=0.2),
            mt.RandScaleIntensityd("image", 0.2, prob=0.5),
            mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            mt.RandGaussianNoised("image", prob=0.2, std=0.1),
            mt.ToTensord(both, track_meta=False),
        ]
    )


def _crop_transform(size: Sequence[int]) -> mt.Compose:
    still = [0.0] * (len(size) - 2)  # slices stay parallel to the image plane
    turned: Any = [math.radians(10), 0.0, 0.0] if still else math.radians(10)
    mirrored = [mt.RandFlip(0.5, spatial_axis=0)] if still else []
    return mt.Compose(
        [
            *mirrored,
            mt.RandAffine(
                prob=0.9,
                rotate_range=turned,
                scale_range=[*still, 0.1, 0.1],
                translate_range=[*still, *(0.05 * n for n in size[-2:])],
                mode="bilinear",
                padding_mode="border",
            ),
            mt.RandScaleIntensity(0.1, prob=0.5),
            mt.RandGaussianNoise(prob=0.2, std=0.05),
            mt.ToTensor(track_meta=False),
        ]
    )


def _normalised(volume: np.ndarray) -> np.ndarray:
    """(C, S, H, W): each channel with mean 0 and deviation 1."""
    found = mt.NormalizeIntensity(channel_wise=True)(np.asarray(volume, np.float32))
    return np.asarray(monai.utils.convert_to_numpy(found), np.float32)


def _batches(
    count: int, size: int, one: Callable[[int], tuple[Any, Any]], seed: int
) -> Iterator[tuple[Any, Any]]:
    """Batches without end: each example once before any comes again."""
    rng = np.random.default_rng(seed)
    left: list[int] = []
    while True:
        while len(left) < size:
            left += rng.permutation(count).tolist()
        found = [one(number) for number in left[:size]]
        del left[:size]
        yield tuple(torch.stack(part).to(_device()) for part in zip(*found, strict=True))


def _fitted(
    network: nn.Module,
    loss_of: Callable[[Any, Any], Any],
    batches: Iterator[tuple[Any, Any]],
    seconds: float,
) -> Training:
    optimiser = torch.optim.AdamW(network.parameters(), RATE)
    network.train()
    started, done, losses = time.monotonic(), 0.0, []
    while done < 1:
        # Of the time, not of steps, whose number is not known: the cosine ends with the time.
        warm = min(1.0, 0.1 + done / WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = RATE * warm * (1 + math.cos(math.pi * done)) / 2
        inputs, targets = next(batches)
        optimiser.zero_grad()
        loss = loss_of(network(inputs), targets)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of the peer is {losses[-1]} at step {len(losses)}")
        done = (time.monotonic() - started) / seconds
    return Training(
        seconds=time.monotonic() - started,
        steps=len(losses),
        loss=float(np.mean(losses[-max(1, len(losses) // 10) :])),
        parameters=sum(p.numel() for p in network.parameters()),
    )


def _placed(network: nn.Module, axes: int) -> nn.Module:
    layout = torch.channels_last if axes == 2 else torch.channels_last_3d
    return network.to(_device(), memory_format=layout)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
