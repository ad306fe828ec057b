"""A training step, an inference and a whole training in plain torch, of what `speed_peer` asks for.

A spec is JSON: ``network`` and its ``options`` (`speed_torch.NETWORKS`), ``kind`` (``masks``,
``grades``, ``pixels`` or ``boxes``), ``shape`` of the batch, channels last, ``classes`` of a pixel
of masks, ``heads`` (grading -> classes), ``points`` of a slice for ``pixels``, ``device``
(``cpu``), ``bfloat16`` (autocast and `torch.compile`).  A variant is a memory format and whether
AdamW is the fused one.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import speed_torch
import torch
from speed_discs import random_discs
from torch.nn import functional

Spec = Mapping[str, Any]


class Session:
    """A network, its optimiser and a batch that lies where the network does.

    Args:
      spec: see the module.
      layout: ``contiguous`` or ``channels_last``.
      fused: whether AdamW is torch's fused one.
    """

    def __init__(self, spec: Spec, layout: str, fused: bool) -> None:
        torch.manual_seed(0)
        self.spec, self.device = spec, torch.device(spec.get("device", "cpu"))
        self.network = speed_torch.build(spec["network"], spec["options"]).to(self.device)
        self.parameters = speed_torch.parameters(self.network)
        self._format = torch.contiguous_format
        if layout == "channels_last":
            deep = len(spec["shape"]) == 5
            self._format = torch.channels_last_3d if deep else torch.channels_last
        self.network = self.network.to(memory_format=self._format)
        # None is torch's default: for each on a GPU, one after another on a CPU.
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=1e-3, weight_decay=1e-4, fused=fused or None
        )
        self._run = torch.compile(self.network) if spec.get("bfloat16") else self.network
        self.batch = self.placed(example(spec))

    def placed(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch on the device, its images in the memory format."""
        own = {k: torch.as_tensor(v).to(self.device) for k, v in batch.items()}
        own["image"] = own["image"].movedim(-1, 1).contiguous(memory_format=self._format)
        return own

    def seconds(self, what: str, count: int) -> float:
        """A step's time, mean of `count` in a row.

        Args:
          what: ``training step`` or ``inference``.
          count: steps.
        """
        one = self.train if what == "training step" else self.infer
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            one(self.batch)
        self.wait()
        return (time.perf_counter() - start) / count

    def train(self, batch: Mapping[str, Any]) -> Any:
        """One step of the optimiser; the loss."""
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(batch)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def infer(self, batch: Mapping[str, Any]) -> Any:
        """What the network says of a batch, as probabilities."""
        self.network.eval()
        with torch.inference_mode(), self._autocast():
            outputs = self._outputs(batch)
            if self.spec["kind"] == "boxes":
                return outputs
            if self.spec["kind"] == "masks":
                return torch.softmax(outputs, 1).half()
            return {k: torch.softmax(x.float(), 1) for k, x in outputs.items()}

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _outputs(self, batch: Mapping[str, Any]) -> Any:
        more = {"pixels": ("centres",), "boxes": ("boxes", "labels")}.get(self.spec["kind"], ())
        return self._run(batch["image"], *(batch[name] for name in more))

    def _loss(self, batch: Mapping[str, Any]) -> Any:
        outputs = self._outputs(batch)
        if self.spec["kind"] == "boxes":
            return outputs.mean()
        if self.spec["kind"] == "masks":
            return speed_torch.segmentation_loss(outputs.float(), batch["label"])
        targets = {k: batch[f"target_{k}"] for k in self.spec["heads"]}
        return speed_torch.grading_loss({k: x.float() for k, x in outputs.items()}, targets)

    def _autocast(self) -> Any:
        wanted = bool(self.spec.get("bfloat16"))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)


