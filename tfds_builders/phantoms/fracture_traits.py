"""What a fractured vertebra is like: draws the state that shows in the image, and its findings.

The signs and the direction in which each tells benign from malignant are those of Jung et al.,
"Discrimination of metastatic from acute osteoporotic compression spinal fractures with MR imaging",
Radiographics 2003;23:179.  The shares below are assumed: no sign occurs in one class alone, because
none does in a clinic, and together they tell the classes apart about as well as the published
senior reader could (accuracy .98).  One segment is abnormal as a rule, as in the published cohort.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

LEVELS = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8", "T7")  # from below upwards

# Fractures gather where the stiff thoracic spine meets the mobile lumbar one (assumed shares).
_LEVEL_SHARES = (0.03, 0.08, 0.13, 0.18, 0.27, 0.19, 0.12)

# Share of benign and of malignant fractures with each sign; the rest follows from the geometry.
_SHARES = {
    "fracture_line": (0.85, 0.12),  # benign: of those that have not healed
    "fluid_sign": (0.30, 0.04),  # benign: of those that have not healed
    "retropulsed_fragment": (0.40, 0.08),
    "convex_posterior_border": (0.08, 0.88),  # of those without a retropulsed fragment
    "pedicle_involvement": (0.08, 0.82),
    "posterior_element_involvement": (0.05, 0.45),
    "paraspinal_mass": (0.08, 0.45),
    "epidural_mass": (0.04, 0.50),
    "endplate_fracture": (0.60, 0.25),
    "other_marrow_lesions": (0.06, 0.55),
    "multiple_compression_fractures": (0.16, 0.04),
}
_HEALED, _EXTENSIVE = 0.25, 0.20  # of the benign; the rest has a band of oedema
_SUBTOTAL, _MIXED = 0.25, 0.40  # of the malignant

COMPLETE_ABOVE = 0.95  # replaced share of the body that is called complete
RETAINED_BELOW = 0.80  # replaced share below which retained marrow is seen
LOSS_CALLED = 0.40  # the finding height_loss_over_40_percent
WEDGE_CALLED = 0.15  # by which the front is lower than the back


@dataclass(frozen=True)
class Findings:
    """The 15 binary findings of a case."""

    fracture_line: bool
    fluid_sign: bool
    retained_fatty_marrow: bool
    complete_marrow_replacement: bool
    convex_posterior_border: bool
    retropulsed_fragment: bool
    pedicle_involvement: bool
    posterior_element_involvement: bool
    paraspinal_mass: bool
    epidural_mass: bool
    endplate_fracture: bool
    height_loss_over_40_percent: bool
    wedge_shape: bool
    other_marrow_lesions: bool
    multiple_compression_fractures: bool


FINDINGS = tuple(f.name for f in fields(Findings))


@dataclass(frozen=True)
class Collapse:
    """How one body lost height.

    Attributes:
      body: 0 for L5, counting upwards.
      front, middle, back: lost share of the height there, 0 to .7.
    """

    body: int
    front: float
    middle: float
    back: float


@dataclass(frozen=True)
class Focus:
    """A marrow lesion of another vertebra: body, place relative to its half sizes, radius in mm."""

    body: int
    a: float
    b: float
    x_mm: float
    radius_mm: float


@dataclass(frozen=True)
class Mass:
    """Soft tissue outside the bone: an ellipsoid on the body's front or back wall.

    Attributes:
      beyond_mm: how far it reaches past each endplate.
      depth_mm, width_mm: half sizes from front to back and across.
    """

    beyond_mm: float
    depth_mm: float
    width_mm: float


@dataclass(frozen=True)
class Fracture:
    """The state of a fractured vertebra and of what goes with it.

    Attributes:
      malignant: the reference standard.
      collapse: of the vertebra in question.
      others: further collapsed vertebrae.
      healed: no oedema is left; the marrow is fat.
      replaced: share of the body's marrow that is oedema or tumour, 0 to 1.
      purity: how much of the marrow's signal has gone there, 0 to 1.
      patchiness: standard deviation of that over the body.
      sclerosis: whether the metastasis has made bone in places, dark on T1 and T2.
      lesion_t1_ms, lesion_t2_ms: relaxation times of the oedema or tumour at 1.5 T.
      x_mm: lateral position of the middle of the lesion, to the left.
      line_depth: of the fracture line, as a share of the height; 0 if there is none.
      fluid_mm: height of the fluid cleft; 0 if there is none.
      bulge_mm: of the whole back wall; 0 if it is not convex.
      fragment_mm: by which the upper back corner stands out; 0 if it does not.
      notch_mm: depth of the break in the upper endplate; 0 if it is whole.
      notch_at: its place, -1 at the front to 1 at the back.
      pedicle, posterior: whether the marrow of the pedicles, of the arch behind, is replaced.
      epidural, paraspinal: masses behind and before the body.
      foci: lesions of other vertebrae.
    """

    malignant: bool
    collapse: Collapse
    others: tuple[Collapse, ...]
    healed: bool
    replaced: float
    purity: float
    patchiness: float
    sclerosis: bool
    lesion_t1_ms: float
    lesion_t2_ms: float
    x_mm: float
    line_depth: float
    fluid_mm: float
    bulge_mm: float
    fragment_mm: float
    notch_mm: float
    notch_at: float
    pedicle: bool
    posterior: bool
    epidural: Mass | None
    paraspinal: Mass | None
    foci: tuple[Focus, ...]

    @property
    def level(self) -> str:
        """Name of the vertebra, e.g. "L1"."""
        return LEVELS[self.collapse.body]

    def findings(self) -> Findings:
        """What is to be seen, without a reader's errors."""
        lost = self.collapse
        return Findings(
            fracture_line=self.line_depth > 0,
            fluid_sign=self.fluid_mm > 0,
            retained_fatty_marrow=self.replaced < RETAINED_BELOW,
            complete_marrow_replacement=self.replaced > COMPLETE_ABOVE,
            convex_posterior_border=self.bulge_mm > 0,
            retropulsed_fragment=self.fragment_mm > 0,
            pedicle_involvement=self.pedicle,
            posterior_element_involvement=self.posterior,
            paraspinal_mass=self.paraspinal is not None,
            epidural_mass=self.epidural is not None,
            endplate_fracture=self.notch_mm > 0,
            height_loss_over_40_percent=max(lost.front, lost.middle, lost.back) > LOSS_CALLED,
            wedge_shape=lost.front - lost.back > WEDGE_CALLED,
            other_marrow_lesions=bool(self.foci),
            multiple_compression_fractures=bool(self.others),
        )


