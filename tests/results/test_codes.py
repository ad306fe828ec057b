"""Codes are those of DICOM's context groups."""

import pydicom.sr.codedict as codedict
import pytest

from mskjax.imaging.levels import level_name
from mskjax.results import codes


@pytest.mark.parametrize("level", range(1, 24))
def test_every_disc_of_a_spine_has_the_code_of_cid_7604(level):
    name = level_name(level)
    code = codes.structure(name)
    assert code is not None
    assert (code.scheme_designator, code.meaning) == ("SCT", f"{name} disc")
    discs = codedict.codes.cid7604
    assert code in [getattr(discs, keyword) for keyword in discs.dir()]


@pytest.mark.parametrize(
    ("name", "scheme", "value"),
    [
        ("L5/S1", "SCT", "715056000"),
        ("vertebra", "SCT", "51282000"),
        ("disc", "SCT", "360499006"),
        ("canal", "SCT", "61853006"),
        ("humerus", "SCT", "85050009"),
        ("scapula", "SCT", "79601000"),
        ("fossa", "DCM", "112100"),
    ],
)
def test_structures_have_the_codes_of_the_standard(name, scheme, value):
    code = codes.structure(name)
    assert code is not None
    assert (code.scheme_designator, code.value) == (scheme, value)


@pytest.mark.parametrize("name", ["level 24", "segment", "", "dir", "L5/L6"])
def test_what_has_no_code_gets_none(name):
    assert codes.structure(name) is None


def test_a_private_code_fits_its_attributes_and_stays_apart_from_others():
    assert codes.own("iii") == codedict.Code("iii", "99MSKJAX", "iii")
    long = [codes.own(f"severity_of_degeneration_p_{name}", "x" * 99) for name in ("a", "b")]
    assert len({code.value for code in long}) == 2
    assert all(len(code.value) <= 16 and len(code.meaning) == 64 for code in long)
