"""What a stack of images shows: plane, weighting, and what speaks against it, from its header.

The times of a sequence count more than what somebody called it.  Their limits begin from those
of IMAIOS e-MRI, "Signal weighting" (TR short below about 500 ms, long above 1500; TE short below
30, long above 90) and are widened to what is run: a T1 has a TR up to 1000 ms, since T1 of tissue
is longer at 3 T, and a T2 has a TE from 60 and a TR from 1000 ms on, as turbo spin echo and its 3-D
forms do.  What lies between is told by its name alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mskjax.imaging import headers
from mskjax.imaging.planes import ISOTROPIC, MOST_OBLIQUE, MOST_TILTED
from mskjax.inputs.stacks import Stack
from mskjax.inputs.walk import printable

SHORT_TE_MS, T2_TE_MS = 30.0, 60.0
PD_TE_MS = 50.0  # turbo spin echo of joints
LEAST_TR_MS = 150.0  # of a spin echo
T1_TR_MS, T2_TR_MS, LONG_TR_MS = 1000.0, 1000.0, 1500.0
# Inversion that nulls fat (130 to 230 ms from 0.5 to 3 T), makes T1 contrast, and nulls water.
STIR_TI_MS, T1_TI_MS, FLAIR_TI_MS = (80.0, 350.0), (350.0, 1400.0), 1400.0

# Never taken unless by hand.
NEVER = (
    "no MR", "localiser", "secondary capture", "diffusion", "map", "subtraction", "projection",
    "phase", "colour", "fat image", "opposed-phase image", "without a place",
)  # fmt: skip
# Taken only where a study has nothing better: the worse, the higher.
WORSE = {
    "after contrast medium": 1, "fat-suppressed": 2, "water image": 2,
    "one of several time points": 3, "reformatted": 4, "STIR": 8,
}  # fmt: skip

_CONTRASTS = {
    "T1": "t1", "T2": "t2", "PROTON_DENSITY": "pd", "T2_STAR": "t2*", "STIR": "t2",
    "FLUID_ATTENUATED": "flair",
}  # fmt: skip

# Words of SeriesDescription and ProtocolName, a line each, in lower case, with _ and - as blanks.
_NAMES = {
    "t1": r"(?<![a-z0-9])t1(?! ?(rho|map))",
    "t2": r"(?<![a-z0-9])t2(?! ?(\*|star|map))",
    "t2*": r"(?<![a-z0-9])t2 ?(\*|star)|(?<![a-z])(medic|merge|me2d|swi)(?![a-z])",
    "pd": r"(?<![a-z0-9])(pd|dp)(?![a-z]{4})|proton",
    "flair": r"flair|dark ?fluid",
}
_WORDS = {
    "localiser": r"^loc(?![a-z])|(?<![a-z])loc$|locali[sz]er|scout|survey|plan ?scan|calibration"
    r"|(?<![a-z0-9])3 ?(pl|plane)(?![a-z])",
    "diffusion": r"(?<![a-z])(dwi|dti|adc|diff|diffusion|ep2d|trace|tracew)(?![a-z])",
    "map": r"(?<![a-z])map(ping|s|it)?(?![a-z])|(?<![a-z0-9])t[12] ?(map|rho)",
    "subtraction": r"(?<![a-z])(sub|subtraction|subtracted)(?![a-z])",
    "projection": r"(?<![a-z])(mip|minip|myelo\w*)(?![a-z])",
    "secondary capture": r"screen ?(save|shot)|(?<![a-z])(report|keyimage)s?(?![a-z])",
    "reformatted": r"(?<![a-z])(mpr|mpv|cpr|reformat\w*|composing|compose[dr]?)(?![a-z])",
    "after contrast medium": r"(?<![a-z])(gd|gado\w*|km|mdc|post ?(gd|km|contrast|gado)|ce)"
    r"(?![a-z])|\+ ?(c|km|gd)(?![a-z])|(?<![a-z])post$",
    "STIR": r"stir(?![a-z])|tirm|turbo ?ir",
    "fat-suppressed": r"(?<![a-z])(fs|spair|spir|chess|sfs)(?![a-z])|fat ?s(at|up)"
    r"|(t1|t2|pd|tse|fse|w)fs(?![a-z])|(?<![a-z])water ?exc",
    "water image": r"(dixon|ideal|flex)(?![a-z]).*(?<![a-z])(w|water)(?![a-z])|^water:",
    "fat image": r"(dixon|ideal|flex)(?![a-z]).*(?<![a-z])(f|fat)(?![a-z])|^fat:",
    "opposed-phase image": r"(?<![a-z])(opp|oop|opposed|out ?of ?phase|outphase)(?![a-z])",
}  # fmt: skip
# Values of ImageType and FrameType.
_TYPES = {
    "LOCALIZER": "localiser", "DIFFUSION": "diffusion", "ADC": "diffusion", "TRACEW": "diffusion",
    "MAP": "map", "T1 MAP": "map", "T2 MAP": "map", "T1_MAP": "map", "T2_MAP": "map",
    "SUBTRACT": "subtraction", "SUBTRACTION": "subtraction", "SUB": "subtraction",
    "PROJECTION IMAGE": "projection", "MIP": "projection", "MAX_IP": "projection",
    "MIN_IP": "projection", "MNIP": "projection", "SCREEN SAVE": "secondary capture",
    "SCREENSHOT": "secondary capture", "CSA REPORT": "secondary capture", "MPR": "reformatted",
    "REFORMATTED": "reformatted", "RESAMPLED": "reformatted", "P": "phase", "PHASE": "phase",
    "PHASE MAP": "phase", "W": "water image", "WATER": "water image", "F": "fat image",
    "FAT": "fat image", "OP": "opposed-phase image", "OPP_PHASE": "opposed-phase image",
    "OUT_PHASE": "opposed-phase image", "OUT_OF_PHASE": "opposed-phase image", "STIR": "STIR",
}  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PLANES = ("sagittal", "coronal", "axial")
_PLANE_WORDS = {
    "sagittal": r"(?<![a-z])sag", "coronal": r"(?<![a-z])cor",
    "axial": r"(?<![a-z])(ax|axial|tra|trans|transversal)(?![a-z])",
}  # fmt: skip
_PLAIN_DEGREES = 20.0


@dataclass(frozen=True)
class Shown:
    """What a stack shows.

    Attributes:
      stack: its images.
      weighting: ``t1``, ``t2``, ``pd``, ``t2*``, ``flair``; empty where nothing says it.
      flags: of `NEVER` and `WORSE`, in that order.
      echo_ms: echo time; NaN where it is not said.
      repetition_ms: repetition time, likewise.
      is_named: whether its words may quote SeriesDescription.
    """

    stack: Stack
    weighting: str
    flags: tuple[str, ...]
    echo_ms: float
    repetition_ms: float
    is_named: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether it may be taken without being asked for."""
        return not set(self.flags) & set(NEVER)

    @property
    def badness(self) -> int:
        """How much speaks against it; 0 is best."""
        return sum(WORSE.get(flag, 0) for flag in self.flags)

    @property
    def plane(self) -> str:
        """Plane of the slices in words; empty where they have no place."""
        normal = self.stack.normal
        if normal is None:
            return ""
        name = _PLANES[int(np.argmax(np.abs(normal)))]
        oblique = np.abs(normal).max() < np.cos(np.radians(_PLAIN_DEGREES))
        return f"{name} oblique" if oblique else name

    def fits(self, plane: str | None) -> bool:
        """Whether the slices lie in a plane of `tfds_builders.images.Wanted`."""
        normal = self.stack.normal
        if normal is None or plane is None:
            return plane is None
        sideways, _, upwards = np.abs(normal)
        if self._is_isotropic():
            return True
        if plane == "sagittal":
            return int(np.argmax(np.abs(normal))) == 0
        # As `planes.y_view`; what is called by another plane is not it, however oblique.
        inside = upwards <= np.sin(np.radians(MOST_TILTED))
        return bool(
            inside
            and sideways >= np.cos(np.radians(MOST_OBLIQUE))
            and self._named_plane() in ("", "sagittal")
        )

    def words(self) -> str:
        """In words, e.g. ``sagittal T2, TE 101 ms, 15 slices``; see `is_named`."""
        head = " ".join(filter(None, (self.plane, self.weighting.upper()))) or "images"
        times = [
            f"{name} {value:.4g} ms"
            for name, value in (("TE", self.echo_ms), ("TR", self.repetition_ms))
            if np.isfinite(value)
        ]
        count = len(self.stack.planes)
        size = f"{count} slice{'s' * (count != 1)}"
        name = " ".join(self.stack.facts.get("SeriesDescription", "").split())
        quoted = [printable(f'"{name}"')] if self.is_named and name else []
        return ", ".join([head, *self.flags, *times, size, *quoted])

    def _is_isotropic(self) -> bool:
        first = self.stack.planes[0].where
        if first is None or len(self.stack.planes) == 1:
            return False
        pitches = (*first[2], self.stack.step)
        return max(pitches) <= ISOTROPIC * min(pitches)

    def _named_plane(self) -> str:
        text = _text(self.stack.facts)
        named = [plane for plane, pattern in _PLANE_WORDS.items() if _finds(pattern, text)]
        return named[0] if len(named) == 1 else ""


