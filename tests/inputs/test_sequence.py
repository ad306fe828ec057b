"""What a header says that a series shows."""

import math
from pathlib import Path

import pytest
from inputs.dicom_tree import PLANES

from mskjax.inputs.headers import Header, Plane
from mskjax.inputs.sequence import NEVER, WORSE, shown
from mskjax.inputs.stacks import stacks


def series(plane="sagittal", slices=5, step=4.0, spacing=0.7, **facts):
    """A series that was never written."""
    directions = PLANES[plane]
    row, column = directions[:3], directions[3:]
    normal = (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )
    header = {"Modality": "MR", "ImageType": "ORIGINAL\\PRIMARY\\M", **facts}
    planes = [
        Plane(
            Path(f"{i}"), None,
            (tuple(n * step * i for n in normal), directions, (spacing, spacing)), ("",) * 15,
        )
        for i in range(slices)
    ]  # fmt: skip
    (stack,) = stacks(
        Header(p.file, ("1", "p"), "1.2", f"{i}", 1, (64, 64), header, (p,))
        for i, p in enumerate(planes)
    )
    return shown(stack)


@pytest.mark.parametrize(
    ("facts", "weighting"),
    [
        # Times of protocols in use: lumbar at 1.5 and 3 T, SPACE, shoulder, knee.
        ({"EchoTime": "11", "RepetitionTime": "500"}, "t1"),
        ({"EchoTime": "9.6", "RepetitionTime": "950"}, "t1"),
        ({"EchoTime": "102", "RepetitionTime": "3500"}, "t2"),
        ({"EchoTime": "126", "RepetitionTime": "1500"}, "t2"),
        ({"EchoTime": "67", "RepetitionTime": "2740"}, "t2"),
        ({"EchoTime": "34", "RepetitionTime": "2900"}, "pd"),
        ({"EchoTime": "12", "RepetitionTime": "4000"}, "pd"),
        ({"EchoTime": "10", "RepetitionTime": "2000", "InversionTime": "860"}, "t1"),  # T1 FLAIR
        ({"EchoTime": "394", "RepetitionTime": "6000", "InversionTime": "2200"}, "flair"),
        ({"EchoTime": "55", "RepetitionTime": "3000"}, ""),
        ({"EchoTime": "101"}, ""),
        ({"EchoTime": "x", "RepetitionTime": "-3"}, ""),
        # Gradient echoes are told by their name.
        ({"EchoTime": "5", "RepetitionTime": "500", "ScanningSequence": "GR"}, ""),
        ({"EchoTime": "24", "RepetitionTime": "900", "ScanningSequence": "GR",
          "SeriesDescription": "t2_me2d_tra"}, ""),
        ({"EchoTime": "3.4", "RepetitionTime": "6.2", "ScanningSequence": "RM"}, ""),
        ({"SeriesDescription": "T2* MEDIC"}, "t2*"),
        # Times before names, names where times do not tell.
        ({"EchoTime": "11", "RepetitionTime": "500", "SeriesDescription": "t2"}, "t1"),
        ({"EchoTime": "55", "RepetitionTime": "3000", "SeriesDescription": "T2W_TSE"}, "t2"),
        ({"SeriesDescription": "Sag T1 TSE"}, "t1"),
        ({"SeriesDescription": "spine", "ProtocolName": "t2_tse_sag_320"}, "t2"),
        ({"SeriesDescription": "PD TSE"}, "pd"),
        ({"SeriesDescription": "t1 and t2"}, ""),
        ({"SeriesDescription": "at2b"}, ""),
        ({"SeriesDescription": "T2 map"}, ""),
        # Enhanced MR says it.
        ({"AcquisitionContrast": "PROTON_DENSITY", "EchoTime": "100"}, "pd"),
        ({"AcquisitionContrast": "UNKNOWN", "EchoTime": "100", "RepetitionTime": "3000"}, "t2"),
        ({"EffectiveEchoTime": "100", "RepetitionTime": "3000"}, "t2"),
    ],
)  # fmt: skip
def test_weighting(facts, weighting):
    assert series(**facts).weighting == weighting


