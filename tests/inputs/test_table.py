"""Tables of studies."""

import math

import pytest

from mskjax.errors import UserError
from mskjax.inputs.table import read_listed
from tfds_builders.images import Wanted

NEEDS = {"t2": Wanted(("t2",)), "t1": Wanted(("t1",), optional=True)}


def listed(tmp_path, text):
    (tmp_path / "x.nii").touch()
    (tmp_path / "series").mkdir(exist_ok=True)
    (tmp_path / "list.csv").write_text(text)
    return read_listed(tmp_path / "list.csv", NEEDS)


def test_a_row_says_files_pixel_size_and_slice(tmp_path):
    text = f"study,t2,t1,pixel_mm,slice\na,x.nii,series,0.4,3\nb,{tmp_path}/x.nii,,,\n"
    one, two = listed(tmp_path, text)
    assert (one.name, one.pixel_mm, one.slice_index, one.why) == ("a", 0.4, 3, "")
    assert one.files == {"t2": tmp_path / "x.nii", "t1": tmp_path / "series"}
    assert two.files == {"t2": tmp_path / "x.nii"}
    assert math.isnan(two.pixel_mm)
    assert two.slice_index is None


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("a,,,,", "row 2 has no t2; fill in its path."),
        (",x.nii,,,", "row 2 has no study; fill it in."),
        ("ok,x.nii,,,", "row 2 is the study of row 1; give every study its own name."),
        ("a,MUELLER.nii,,,", "row 2 has a t2 that does not exist; check the path."),
        ("a,x.nii,MUELLER,,", "row 2 has a t1 that does not exist; check the path."),
        ("a,x.nii,,MUELLER,", "row 2 has a pixel_mm that is no number from 0.05 to 20."),
        ("a,x.nii,,,MUELLER", "row 2 has a slice that is no whole number from 0 on."),
        ("a,x.nii,,,-1", "row 2 has a slice that is no whole number from 0 on."),
        ("a,/dev/null,,,", "row 2 has a t2 that is neither a file nor a folder."),
    ],
)
def test_a_wrong_row_says_so_and_stops_no_other(tmp_path, row, why):
    first, second = listed(tmp_path, f"study,t2,t1,pixel_mm,slice\nok,x.nii,,,\n{row}\n")
    assert not first.why
    assert second.why == why
    assert not second.files


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("study,t1\na,x.nii\n", "lacks the column t2"),
        (
            "study,t2,slize\na,x.nii,1\n",
            "'slize', which is not known; did you mean 'slice'?",
        ),
        ("study,t2,foo\na,x.nii,1\n", "columns are study, t2, t1, pixel_mm, slice."),
        ("study,t2\n", "has a header but no rows"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text, why):
    with pytest.raises(UserError) as caught:
        listed(tmp_path, text)
    assert why in str(caught.value)
