"""Values planted in every identifying attribute of a header, to be searched for elsewhere."""

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from mskjax.inputs.identifying import IDENTIFYING

# What a reader needs of the images; another value would make another study of it.
_KEPT = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
# Groups of attributes that no image has at its top level: the header of a file, commands.
_ELSEWHERE = (0x0000, 0x0002)


def plant(dataset: Dataset, seed: int = 0) -> dict[str, str]:
    """Sets every identifying attribute of a data set; returns keyword to its value as text.

    Values are valid of their VR and occur nowhere else; those in sequences are in an item's
    ``TextValue``.  UIDs that group images stay and are returned as they are.  Attributes that hold
    bytes or numbers too short to be searched for are set and not returned.
    """
    planted: dict[str, str] = {}
    for number, keyword in enumerate(sorted(IDENTIFYING)):
        tag = tag_for_keyword(keyword)
        if tag is None or tag >> 16 in _ELSEWHERE:
            continue
        if keyword in _KEPT:
            if keyword in dataset:
                planted[keyword] = str(dataset[keyword].value)
            continue
        code = f"{(number * 7919 + 104729 * (seed + 1)) % 900000 + 100000}"
        vr = dictionary_VR(tag)
        if vr == "SQ":
            item = Dataset()
            item.TextValue = f"Sq{code}planted"
            setattr(dataset, keyword, [item])
            planted[keyword] = item.TextValue
            continue
        text = _value(vr, code)
        if text is None:
            continue
        setattr(dataset, keyword, [text, text] if dictionary_VM(tag) == "2" else text)
        if vr not in ("AS", "CS") or len(text) > 4:
            planted[keyword] = text
    return planted


def _value(vr: str, code: str) -> str | None:
    """A value of a VR that no other attribute has; None of bytes and binary numbers."""
    day = f"{int(code) % 28 + 1:02d}"
    return {
        "PN": f"Plantname{code}^Hans^Otto",
        "LO": f"Planted {code}", "SH": f"Pl{code}", "LT": f"Long text planted {code}",
        "ST": f"Short text planted {code}", "UT": f"Text planted {code}", "UC": f"Planted {code}",
        "CS": f"CS{code}", "AE": f"AE{code}", "UI": generate_uid(entropy_srcs=[code]),
        "UR": f"https://planted.example/{code}", "DA": f"19{code[:2]}11{day}",
        "TM": f"11{int(code[:2]) % 60:02d}{int(code[2:4]) % 60:02d}.{code}",
        "DT": f"19{code[:2]}11{day}112233.{code}", "AS": "047Y", "IS": f"7{code}",
        "DS": f"7{code}.5",
    }.get(vr)  # fmt: skip
