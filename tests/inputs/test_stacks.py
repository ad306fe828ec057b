"""Series that are several stacks of images."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs.dicom_tree import PLANES

from mskjax.imaging.dicom_frames import TRAITS
from mskjax.inputs.headers import Header, Plane
from mskjax.inputs.stacks import stacks

_files = itertools.count()


def image(depth=0.0, plane="sagittal", spacing=0.7, shape=(64, 64), placed=True, **traits):
    directions = np.array(PLANES[plane], float)
    normal = np.cross(directions[:3], directions[3:])
    where = (tuple(normal * depth), tuple(directions), (spacing, spacing)) if placed else None
    file = Path(f"{next(_files):05d}")
    own = tuple(traits.get(k, "") for k in TRAITS)
    facts = {"EchoTime": traits.get("EchoTime", "90"), "ImageType": "ORIGINAL\\PRIMARY"}
    return Header(
        file, ("1", "p"), "1.2", str(file), 1, shape, facts, (Plane(file, None, where, own),)
    )


def sizes(headers):
    return sorted(len(stack.planes) for stack in stacks(headers))


def test_planes_matrices_and_pixel_sizes_are_parted():
    sagittal = [image(4.0 * i) for i in range(3)]
    axial = [image(4.0 * i, "axial") for i in range(2)]
    fine = [image(4.0 * i, spacing=0.5) for i in range(4)]
    large = [image(4.0 * i, shape=(64, 32)) for i in range(5)]
    nowhere = [image(placed=False) for _ in range(6)]
    assert sizes([*sagittal, *axial, *fine, *large, *nowhere]) == [2, 3, 4, 5, 6]
    assert stacks(nowhere)[0].normal is None


def test_what_lies_at_one_place_is_parted_by_what_differs():
    places = [(i, te) for i in range(3) for te in "89"]
    echoes = [image(4.0 * i, EchoTime=te, AcquisitionTime=f"10{i}{te}") for i, te in places]
    found = stacks(echoes)
    assert [len(stack.planes) for stack in found] == [3, 3]
    assert [stack.facts["EchoTime"] for stack in found] == ["8", "9"]
    assert not found[0].is_of_time
    times = [image(4.0 * i, TemporalPositionIndex=t) for i in range(3) for t in "123"]
    assert sizes(times) == [3, 3, 3]
    assert all(stack.is_of_time for stack in stacks(times))
    both = [image(0, EchoTime=te, FlipAngle=a) for te in "12" for a in "34"]
    assert sizes(both) == [1, 1, 1, 1]


def test_a_trait_that_varies_from_slice_to_slice_parts_nothing():
    slices = [image(4.0 * i, AcquisitionTime=f"{i}", FlipAngle=f"{i}") for i in range(6)]
    assert sizes(slices) == [6]


def test_what_cannot_be_told_apart_stays_together():
    assert sizes([image(0), image(0), image(4)]) == [3]


def test_frames_of_a_file_are_named_by_number():
    one, two = image(0).planes[0], image(4).planes[0]
    planes = (one._replace(frame=3), two._replace(frame=1, file=one.file))
    header = image(0)._replace(planes=planes)
    (stack,) = stacks([header])
    series = stack.series()
    assert series.files == (one.file,)
    assert series.frames == {one.file: (1, 3)}


def test_step_and_box():
    (stack,) = stacks([image(4.0 * i) for i in (2, 0, 1)])
    assert stack.step == 4
    low, high = stack.box()
    # Sagittal in LPS: normal is -x.
    np.testing.assert_allclose(low, [-8, 0, -63 * 0.7], atol=1e-9)
    np.testing.assert_allclose(high, [0, 63 * 0.7, 0], atol=1e-9)
    single = image(0)
    (stack,) = stacks([single._replace(facts={"SliceThickness": "3.5"})])
    assert stack.step == 3.5
    assert stacks([image(0)])[0].step == 0


@given(st.permutations(range(12)))
def test_stacks_do_not_depend_on_the_order_of_files(order):
    headers = [
        image(4.0 * (i // 2), "sagittal" if i < 8 else "axial", EchoTime=str(i % 2))
        for i in range(12)
    ]

    def told(some):
        return [(s.facts["EchoTime"], [p.where for p in s.planes]) for s in stacks(some)]

    shuffled = [headers[i]._replace(file=Path(str(k))) for k, i in enumerate(order)]
    assert told(shuffled) == told(headers)
    assert len(told(headers)) == 4


@pytest.mark.parametrize("count", [1, 2])
def test_no_image_is_lost(count):
    headers = [image(4.0 * (i % 5), EchoTime=str(i % 3)) for i in range(15 * count)]
    assert sum(sizes(headers)) == 15 * count
