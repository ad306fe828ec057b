"""Codes of what is found, for DICOM: SNOMED CT where there is one, else a private scheme.

Codes come from DICOM's own context groups (PS3.16: CID 7604 discs, 7603 vertebrae, 7192 anatomical
structures, 6115) as pydicom lists them.  The groups have each disc and no word for discs in
general, so that one is SNOMED CT's own.
"""

import hashlib
from typing import Any

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SCHEME = "99MSKJAX"  # designators of private schemes begin with 99 (PS3.16 8.2)
SCHEME_NAME = "mskjax: tasks, classes and structures as the run names them"
_LONGEST_VALUE, _LONGEST_MEANING = 16, 64  # characters, VR SH and LO
_HASH = 6  # of them

_STRUCTURES = {
    "vertebra": codes.cid7192.Vertebra,
    "disc": Code("360499006", "SCT", "Intervertebral disc"),
    "canal": codes.cid6115.VertebralCanal,
    "humerus": codes.cid7192.Humerus,
    "scapula": codes.cid7192.Scapula,
    "fossa": codes.cid6115.ScapularSupraspinatusFossa,
}


def structure(name: str) -> Code | None:
    """The code of a structure or of a disc (``L5/S1``); None where it has none."""
    if name in _STRUCTURES:
        return _STRUCTURES[name]
    keyword = f"{name.replace('/', '')}Disc"
    discs: Any = codes.cid7604
    return getattr(discs, keyword) if keyword in discs.dir() else None


def own(value: str, meaning: str = "") -> Code:
    """A code of the private scheme.

    Args:
      value: what it stands for; where it is longer than a code value may be (VR SH), its end
        becomes a hash.  Longer ones have an attribute of their own, which readers overlook.
      meaning: for people; the value as it stands by default.
    """
    meaning = meaning or value.replace("_", " ")
    if len(value) > _LONGEST_VALUE:
        digest = hashlib.sha256(value.encode()).hexdigest()[:_HASH]
        value = f"{value[: _LONGEST_VALUE - _HASH - 1]}-{digest}"
    return Code(value, SCHEME, meaning[:_LONGEST_MEANING])