def shown(stack: Stack) -> Shown:
    """What a stack shows, as far as its header says."""
    facts = stack.facts
    echo = _milliseconds(facts, "EffectiveEchoTime", "EchoTime")
    repetition = _milliseconds(facts, "RepetitionTime")
    inversion = _milliseconds(facts, "InversionTime", "InversionTimes")
    text = _text(facts)
    flags = set(_header_flags(facts, inversion))
    flags |= {flag for flag, pattern in _WORDS.items() if _finds(pattern, text)}
    if stack.normal is None:
        flags.add("without a place")
    if stack.is_of_time:
        flags.add("one of several time points")
    if {"STIR", "water image"} & flags:
        flags.discard("fat-suppressed")  # said by the more special one
    weighting = (
        _CONTRASTS.get(facts.get("AcquisitionContrast", ""), "")
        or _by_times(facts, echo, repetition, inversion)
        or _by_name(text)
    )
    if "STIR" in flags:
        weighting = "t2"
    ordered = tuple(flag for flag in (*NEVER, *WORSE) if flag in flags)
    return Shown(stack, weighting, ordered, echo, repetition)


def _by_times(
    facts: Mapping[str, str], echo_ms: float, repetition_ms: float, inversion_ms: float
) -> str:
    """Weighting of a spin echo by its times; empty where they do not tell."""
    kinds = set(facts.get("ScanningSequence", "").split("\\"))
    if ("GR" in kinds and "SE" not in kinds) or facts.get("EchoPulseSequence") == "GRADIENT":
        return ""  # the flip angle tells as much as the times
    if repetition_ms < LEAST_TR_MS:
        return ""  # a gradient echo that does not say so
    if inversion_ms >= FLAIR_TI_MS:
        return "flair"
    if echo_ms <= SHORT_TE_MS and (
        repetition_ms <= T1_TR_MS or T1_TI_MS[0] < inversion_ms < T1_TI_MS[1]
    ):
        return "t1"
    if echo_ms >= T2_TE_MS and repetition_ms >= T2_TR_MS:
        return "t2"
    return "pd" if echo_ms <= PD_TE_MS and repetition_ms >= LONG_TR_MS else ""