def draw_fracture(rng: np.random.Generator, malignant: bool) -> Fracture:
    """Draws a fracture of one class.

    Acute benign fractures may be oedema throughout, malignant ones may spare some marrow, and
    tumour and oedema have overlapping relaxation times: brightness alone decides nothing.
    """
    shares = np.array(_LEVEL_SHARES)
    body = int(rng.choice(len(shares), p=shares / shares.sum()))
    has = {name: bool(rng.random() < pair[malignant]) for name, pair in _SHARES.items()}
    course = rng.random()
    healed = not malignant and course < _HEALED
    extensive = not malignant and _HEALED <= course < _HEALED + _EXTENSIVE
    if healed:
        replaced = 0.0
    elif malignant:
        replaced = rng.uniform(0.45, 0.85) if course < _SUBTOTAL else 1.0
    else:
        replaced = rng.uniform(0.85, 1.0) if extensive else rng.uniform(0.35, 0.70)
    fresh = not healed
    others = _draw_others(rng, body, malignant) if has["multiple_compression_fractures"] else ()
    spared = [k for k in _near(body) if k not in [c.body for c in others]]
    fragment = has["retropulsed_fragment"] * rng.uniform(3.5, 6.0)
    return Fracture(
        malignant=malignant,
        collapse=_draw_collapse(rng, body, malignant, rng.uniform(0.25, 0.62)),
        others=others,
        healed=healed,
        replaced=float(replaced),
        purity=float(rng.uniform(0.85, 1.0) if malignant or extensive else rng.uniform(0.6, 0.95)),
        patchiness=float(rng.uniform(0.04, 0.20)),
        sclerosis=bool(rng.random() < _MIXED) and malignant,
        lesion_t1_ms=float(rng.uniform(850, 1250)),
        lesion_t2_ms=float(rng.uniform(85, 165) if malignant else rng.uniform(115, 180)),
        x_mm=float(np.clip(rng.normal(0, 2.5), -5, 5)),
        line_depth=float(fresh * has["fracture_line"] * rng.uniform(0.30, 0.50)),
        fluid_mm=float(fresh * has["fluid_sign"] * rng.uniform(2.4, 4.0)),
        bulge_mm=float((fragment == 0) * has["convex_posterior_border"] * rng.uniform(3.0, 5.5)),
        fragment_mm=float(fragment),
        notch_mm=float(has["endplate_fracture"] * rng.uniform(2.0, 3.6)),
        notch_at=float(rng.uniform(-0.6, 0.5)),
        pedicle=has["pedicle_involvement"] and fresh,
        posterior=has["posterior_element_involvement"] and fresh,
        epidural=_draw_mass(rng, (2, 8), (4, 7), (8, 11))
        if has["epidural_mass"] and fresh
        else None,
        paraspinal=_draw_mass(rng, (0, 9), (5, 10), (17, 26))
        if has["paraspinal_mass"] and fresh
        else None,
        foci=_draw_foci(rng, spared, malignant) if has["other_marrow_lesions"] else (),
    )


def _draw_collapse(rng: np.random.Generator, body: int, malignant: bool, most: float) -> Collapse:
    kind = rng.choice(3, p=(0.30, 0.20, 0.50) if malignant else (0.45, 0.30, 0.25))
    wedge, biconcave, crush = (1.0, 0.75, 0.15), (0.35, 1.0, 0.25), (0.95, 1.0, 0.85)
    front, middle, back = (wedge, biconcave, crush)[kind]
    jitter = rng.uniform(0.9, 1.1, 3)
    lost = np.clip(most * jitter * (front, middle, back), 0, 0.68)
    return Collapse(body, *(float(v) for v in lost))


def _draw_others(rng: np.random.Generator, body: int, malignant: bool) -> tuple[Collapse, ...]:
    other = int(rng.choice(_near(body)))
    return (_draw_collapse(rng, other, malignant, rng.uniform(0.22, 0.38)),)


def _near(body: int) -> list[int]:
    """Bodies that are sure to be in view."""
    return [k for k in range(body - 2, body + 3) if k != body and 0 <= k < len(LEVELS)]


def _draw_mass(
    rng: np.random.Generator,
    beyond: tuple[float, float],
    depth: tuple[float, float],
    width: tuple[float, float],
) -> Mass:
    return Mass(*(float(rng.uniform(*limits)) for limits in (beyond, depth, width)))


def _draw_foci(
    rng: np.random.Generator, spared: Sequence[int], malignant: bool
) -> tuple[Focus, ...]:
    count = int(rng.integers(1, 4)) if malignant else 1
    return tuple(
        Focus(
            int(k),
            *(float(v) for v in rng.uniform((-0.5, -0.6, -8, 4.5), (0.5, 0.6, 8, 9))),
        )
        for k in rng.choice(spared, min(count, len(spared)), replace=False)
    )