@pytest.mark.parametrize(
    ("facts", "flags"),
    [
        ({}, ()),
        ({"ImageType": "DERIVED\\PRIMARY\\M\\ND\\NORM"}, ()),
        ({"ImageType": "ORIGINAL\\PRIMARY\\M\\LOCALIZER"}, ("localiser",)),
        ({"SeriesDescription": "3-plane loc"}, ("localiser",)),
        ({"SeriesDescription": "Survey"}, ("localiser",)),
        ({"SeriesDescription": "Sagittal, ext loc ref"}, ()),
        ({"ImageType": "DERIVED\\SECONDARY\\MPR"}, ("reformatted",)),
        ({"SeriesDescription": "t2_space MPR sag"}, ("reformatted",)),
        ({"ImageType": "DERIVED\\PRIMARY\\M\\SUB"}, ("subtraction",)),
        ({"SeriesDescription": "SUB t1 gd"}, ("subtraction", "after contrast medium")),
        ({"SeriesDescription": "subject 7"}, ()),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ("secondary capture",)),
        ({"ImageType": "DERIVED\\SECONDARY\\SCREEN SAVE"}, ("secondary capture", "reformatted")),
        ({"Modality": "CT"}, ("no MR",)),
        ({"SamplesPerPixel": "3"}, ("colour",)),
        ({"DiffusionBValue": "800"}, ("diffusion",)),
        ({"DiffusionBValue": "0"}, ()),
        ({"SeriesDescription": "ep2d_diff_b50_400_800_ADC"}, ("diffusion",)),
        ({"ImageType": "DERIVED\\PRIMARY\\DIFFUSION\\ADC"}, ("diffusion",)),
        ({"ImageType": "DERIVED\\PRIMARY\\T2 MAP"}, ("map",)),
        ({"ImageType": "ORIGINAL\\PRIMARY\\P"}, ("phase",)),
        ({"ImageType": "DERIVED\\PRIMARY\\DIXON\\W"}, ("water image",)),
        ({"ImageType": "DERIVED\\PRIMARY\\DIXON\\FAT"}, ("fat image",)),
        ({"SeriesDescription": "t2_tse_dixon_sag_F"}, ("fat image",)),
        ({"SeriesDescription": "t2_tse_dixon_sag_in"}, ()),
        ({"SeriesDescription": "WATER: Sag T2 FLEX"}, ("water image",)),
        ({"SeriesDescription": "t2 dixon opp"}, ("opposed-phase image",)),
        ({"ScanOptions": "FC\\FS"}, ("fat-suppressed",)),
        ({"SpectrallySelectedSuppression": "FAT"}, ("fat-suppressed",)),
        ({"SeriesDescription": "pd_tse_fs_sag"}, ("fat-suppressed",)),
        ({"SeriesDescription": "T2 fat sat"}, ("fat-suppressed",)),
        ({"SeriesDescription": "PDFS"}, ("fat-suppressed",)),
        ({"SeriesDescription": "T2 SPAIR"}, ("fat-suppressed",)),
        ({"SeriesDescription": "t2_tirm_sag"}, ("STIR",)),
        ({"SeriesDescription": "STIR fs"}, ("STIR",)),
        ({"InversionTime": "160"}, ("STIR",)),
        ({"InversionTimes": "220"}, ("STIR",)),
        ({"ContrastBolusAgent": "Gadovist"}, ("after contrast medium",)),
        ({"ContrastBolusAgent": "NONE"}, ()),
        ({"SeriesDescription": "T1 +C"}, ("after contrast medium",)),
        ({"SeriesDescription": "t1_tse_sag_KM"}, ("after contrast medium",)),
    ],
)
def test_what_speaks_against_a_series(facts, flags):
    found = series(**facts)
    assert found.flags == flags
    assert found.is_taken == (not set(flags) & set(NEVER))
    assert found.badness == sum(WORSE.get(flag, 0) for flag in flags)


@pytest.mark.parametrize(
    ("plane", "how", "fits"),
    [
        ("sagittal", {}, {"sagittal", "y-view"}),
        ("y-view", {}, {"sagittal", "y-view"}),
        ("coronal oblique", {}, {"y-view"}),
        ("coronal oblique", {"SeriesDescription": "t1 cor obl"}, set()),
        ("coronal oblique", {"SeriesDescription": "t1 sag obl"}, {"y-view"}),
        ("coronal", {}, set()),
        ("axial", {}, set()),
        # Of cubes any plane can be cut.
        ("axial", {"step": 0.7}, {"sagittal", "y-view"}),
        ("axial", {"step": 0.7, "slices": 1}, set()),
    ],
)
def test_planes(plane, how, fits):
    found = series(plane, **how)
    assert {p for p in ("sagittal", "y-view") if found.fits(p)} == fits
    assert found.fits(None)


def test_words_quote_nothing_of_the_header():
    found = series(
        "y-view", 1, EchoTime="9.84", RepetitionTime="620", SeriesDescription="MUELLER pd fs"
    )  # fmt: skip
    assert found.words() == "sagittal oblique T1, fat-suppressed, TE 9.84 ms, TR 620 ms, 1 slice"
    assert series().words() == "sagittal, 5 slices"
    assert math.isnan(series().echo_ms)
