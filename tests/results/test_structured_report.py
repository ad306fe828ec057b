"""DICOM SR read back with pydicom and highdicom: TID 1500 with every figure of the result."""

import dataclasses

import numpy as np
import pydicom
import pytest
from results.made import ORIGIN, PITCH, SLICES, classic, enhanced, oblique, result_of

from mskjax import __version__
from mskjax.imaging.dicom_file import open_dicom
from mskjax.results.result import Box, Region
from mskjax.results.study import write_study

highdicom = pytest.importorskip("highdicom")


@pytest.fixture(params=["classic", "enhanced"])
def files(request, tmp_path):
    return classic(tmp_path / "s") if request.param == "classic" else enhanced(tmp_path / "e.dcm")


def report_of(folder, result, **options):
    write_study(folder, result, **options)
    return highdicom.sr.srread(folder / "report.dcm")


def groups_of(report):
    content = report.content
    return {
        group[0].ContentSequence[0].TextValue: group
        for group in (
            *content.get_volumetric_roi_measurement_groups(),
            *content.get_planar_roi_measurement_groups(),
            *content.get_image_measurement_groups(),
        )
    }


def numbers_of(group):
    return {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}


def calls_of(group):
    return [(e.name.meaning, e.value.meaning) for e in group.get_qualitative_evaluations()]


def comments_of(item):
    return [
        i.TextValue
        for i in item.ContentSequence
        if i.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    ]


def test_a_region_has_its_calls_probabilities_volume_and_finding_site(files, tmp_path):
    groups = groups_of(report_of(tmp_path / "out", result_of(files)))
    lowest = groups["L5/S1"]
    assert numbers_of(lowest) == {
        "probability of pfirrmann i": (0.1, "1"),
        "probability of pfirrmann ii": (0.1, "1"),
        "probability of pfirrmann iii": (0.6, "1"),
        "probability of pfirrmann iv": (0.1, "1"),
        "probability of pfirrmann v": (0.1, "1"),
        "share of members that call pfirrmann alike": (0.8, "1"),
        "Volume": (0.125, "mL"),
    }
    assert calls_of(lowest) == [
        ("pfirrmann", "iii"),
        ("prediction set (90%) of pfirrmann", "iii"),
        ("prediction set (90%) of pfirrmann", "iv"),
    ]
    (site,) = lowest.finding_sites
    assert (site.value.value, site.value.meaning) == ("715056000", "L5/S1 disc")
    assert "counted upwards from the lowest disc" in comments_of(lowest[0])[-1]
    assert calls_of(groups["L4/L5"])[1:] == [
        ("prediction set (90%) of pfirrmann", "empty")
    ]  # an empty set is said
    assert numbers_of(groups["L4/L5"])["Detection score"] == (0.75, "1")
    assert comments_of(groups["L2/L3"][0])[-1] == "not found"
    assert not numbers_of(groups["L2/L3"])


def test_structures_that_are_no_region_have_their_volume(files, tmp_path):
    groups = groups_of(report_of(tmp_path / "out", result_of(files)))
    assert list(groups)[:4] == ["L5/S1", "L4/L5", "vertebra", "disc"]
    assert numbers_of(groups["disc"]) == {"Volume": (0.333333, "mL")}


def test_regions_refer_to_their_segments_and_these_to_their_images(files, tmp_path):
    report = report_of(tmp_path / "out", result_of(files))
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    for name, group in groups_of(report).items():
        if name in ("L3/L4", "L2/L3"):
            continue  # no segment
        segment = group.referenced_segment
        number = segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        described = seg.SegmentSequence[number - 1]
        assert described.SegmentLabel == name
        assert described.TrackingUID == group[0].ContentSequence[1].UID
        assert segment[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert segment.has_source_images()
    evidence = {uid for _, _, uid, _ in report.get_evidence()}
    assert seg.SOPInstanceUID in evidence
    assert len(evidence) == 1 + len(files)


def test_a_region_without_segment_is_outlined_on_the_image_of_its_middle_slice(files, tmp_path):
    result = result_of(files, masks=False)
    # Box (2..7, 3..6) in columns and rows, slices 1 and 2; SCOORD counts from a pixel's corner.
    group = groups_of(report_of(tmp_path / "out", result, keep_ids=True))["L5/S1"]
    (outline,) = [i for i in group[0].ContentSequence if i.ValueType == "SCOORD"]
    points = np.reshape(outline.GraphicData, (-1, 2))
    np.testing.assert_allclose(points, [[2, 3], [7, 3], [7, 6], [2, 6], [2, 3]], atol=1e-4)
    reference = outline.ContentSequence[0].ReferencedSOPSequence[0]
    (source,) = [
        s for s in map(open_dicom, files) if s.SOPInstanceUID == reference.ReferencedSOPInstanceUID
    ]
    frames = source.get("PerFrameFunctionalGroupsSequence")
    place = (
        frames[reference.ReferencedFrameNumber - 1].PlanePositionSequence[0] if frames else source
    )
    depth = (np.array(place.ImagePositionPatient, float) - ORIGIN) @ oblique()[:, 2] / PITCH
    assert round(depth, 4) == 1


def test_a_box_outside_all_images_is_not_drawn(files, tmp_path):
    result = result_of(files, masks=False)
    affine = np.eye(4)
    affine[:3, 3] = 1e4
    far = Region("segment", box=Box.on(affine, (0, 0, 0), (1, 1, 1)))
    groups = groups_of(report_of(tmp_path / "out", dataclasses.replace(result, regions=(far,))))
    assert groups["segment"][0].ContentTemplateSequence[0].TemplateIdentifier == "1501"


def test_it_says_what_it_is_and_what_it_is_not(files, tmp_path):
    report = report_of(tmp_path / "out", result_of(files))
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentQualification == "RESEARCH"
    assert report.SeriesDescription == "RESEARCH USE ONLY: report, disc_degeneration"
    said = comments_of(report)
    assert said == [
        "RESEARCH USE ONLY, NOT A MEDICAL DEVICE.",
        "Prediction sets are to hold 90% of the true classes.",
        "Series read as image: MR, T2 sagittal, 5 images",
        "Look twice (region_missed): L2/L3 was not found.",
        "one note",
    ]
    items = groups_of(report)["L5/S1"][0].ContentSequence
    named = {i.ConceptNameCodeSequence[0].CodeMeaning: i.get("TextValue") for i in items}
    assert named["Algorithm Name"] == result_of(files).title
    assert named["Algorithm Version"] == __version__


def test_a_study_in_which_nothing_was_found_says_so(files, tmp_path):
    result = dataclasses.replace(result_of(files, masks=False), regions=(), volumes_ml={})
    (group,) = groups_of(report_of(tmp_path / "out", result)).values()
    assert calls_of(group) == [("finding", "nothing was found")]
    assert len(group.source_images) == len(files)


def test_both_channels_of_a_pair_are_evidence(tmp_path):
    first, second = classic(tmp_path / "t1"), classic(tmp_path / "t2")
    result = dataclasses.replace(result_of(first), sources={"t1": first, "t2": second})
    report = report_of(tmp_path / "out", result)
    assert len({uid for _, _, uid, _ in report.get_evidence()}) == 2 * SLICES + 1
