"""Faster R-CNN of mskjax in plain torch operations, batched; torchvision is not needed.

The same layers, anchors, matching, drawing and losses.  RoIAlign is `grid_sample` at the 14 x 14
places of a region and a mean over each 2 x 2; suppression settles all boxes of a batch together,
as there: plain torch has neither.  Boxes are (row0, column0, row1, column1) in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ROI_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LOG_SIZE_LIMIT = math.log(1000 / 16)
BETA = 1 / 9
CELLS = 7


class FasterRCNN(nn.Module):
    """Two-stage detector on a feature pyramid; one kind of thing in `classes` classes.

    Args: as `mskjax.models.faster_rcnn.FasterRCNN`, and ``image_channels``.
    """

    def __init__(
        self,
        image_channels: int,
        classes: int = 2,
        widths: Sequence[int] = (16, 32, 64, 64),
        channels: int = 32,
        hidden: int = 128,
        strides: Sequence[int] = (4, 8),
        anchor_sizes: Sequence[Sequence[float]] = ((16.0,), (26.0,)),
        anchor_ratios: Sequence[float] = (0.3, 0.5, 0.8),
    ) -> None:
        super().__init__()
        self.strides, self.sizes, self.ratios = strides, anchor_sizes, anchor_ratios
        self.levels = len(widths)
        self.down, self.lateral, self.out = nn.ModuleList(), nn.ModuleDict(), nn.ModuleDict()
        inputs = 4 * image_channels
        for i, width in enumerate(widths):
            first = _normed(inputs, width)
            self.down.append(nn.Sequential(*first, *(_normed(width, width) if i else [])))
            inputs, stride = width, 2 ** (i + 1)
            if stride >= strides[0]:
                self.lateral[str(stride)] = nn.Conv2d(width, channels, 1)
            if stride in strides:
                self.out[str(stride)] = nn.Sequential(*_normed(channels, channels))
        anchors = len(anchor_sizes[0]) * len(anchor_ratios)
        self.region = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.shifts = nn.Conv2d(channels, 4 * anchors, 1)
        self.head = nn.Sequential(
            *(nn.Linear(channels * CELLS**2, hidden), nn.ReLU(True)),
            *(nn.Linear(hidden, hidden), nn.ReLU(True)),
        )
        self.kind, self.place = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4)

    def forward(self, x: Any, boxes: Any, labels: Any) -> Any:
        """(B,) losses in training, else boxes, scores, labels of 16 detections and if they are.

        Args:
          x: (B, C, H, W).
          boxes: (B, G, 4) reference.
          labels: (B, G) from 1 on, 0 padding.
        """
        size = x.shape[2:]
        levels = self._pyramid(x)
        anchors, logits, deltas, counts = self._first_stage(levels)
        with torch.no_grad():
            regions, present = _proposals(anchors, logits, deltas, counts, size)
            if self.training:
                # Reference boxes join: early proposals miss them all.
                regions = torch.cat([regions, boxes], 1)
                present = torch.cat([present, labels > 0], 1)
                regions, *targets = _roi_targets(regions, present, boxes, labels)
        hidden = self.head(_roi_align(levels[0], regions, 1 / self.strides[0]).flatten(2))
        kinds, places = self.kind(hidden).float(), self.place(hidden).float()
        if not self.training:
            return _detections(regions, present, kinds, places, size)
        drawn = _rpn_targets(anchors, boxes, labels)
        entropy = functional.binary_cross_entropy_with_logits(
            logits, (drawn[0] > 0).float(), reduction="none"
        )
        of_kind = functional.cross_entropy(
            kinds.flatten(0, 1), targets[0].clamp(min=0).flatten(), reduction="none"
        )
        return _loss(entropy, deltas, drawn) + _loss(of_kind.view_as(targets[2]), places, targets)

    def _pyramid(self, x: Any) -> list[Any]:
        last = 2**self.levels
        x = functional.pad(x, (0, -x.shape[3] % last, 0, -x.shape[2] % last))
        found = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else functional.pixel_unshuffle(x, 2))
            found.append((str(2 ** (i + 1)), x))
        levels: list[Any] = []
        above = None
        for stride, x in reversed(found):
            if stride not in self.lateral:
                break
            x = self.lateral[stride](x)
            above = x if above is None else x + functional.interpolate(above, scale_factor=2.0)
            if stride in self.out:
                levels.insert(0, self.out[stride](above))
        return levels

    def _first_stage(self, levels: Sequence[Any]) -> tuple[Any, Any, Any, list[int]]:
        logits, deltas, anchors = [], [], []
        for level, stride, sizes in zip(levels, self.strides, self.sizes, strict=True):
            x = torch.relu(self.region(level))
            logits.append(self.objectness(x).movedim(1, -1).flatten(1).float())
            deltas.append(self.shifts(x).movedim(1, -1).reshape(len(x), -1, 4).float())
            anchors.append(_anchors(level, stride, sizes, self.ratios))
        counts = [own.shape[1] for own in logits]
        return torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1), counts


def _anchors(level: Any, stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Any:
    shapes = [(s * math.sqrt(r), s / math.sqrt(r)) for s in sizes for r in ratios]
    half = torch.tensor(shapes, device=level.device) / 2
    rows, cols = ((torch.arange(n, device=level.device) + 0.5) * stride for n in level.shape[2:])
    centre = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1).reshape(-1, 1, 2)
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4)


def _overlap(a: Any, b: Any) -> Any:
    """(B, N, 4) or (N, 4) and (B, G, 4) to (B, N, G) intersection over union."""
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return both / (areas[0][..., :, None] + areas[1][..., None, :] - both).clamp(min=1e-9)


def _parts(boxes: Any) -> tuple[Any, Any]:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    return boxes[..., :2] + size / 2, size


def _encode(anchors: Any, boxes: Any, weights: Sequence[float] = (1, 1, 1, 1)) -> Any:
    (centre_a, size_a), (centre, size) = _parts(anchors), _parts(boxes)
    deltas = torch.cat([(centre - centre_a) / size_a, torch.log(size / size_a)], -1)
    return deltas * deltas.new_tensor(weights)


def _decode(
    anchors: Any, deltas: Any, size: Sequence[int], weights: Sequence[float] = (1, 1, 1, 1)
) -> Any:
    centre_a, size_a = _parts(anchors)
    deltas = deltas / deltas.new_tensor(weights)
    centre = centre_a + deltas[..., :2] * size_a
    half = 0.5 * size_a * torch.exp(deltas[..., 2:].clamp(max=LOG_SIZE_LIMIT))
    ends = deltas.new_tensor([*size, *size])
    return torch.minimum(torch.cat([centre - half, centre + half], -1).clamp(min=0), ends)


def _sample(labels: Any, count: int) -> Any:
    """(B, N) 1 where drawn: up to half of `count` positive, the rest negative."""
    order, drawn = torch.rand(labels.shape, device=labels.device), torch.zeros(labels.shape)
    drawn, left = drawn.to(labels.device), torch.full((len(labels), 1), count // 2)
    left = left.to(labels.device)
    for eligible in (labels > 0, labels == 0):
        size = min(count, labels.shape[1])
        values, index = torch.where(eligible, order, -1.0).topk(size)
        chosen = (values >= 0) & (torch.arange(size, device=labels.device) < left)
        drawn = drawn.scatter_add(1, index, chosen.float())
        left = count - drawn.sum(1, keepdim=True)
    return drawn


def _rpn_targets(anchors: Any, boxes: Any, labels: Any) -> tuple[Any, Any, Any]:
    overlap = torch.where((labels > 0)[:, None], _overlap(anchors, boxes), -1.0)
    best, index = overlap.max(2)
    most = overlap.amax(1, keepdim=True)
    forced = ((overlap >= most - 1e-6) & (overlap > 0)).any(2)
    label = torch.where(best >= 0.7, 1, torch.where(best < 0.3, 0, -1))
    label = torch.where(forced, 1, label)
    return label, _encode(anchors, _of(boxes, index)), _sample(label, 64)


def _roi_targets(regions: Any, present: Any, boxes: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
    overlap = torch.where((labels > 0)[:, None], _overlap(regions, boxes), -1.0)
    best, index = overlap.max(2)
    label = torch.where(best >= 0.5, labels.gather(1, index), 0)
    label = torch.where(present, label, -1)
    weights, first = _sample(label, 32).topk(32)
    targets = _encode(regions, _of(boxes, index), ROI_WEIGHTS)
    return _of(regions, first), label.gather(1, first), _of(targets, first), weights


def _of(values: Any, index: Any) -> Any:
    return values.gather(1, index[..., None].expand(*index.shape, values.shape[2]))


def _proposals(
    anchors: Any, logits: Any, deltas: Any, counts: Sequence[int], size: Sequence[int]
) -> tuple[Any, Any]:
    chosen, start = [], 0
    for count in counts:
        chosen.append(start + logits[:, start : start + count].topk(min(128, count))[1])
        start += count
    index = torch.cat(chosen, 1)
    found = _decode(anchors[index], _of(deltas, index), size)
    small = (found[..., 2:] - found[..., :2]).amin(-1) < 1
    scores = logits.gather(1, index).masked_fill(small, -torch.inf)
    kept, valid = _suppressed(found, scores, 0.7, 64)
    return _of(found, kept) * valid[..., None], valid


def _detections(
    regions: Any, present: Any, kinds: Any, places: Any, size: Sequence[int]
) -> tuple[Any, Any, Any, Any]:
    found = _decode(regions, places, size, ROI_WEIGHTS)
    probabilities = torch.softmax(kinds, -1)[..., 1:]
    scores = probabilities.sum(-1)
    there = present & (scores >= 0.05) & ((found[..., 2:] - found[..., :2]).amin(-1) > 0)
    kept, valid = _suppressed(found, scores.masked_fill(~there, -torch.inf), 0.5, 16)
    labels = (probabilities.argmax(-1) + 1).gather(1, kept)
    return _of(found, kept), scores.gather(1, kept), labels, valid


def _suppressed(boxes: Any, scores: Any, threshold: float, keep: int) -> tuple[Any, Any]:
    """(B, keep) numbers by descending score and whether there is such a box."""
    ranked, order = scores.sort(dim=1, descending=True, stable=True)
    own = _of(boxes, order)
    suppresses = (_overlap(own, own) > threshold).triu(1)
    present = ranked > -torch.inf
    kept, before = present, None
    while before is None or not torch.equal(kept, before):
        before = kept
        kept = present & ~(suppresses & kept[..., None]).any(1)
    valid, first = kept.float().topk(min(keep, kept.shape[1]))
    return order.gather(1, first), valid > 0


def _roi_align(features: Any, regions: Any, scale: float) -> Any:
    """(B, C, H, W) and (B, R, 4) to (B, R, C, 7, 7)."""
    batch, channels, height, width = features.shape
    size, samples = (height, width), 2 * CELLS
    fraction = (torch.arange(samples, device=features.device) + 0.5) / samples
    axes = []
    for axis in (0, 1):
        start, stop = regions[..., axis] * scale, regions[..., axis + 2] * scale
        place = start[..., None] + (stop - start)[..., None] * fraction
        axes.append(2 * place / size[axis] - 1)
    rows = axes[0][..., :, None].expand(-1, -1, samples, samples)
    cols = axes[1][..., None, :].expand(-1, -1, samples, samples)
    grid = torch.stack([cols, rows], -1).reshape(batch, -1, samples, 2).to(features.dtype)
    found = functional.grid_sample(features, grid, padding_mode="border", align_corners=False)
    found = found.reshape(batch * channels, -1, samples, samples)
    found = functional.avg_pool2d(found, 2)
    return found.reshape(batch, channels, -1, CELLS, CELLS).movedim(1, 2)


def _loss(entropy: Any, deltas: Any, drawn: Sequence[Any]) -> Any:
    label, targets, weights = drawn
    regression = functional.smooth_l1_loss(deltas, targets, beta=BETA, reduction="none").sum(-1)
    losses = entropy + torch.where(label > 0, regression, 0.0)
    return (weights * losses).sum(1) / weights.sum(1).clamp(min=1)


def _normed(inputs: int, features: int) -> list[Any]:
    conv = nn.Conv2d(inputs, features, 3, padding=1, bias=False)
    return [conv, nn.GroupNorm(8, features), nn.ReLU(True)]
