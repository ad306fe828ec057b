"""What all graders share: heads, their loss over the labels an example has, class balance."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.imaging import views
from mskjax.training.stage import Input, Stage


@dataclasses.dataclass(frozen=True)
class Head:
    """One grading.

    Attributes:
      name: of the grading.
      classes: number of classes.
      lowest: the value of the first grade in the study (Pfirrmann starts at 1).
      column: the study's column of grades; empty where it is called like the grading.
      grouped: class of each grade from the lowest on, -1 for grades that the grading leaves out;
        empty where each grade is a class.
    """

    name: str
    classes: int
    lowest: int = 0
    column: str = ""
    grouped: tuple[int, ...] = ()

    def target(self, grade: Any) -> np.ndarray:
        """Grades as class numbers, int32; a missing grade (-1) stays -1."""
        grade = np.asarray(grade, np.int32)
        number = grade - self.lowest
        if self.grouped:
            classes = np.array(self.grouped, np.int32)[np.clip(number, 0, len(self.grouped) - 1)]
        else:
            classes = np.clip(number, 0, self.classes - 1)
        return np.where(grade < 0, -1, classes).astype(np.int32)


def check_views(count: int) -> None:
    """Refuses a number of views that is none.

    Raises:
      UserError: it is below 1.
    """
    if count < 1:
        raise UserError(f"views is {count}; it must be at least 1, which is the crop itself alone.")


@dataclasses.dataclass(frozen=True)
class Grader(Stage):
    """A network with a head per grading; subclasses say what it sees and what it is.

    Attributes:
      name: of the stage.
      options: dataclass of the stage with at least ``crop``, ``train``, ``emd_weight``,
        ``augmentation`` and ``views``.
      heads: the gradings; the first is the one that is balanced, monitored and explained.
      mirrored: of a traced stage, whose strengths are arrays: whether training mirrors crops.
      crop_channels: channels of a crop.
      mirroring: name of the strength of mirroring, and the axis of a batch that it reverses.
    """

    name: str
    options: Any
    heads: tuple[Head, ...]
    mirrored: bool = dataclasses.field(default=False, kw_only=True)

    crop_channels: ClassVar[int] = 1
    mirroring: ClassVar[tuple[str, int]] = ("flip_slices", 1)

    def signature(self) -> dict[str, Input]:
        """Any number of crops."""
        return {"image": Input.images(*self.options.crop, self.crop_channels)}

    def hyper(self) -> dict[str, Any]:
        """Weight of the earth mover's distance and strengths of the augmentation."""
        return {k: getattr(self.options, k) for k in ("emd_weight", "augmentation")}

    def traced(self) -> Self:
        """See `Stage.traced`; views are mirrored where training mirrors, which shapes a program."""
        mirrored = self.views > 1 and self._mirrors
        return dataclasses.replace(super().traced(), mirrored=mirrored)

    @property
    def views(self) -> int:
        """As the options say."""
        return int(self.options.views)

    def view(self, number: int, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Crops turned, zoomed and shifted a little (`imaging.views`), half of them mirrored."""
        image = inputs["image"]
        if self._mirrors and views.is_mirrored(number):
            image = jnp.flip(image, self.mirroring[1])
        return {**inputs, "image": views.moved(number, image)}

    @property
    def _mirrors(self) -> bool:
        strengths = self.options.augmentation
        return self.mirrored if strengths is None else getattr(strengths, self.mirroring[0]) > 0

    def loss(
        self, outputs: Any, batch: dict[str, jax.Array], balance: Any, hyper: Any
    ) -> jax.Array:
        """Cross-entropy (and earth mover's distance) per example over the labels it has."""
        from mskjax.models import losses

        targets = {h.name: batch[f"target_{h.name}"] for h in self.heads}
        return losses.masked_heads_loss(outputs, targets, balance, hyper["emd_weight"])

    def monitor(self, outputs: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Whether the first head is right."""
        first = self.heads[0].name
        right = jnp.argmax(outputs[first], -1) == batch[f"target_{first}"]
        return {f"accuracy_{first}": right.astype(jnp.float32)}

    def activate(self, outputs: Any) -> dict[str, jax.Array]:
        """Softmax of each head, float32."""
        return {name: jax.nn.softmax(logits) for name, logits in outputs.items()}

    def explain(self, variables: Any, inputs: list[jax.Array]) -> dict[str, jax.Array]:
        """``attention``: Grad-CAM of the class that the first head chooses, float32, in logits."""
        from mskjax.models.attention import grad_cam

        return {"attention": grad_cam(self.model(), variables, inputs, self.heads[0].name)}

    def classes(self, examples: Examples) -> np.ndarray:
        """The class of the first head, by which sampling balances."""
        return examples[f"target_{self.heads[0].name}"]

    def balance(self, examples: Examples) -> Any:
        """Class weights per head: inverse frequency with mean 1 over the examples, or ones."""
        weights = {}
        for head in self.heads:
            target = examples[f"target_{head.name}"]
            counts = np.bincount(target[target >= 0], minlength=head.classes)
            if self.train.balance == "weights" and counts.sum():
                # Classes that do not occur get weight 0; they occur in no loss term either.
                inverse = np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0.0)
                weights[head.name] = (inverse / np.count_nonzero(counts)).astype(np.float32)
            else:
                weights[head.name] = np.ones(head.classes, np.float32)
        return weights

    def targets(self, grades: Mapping[str, Any]) -> Examples:
        """``target_<head>`` arrays, int32, from columns of N grades; absent columns give -1."""
        size = len(next(iter(grades.values())))
        missing = np.full(size, -1)
        return {
            f"target_{h.name}": h.target(grades.get(h.column or h.name, missing))
            for h in self.heads
        }
