"""Relaxation times and proton densities of the tissues that musculoskeletal phantoms are made of.

Proton densities are relative to pure water at body temperature (1.0).  Relaxation times are in
milliseconds at 1.5 T and 3 T.  T2 values are those of multi-echo or fast spin echo measurements
where such exist, because clinical spine images are fast spin echo: J-coupling makes fat, and so
marrow, brighter there than a single spin echo would.

Sources, named in the table by their first author:
  Drake-Perez: "Normal values of magnetic relaxation parameters of spine components with the
    synthetic MRI sequence", AJNR 2018, PMC7410772 (T1, T2 and proton density of CSF, cord, discs
    of three degrees of hydration, vertebral body).  Its T1 of cord and vertebra agree with the
    1.5 T values of the next two, so we enter them there.
  Stanisz: Magn Reson Med 2005;54:507 (spinal cord at 1.5 T and 3 T).
  de Bazelaire: Radiology 2004;230:652 (abdomen, muscle, marrow and fat; T1 at 3 T is on average
    21 % longer than at 1.5 T).
  Gold: AJR 2004;183:343 (knee: muscle, fat, marrow fat, cartilage and synovial fluid).
  Marinelli: AJNR 2010;31:1278 (disc centre, mean T2 108 ms in Pfirrmann grade II, 53 ms in IV).
"assumed" marks a value that no source above gives.
"""

from dataclasses import dataclass

import numpy as np

# de Bazelaire's mean lengthening of T1 from 1.5 T to 3 T; assumed where 3 T is unmeasured.
T1_RATIO_3T = 1.21


@dataclass(frozen=True)
class Tissue:
    """A material with one proton density, T1 and T2.

    Attributes:
      pd: proton density relative to water, 0 to about 1.1.
      t1_ms, t2_ms: relaxation times at 1.5 T, ms.
      t1_3t_ms, t2_3t_ms: at 3 T, ms; None takes ``T1_RATIO_3T`` times T1 and the same T2.
    """

    pd: float
    t1_ms: float
    t2_ms: float
    t1_3t_ms: float | None = None
    t2_3t_ms: float | None = None

    def relaxation(self, field_strength_t: float) -> tuple[float, float]:
        """T1 and T2 in ms at 1.5 or 3 tesla; any other field raises ``ValueError``."""
        if field_strength_t == 1.5:
            return self.t1_ms, self.t2_ms
        if field_strength_t == 3.0:
            t1 = self.t1_ms * T1_RATIO_3T if self.t1_3t_ms is None else self.t1_3t_ms
            return t1, self.t2_ms if self.t2_3t_ms is None else self.t2_3t_ms
        raise ValueError(f"tissues are tabulated at 1.5 and 3 tesla, not {field_strength_t}")


TISSUES: dict[str, Tissue] = {
    # No free protons: air, and flowing blood that leaves the slice between the pulses (flow void).
    "air": Tissue(0.0, 1000.0, 10.0),
    "flow_void": Tissue(0.05, 1400.0, 30.0),  # assumed
    # Bone.  Mineral and its bound water give next to nothing at clinical echo times (assumed).
    "cortical_bone": Tissue(0.15, 500.0, 8.0),
    "sclerotic_bone": Tissue(0.30, 700.0, 40.0),  # assumed: Modic 3, dark on T1 and T2
    "vertebral_marrow": Tissue(0.911, 515.3, 100.8),  # Drake-Perez
    "fatty_marrow": Tissue(0.95, 288.0, 165.0, 371.0, 133.0),  # T1, T2 Gold; density assumed
    "oedematous_marrow": Tissue(0.95, 1100.0, 135.0),  # assumed: long T1 and T2, Modic 1, fracture
    "tumour": Tissue(0.90, 1000.0, 115.0),  # assumed: marrow fat replaced by cells
    # Disc.  Hydrated and desiccated ends of the nucleus: `nucleus`.
    "annulus": Tissue(0.476, 554.4, 36.0),  # Drake-Perez desiccated disc; outer fibres' T2 assumed
    "cartilage": Tissue(0.70, 1060.0, 42.0, 1240.0, 37.0),  # T1, T2 Gold; density assumed
    # Fluid and nerve.
    "csf": Tissue(1.075, 4273.4, 1577.6, 4273.4, 1577.6),  # Drake-Perez; field dependence ignored
    "synovial_fluid": Tissue(1.0, 2850.0, 1210.0, 3620.0, 767.0),  # T1, T2 Gold; density assumed
    "spinal_cord": Tissue(0.587, 780.2, 101.6, 993.0, 78.0),  # Drake-Perez; 3 T Stanisz
    # Soft tissue; proton densities assumed.
    "fat": Tissue(0.95, 288.0, 165.0, 371.0, 133.0),  # T1, T2 Gold
    "muscle": Tissue(0.80, 1130.0, 35.0, 1420.0, 32.0),  # T1, T2 Gold
    "ligament": Tissue(0.30, 600.0, 12.0),  # assumed: ordered collagen
    "bowel": Tissue(0.85, 900.0, 60.0),  # assumed
    "kidney": Tissue(0.85, 966.0, 87.0, 1142.0, 76.0),  # T1, T2 de Bazelaire (cortex)
    "liver": Tissue(0.70, 586.0, 46.0, 809.0, 34.0),  # T1, T2 de Bazelaire
}

# Nucleus pulposus against degeneration on Pfirrmann's scale.  T2 of II and IV is Marinelli's, III
# their geometric mean, I and V assumed.  T1 and density run from Drake-Perez's normal to his
# desiccated disc, grade I being a little more hydrated (assumed).
_GRADE = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
_NUCLEUS_T2 = np.array([150.0, 108.0, 75.7, 53.0, 42.0])
_NUCLEUS_T1 = np.array([1300.0, 1164.9, 850.0, 620.0, 554.4])
_NUCLEUS_PD = np.array([0.90, 0.82, 0.65, 0.53, 0.476])


def nucleus(degeneration: float) -> Tissue:
    """Nucleus pulposus of a disc.

    Args:
      degeneration: Pfirrmann's scale made continuous, 1 (healthy) to 5; values outside are clipped.
    """
    return Tissue(
        float(np.interp(degeneration, _GRADE, _NUCLEUS_PD)),
        float(np.interp(degeneration, _GRADE, _NUCLEUS_T1)),
        float(np.interp(degeneration, _GRADE, _NUCLEUS_T2)),
    )
