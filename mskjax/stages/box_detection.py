"""A detector of boxes in slices: Faster R-CNN on one or more volumes of a study."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.config import Dtype, Norm, TrainConfig, check_norm
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import augment
from mskjax.imaging.boxes import iou_matrix
from mskjax.imaging.levels import tilts
from mskjax.stages.slice_segmentation import (
    canvas,
    network_grid,
    on_canvas,
    preprocessing,
    scaled,
)
from mskjax.training.stage import Input, Stage, Study

if TYPE_CHECKING:
    import flax.linen as nn

OTHER, LOWEST = 1, 2  # classes of a disc
FUSED_IOU = 0.55  # above which boxes of several detectors are of one thing


@dataclasses.dataclass(frozen=True)
class DetectorOptions:
    """Size of the detector; see `models.faster_rcnn.FasterRCNN`.

    Attributes:
      widths: channels of the backbone at strides 2, 4, 8...
      channels: of the pyramid.
      hidden: width of the two layers of the box head.
      norm: ``batch``, ``group`` or ``instance``.
      dtype: compute type, float32 or bfloat16; parameters are float32.
      anchor_sizes: per pyramid level, square roots of anchor areas in pixels; as many on each.
      anchor_ratios: height / width of anchors.
    """

    widths: tuple[int, ...] = (16, 32, 64, 64)
    channels: int = 32
    hidden: int = 128
    norm: Norm = "group"
    dtype: Dtype = "float32"
    anchor_sizes: tuple[tuple[float, ...], ...] = ((16.0,), (26.0,))
    anchor_ratios: tuple[float, ...] = (0.3, 0.5, 0.8)

    def __post_init__(self) -> None:
        check_norm(self.norm, *self.widths, self.channels)


@dataclasses.dataclass(frozen=True)
class BoxDetectionOptions:
    """Options of the stage.

    Attributes:
      spacing_mm: in-plane pixel size of the network; slices keep their native pitch.
      channels: the study's volumes that the network sees together.
      model: the network.
      train: the recipe.
      confidence: score at which a detection is sure; figures count those from it on.
      most_boxes: reference boxes of a slice; more are refused.
      augmentation: strengths; flip must be 0, for the front of the body is always on the left.
    """

    spacing_mm: float = 1.0
    channels: tuple[str, ...] = ("image",)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    model: DetectorOptions = dataclasses.field(default_factory=DetectorOptions)
    confidence: float = 0.5
    most_boxes: int = 16
    augmentation: augment.SliceAugmentation = dataclasses.field(
        default_factory=augment.SliceAugmentation
    )

    def __post_init__(self) -> None:
        if self.augmentation.flip:
            raise UserError("augmentation.flip must be 0: the front is always on the left.")
        if not 0 <= self.confidence < 1:
            raise UserError(f"confidence is {self.confidence}; it must be in [0, 1).")


@dataclasses.dataclass(frozen=True)
class Found:
    """Detections in the slice that shows most of them, unsure ones too.

    Attributes:
      slice: number.
      boxes: (D, 4) float, row0, col0, row1, col1 half-open in native pixels.
      scores: (D,) in [0, 1], descending.
      lowest: (D,) in [0, 1], probability of being the lowest of the row, if it is of the row.
    """

    slice: int
    boxes: np.ndarray
    scores: np.ndarray
    lowest: np.ndarray


@dataclasses.dataclass(frozen=True)
class BoxDetection(Stage):
    """Finds boxes that lie in a row, slice by slice, and which of them is the lowest.

    The lowest disc has the sacrum below it and looks unlike the others, so it is a class of its
    own: levels that are counted from it do not depend on what is found below.

    Studies need ``affine``, the volumes of `BoxDetectionOptions.channels` on that grid and a table
    ``boxes`` with ``boxed``, ``slice``, ``level`` (1 the lowest, 0 unknown) and ``box`` (row0,
    col0, row1, col1 in native pixels).

    Attributes:
      name: of the stage.
      options: see `BoxDetectionOptions`.
      canvas: rows, columns that hold every slice to train on, at network spacing.
    """

    name: str
    options: BoxDetectionOptions
    canvas: tuple[int, int]
    inputs = ("image", "boxes", "labels")

    def hyper(self) -> dict[str, Any]:
        """Strengths of the augmentation."""
        return {"augmentation": self.options.augmentation}

    def model(self) -> "nn.Module":
        """Faster R-CNN with two classes that are kinds of one thing."""
        from mskjax.models.faster_rcnn import FasterRCNN

        m = self.options.model
        return FasterRCNN(
            classes=2,
            exclusive=True,
            widths=m.widths,
            channels=m.channels,
            hidden=m.hidden,
            norm=m.norm,
            anchor_sizes=m.anchor_sizes,
            anchor_ratios=m.anchor_ratios,
            detections=self.options.most_boxes,
            dtype=jnp.dtype(m.dtype),
        )

    def canvas_for(self, studies: Sequence[Study]) -> tuple[int, int]:
        """See `Stage.canvas_for`."""
        multiple = 2 ** len(self.options.model.widths)
        return canvas(studies, self.options.spacing_mm, multiple, self.options.channels[0])

    def signature(self) -> dict[str, Input]:
        """A training batch of slices on the canvas: anchors have the size of the slice.

        Boxes and labels are given to training alone, and are 0.
        """
        batch, most = self.train.batch_size, self.options.most_boxes
        unused = "0: reference boxes are known in training alone"
        return {
            "image": Input.images(*self.canvas, len(self.options.channels), batch=batch),
            "boxes": Input(f"{batch}, {most}, 4", "float32", "batch, boxes, sides", unused),
            "labels": Input(f"{batch}, {most}", "int32", "batch, boxes", unused),
        }

    def preprocessing(self) -> dict[str, Any]:
        """See `Stage.preprocessing`."""
        return preprocessing(self.options.channels, self.options.spacing_mm, self.canvas)

    def training_examples(self, study: Study) -> Examples | None:
        """The boxed slices.

        Returns:
          image; padded boxes (N, G, 4) in network pixels, from the lowest upwards; their labels,
          `OTHER` or `LOWEST`, and tilts (N, G), see `levels.tilts`.
        """
        table = study["boxes"]
        boxed = np.asarray(table["boxed"]) > 0
        numbers = np.unique(np.asarray(table["slice"])[boxed])
        if not len(numbers):
            return None
        examples = self.inference_examples(study)
        examples["tilts"] = np.zeros(examples["labels"].shape, np.float32)
        _, grid = network_grid(study, self.options.channels[0], self.options.spacing_mm)
        for number in numbers:
            rows = np.flatnonzero(boxed & (np.asarray(table["slice"]) == number))
            if len(rows) > self.options.most_boxes:
                raise UserError(
                    f"{study['study_id']}: slice {number} has {len(rows)} boxes; raise most_boxes"
                    f" ({self.options.most_boxes}) of stage {self.name}."
                )
            boxes = on_grid(np.asarray(table["box"])[rows], study["affine"], grid)
            upwards = np.argsort(-(boxes[:, 0] + boxes[:, 2]), kind="stable")
            boxes, rows = boxes[upwards], rows[upwards]
            examples["boxes"][number, : len(rows)] = boxes
            examples["labels"][number, : len(rows)] = OTHER
            # A row that is known to begin higher up does not show the lowest disc.
            if int(table["level"][rows[0]]) <= 1:
                examples["labels"][number, 0] = LOWEST
            # The network's pixels are square.
            examples["tilts"][number, : len(rows)] = tilts((boxes[:, :2] + boxes[:, 2:]) / 2)
        return {name: values[numbers] for name, values in examples.items()}

    def inference_examples(self, study: Study) -> Examples:
        """All slices, without boxes."""
        image = on_canvas(
            scaled(study, self.options.channels, self.options.spacing_mm), self.canvas
        )
        room = (len(image), self.options.most_boxes)
        return {
            "image": image,
            "boxes": np.zeros((*room, 4), np.float32),
            "labels": np.zeros(room, np.int32),
        }

    def decode(self, study: Study, outputs: dict[str, np.ndarray]) -> Found:
        """Detections of one study on its native grid.

        A sagittal stack shows the discs in many slices; the one with the largest sum of scores is
        taken, which is near the middle of the spine.
        """
        valid = outputs["valid"]
        number = int(np.argmax((outputs["scores"] * valid).sum(1)))
        _, grid = network_grid(study, self.options.channels[0], self.options.spacing_mm)
        boxes = on_grid(outputs["boxes"][number][valid[number]], grid, study["affine"])
        rows, cols = study[self.options.channels[0]].shape[1:]
        boxes = np.clip(boxes, 0, (rows, cols, rows, cols))
        kept = valid[number]
        scores = outputs["scores"][number][kept]
        lowest = outputs["probabilities"][number][kept, LOWEST - 1] / np.maximum(scores, 1e-6)
        return Found(number, boxes, scores, lowest)

    def combine(self, outputs: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Boxes of all trainings that are of one thing become one, see `fused`."""
        if len(outputs) == 1:
            return outputs[0]
        slices = [
            fused([{name: v[i][own["valid"][i]] for name, v in own.items()} for own in outputs])
            for i in range(len(outputs[0]["valid"]))
        ]
        most = max(len(own["scores"]) for own in slices)

        def padded(values: np.ndarray) -> np.ndarray:
            return np.pad(values, [(0, most - len(values)), *[(0, 0)] * (values.ndim - 1)])

        return {name: np.stack([padded(own[name]) for own in slices]) for name in slices[0]}

    def augment(
        self, keys: jax.Array, batch: dict[str, jax.Array], hyper: Any
    ) -> dict[str, jax.Array]:
        """Motion of image and boxes together, intensities, blur and noise of the image."""

        def one(
            key: jax.Array, image: jax.Array, boxes: jax.Array, tilt: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            transform = augment.sample_slice_transform(key, hyper["augmentation"])
            return (
                augment.apply_to_image(transform, image),
                augment.apply_to_boxes(transform, boxes, tilt, (image.shape[0], image.shape[1])),
            )

        image, boxes = jax.vmap(one)(keys, batch["image"], batch["boxes"], batch["tilts"])
        return {**batch, "image": image, "boxes": boxes}

    def loss(
        self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Both stages of the detector, see `models.faster_rcnn.detection_loss`."""
        from mskjax.models.faster_rcnn import detection_loss

        return detection_loss(outputs)

    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """``boxes`` (B, D, 4) in network pixels, and what else `Detections` has."""
        return outputs.detections._asdict()


def on_grid(boxes: np.ndarray, affine: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Boxes in pixels of one grid as boxes of another whose axes are parallel, (N, 4) float32.

    Edges lie between pixel centres: edge ``e`` is the index ``e - 0.5``.
    """
    step = np.linalg.inv(target) @ affine
    corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2) - 0.5
    scale, shift = np.diag(step)[1:3], step[1:3, 3]
    return (corners * scale + shift + 0.5).reshape(-1, 4).astype(np.float32)


def fused(detections: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Weighted boxes fusion of the detections of several detectors in one slice.

    After Solovyev, Wang & Gabruseva, Image Vis Comput 2021;107:104117: from the surest on, a box
    joins the first cluster whose fused box it overlaps by more than `FUSED_IOU`, where that has no
    box of its detector yet.  A fused box is the mean of its boxes weighted by their scores;
    its score and its class probabilities are means over all detectors, 0 for those without it.

    Args:
      detections: of each detector: ``boxes`` (D, 4), ``scores`` (D,), ``probabilities`` (D, C) and
        ``valid``, all True.

    Returns:
      The same of the fused boxes, the surest first.
    """
    every = [
        (float(own["scores"][i]), number, own["boxes"][i], own["probabilities"][i])
        for number, own in enumerate(detections)
        for i in range(len(own["scores"]))
    ]
    clusters: list[list[Any]] = []
    boxes: list[np.ndarray] = []
    for one in sorted(every, key=lambda d: -d[0]):
        for cluster, box in enumerate(boxes):
            taken = {other[1] for other in clusters[cluster]}
            if one[1] not in taken and iou_matrix(one[2][None], box[None])[0, 0] > FUSED_IOU:
                clusters[cluster].append(one)
                weights = [other[0] for other in clusters[cluster]]
                boxes[cluster] = np.average([o[2] for o in clusters[cluster]], 0, weights)
                break
        else:
            clusters.append([one])
            boxes.append(one[2])
    count, classes = len(detections), detections[0]["probabilities"].shape[-1]
    scores = np.array([sum(o[0] for o in c) / count for c in clusters], np.float32)
    order = np.argsort(-scores, kind="stable")
    sums = [np.sum([o[3] for o in c], 0) / count for c in clusters]
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4)[order],
        "scores": scores[order],
        "probabilities": np.array(sums, np.float32).reshape(-1, classes)[order],
        "valid": np.ones(len(order), bool),
    }