def example(spec: Spec) -> dict[str, Any]:
    """A random batch, images channels last."""
    rng, shape = np.random.default_rng(0), spec["shape"]
    found: dict[str, Any] = {"image": np.asarray(rng.normal(size=shape), np.float32)}
    if spec["kind"] == "masks":
        found["label"] = rng.integers(0, spec["classes"], shape[:3])
    elif spec["kind"] == "boxes":
        found["boxes"], labels = random_discs(rng, shape)
        found["labels"] = labels.astype(np.int64)  # of torch's losses
    else:
        count = shape[0]
        if spec["kind"] == "pixels":
            place = (shape[0], spec["points"], 2)
            found["centres"] = rng.integers(0, min(shape[1:3]), place)
            count = shape[0] * spec["points"]
        found |= {f"target_{k}": rng.integers(0, n, count) for k, n in spec["heads"].items()}
    return found


# --------------------------------------------------------------------------------------------
# A whole training


def trained(session: Session, examples: Mapping[str, np.ndarray], steps: int, patch: Any) -> float:
    """Seconds of a training as one would write it: random batches, augmentation, steps, a file.

    Args:
      session: gives network and optimiser, which go on from where they are.
      examples: as `example` has them, N of them.
      steps: of the optimiser.
      patch: rows, columns of random patches; None takes whole images.
    """
    generator = torch.Generator().manual_seed(0)
    data = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in examples.items()}
    size, count = session.spec["shape"][0], len(data["image"])
    start = time.perf_counter()
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(session.optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(count, (size,), generator=generator)
        batch = session.placed({k: v[chosen] for k, v in data.items()})
        session.train(augmented(batch, patch))
        rate.step()
    session.wait()
    return time.perf_counter() - start


def augmented(batch: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Patches, then rotation, zoom and shift in plane, mirroring, gain, gamma and noise.

    Args:
      batch: of `Session.placed`.
      patch: see `trained`.
    """
    found = dict(batch) if patch is None else _patches(batch, patch)
    image = found["image"]
    flat = image if image.dim() == 4 else image.flatten(1, 2)
    grid = _grid(flat)
    flat = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    image = flat.reshape(image.shape)
    if "label" in found:
        label = found["label"][:, None].float()
        moved = functional.grid_sample(label, grid, mode="nearest", align_corners=False)
        found["label"] = moved[:, 0].long()
    each = (len(image),) + (1,) * (image.dim() - 1)
    gain, gamma, noise = (torch.rand(each) * 0.4 + 0.8, torch.rand(each) * 0.4 + 0.8, 0.03)
    low = image.amin(tuple(range(1, image.dim())), keepdim=True)
    span = image.amax(tuple(range(1, image.dim())), keepdim=True) - low + 1e-6
    image = ((image - low) / span) ** gamma * span * gain + low
    found["image"] = image + noise * span * torch.randn_like(image)
    return found


def _grid(image: Any) -> Any:
    """(B, H, W, 2) places of a random motion."""
    count = len(image)
    angle = (torch.rand(count) - 0.5) * 2 * math.radians(15)
    zoom, mirror = torch.rand(count) * 0.3 + 0.85, torch.randint(0, 2, (count,)) * 2 - 1
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1)]
    rows.append(torch.stack([sin * mirror, cos, shift[:, 1]], 1))
    return functional.affine_grid(torch.stack(rows, 1), list(image.shape), align_corners=False)


def _patches(batch: Mapping[str, Any], patch: Sequence[int]) -> dict[str, Any]:
    image, label = batch["image"], batch["label"]
    rows, cols = (min(p, n) for p, n in zip(patch, image.shape[2:], strict=True))
    most = (image.shape[2] - rows, image.shape[3] - cols)
    images, labels = [], []
    for own, mask in zip(image, label, strict=True):
        top, left = (int(torch.randint(n + 1, ())) for n in most)
        images.append(own[:, top : top + rows, left : left + cols])
        labels.append(mask[top : top + rows, left : left + cols])
    return {**batch, "image": torch.stack(images), "label": torch.stack(labels)}