def _by_name(text: str) -> str:
    named = [weighting for weighting, pattern in _NAMES.items() if _finds(pattern, text)]
    return named[0] if len(named) == 1 else ""


def _header_flags(facts: Mapping[str, str], inversion_ms: float) -> list[str]:
    types = f"{facts.get('ImageType', '')}\\{facts.get('FrameType', '')}".upper().split("\\")
    found = [_TYPES[value] for value in types[2:] if value in _TYPES]
    if types[:2] == ["DERIVED", "SECONDARY"]:
        found.append("reformatted")
    if facts.get("SOPClassUID", "").startswith(_SECONDARY_CAPTURE):
        found.append("secondary capture")
    if facts.get("Modality", "MR") != "MR":
        found.append("no MR")
    if facts.get("SamplesPerPixel", "1") != "1":
        found.append("colour")
    if facts.get("ComplexImageComponent") == "PHASE":
        found.append("phase")
    if (facts.get("DiffusionBValue") or "0") not in ("0", "0.0") or (
        facts.get("AcquisitionContrast") == "DIFFUSION"
    ):
        found.append("diffusion")
    if facts.get("ContrastBolusAgent", "").lower() not in ("", "no", "none"):
        found.append("after contrast medium")
    options = facts.get("ScanOptions", "").upper().split("\\")
    if any(option.startswith(("FS", "FAT", "SPIR", "SPAIR")) for option in options) or (
        facts.get("SpectrallySelectedSuppression") in ("FAT", "FAT_AND_WATER")
    ):
        found.append("fat-suppressed")
    contrast = facts.get("AcquisitionContrast", "")
    if contrast == "STIR" or STIR_TI_MS[0] <= inversion_ms <= STIR_TI_MS[1]:
        found.append("STIR")
    return found


def _milliseconds(facts: Mapping[str, str], *keywords: str) -> float:
    texts = (facts.get(keyword, "").split("\\")[0] for keyword in keywords)
    return next((v for text in texts if (v := headers.number(text)) > 0), float("nan"))


def _text(facts: Mapping[str, str]) -> str:
    names = (facts.get(keyword, "") for keyword in ("SeriesDescription", "ProtocolName"))
    return "\n".join(re.sub(r"[\s_/.,;()-]+", " ", name.lower()).strip() for name in names)


def _finds(pattern: str, text: str) -> bool:
    return bool(re.search(pattern, text, re.MULTILINE))
