"""What packaging promises whatever the cohort: all or nothing, and the same again."""

import hashlib
import shutil

import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from builders import mini_spine as mini

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, UserError, note
from tfds_builders import raw_files, shards
from tfds_builders.disc_degeneration.sources import PhantomSource
from tfds_builders.fingerprint import update_digest
from tfds_builders.raw import RawStudy
from tfds_builders.shards import STUDIES_PER_SHARD

PHANTOM = ("disc_degeneration", "phantom")
T2SPACE = ("disc_degeneration", "spider_t2space")
OWN = ("disc_degeneration", "cohort")
VERTEBRA, DISC = b"\1", b"\2"


@pytest.fixture
def reading(monkeypatch):
    """Replaces `PhantomSource.read` by a function of (source, study, real read)."""

    def patch(function):
        real = PhantomSource.read
        monkeypatch.setattr(PhantomSource, "read", lambda self, s: function(self, s, real))

    return patch


@pytest.fixture
def raw(tmp_path):
    """One patient in the T2-SPACE layout."""
    root = tmp_path / "raw"
    mini.write_nifti(root / "7_T2w.nii.gz", mini.image())
    mini.write_nifti(root / "7_seg.nii.gz", mini.semantic())
    mini.write_csv(root / "overview.csv", ["new_file_name", "sex", "birth_date", "subset"], [
        ["7_t2_SPACE", "M", "50", "training"]
    ])  # fmt: skip
    write_grades(root, [5, 3, 2, 1])
    return root


@pytest.fixture
def own_raw(tmp_path):
    """A user's two patients; masks are not compressed, so that a correction keeps their size."""
    root = tmp_path / "own"
    for number, name in enumerate("ab"):
        mini.write_nifti(root / f"{name}.nii.gz", mini.image(number))
        mini.write_nifti(root / f"{name}_seg.nii", mini.semantic())
    mini.write_csv(
        root / "studies.csv",
        ["patient_id", "study_id", "image", "mask"],
        [[f"p{n}", n, f"{n}.nii.gz", f"{n}_seg.nii"] for n in "ab"],
    )
    mini.write_csv(
        root / "discs.csv", ["study_id", "level", "pfirrmann"], [["a", 1, 2], ["b", 1, 3]]
    )
    return root


def write_grades(root, grades):
    rows = mini.pfirrmann_rows(7, grades)
    mini.write_csv(root / "radiological_gradings.csv", mini.GRADINGS_HEADER, rows)


def test_bad_cases_of_all_shards_are_listed_and_nothing_is_left(tmp_path, reading):
    patients = STUDIES_PER_SHARD + 2
    bad = {"phantom0001_t2", f"phantom{patients - 1:04d}_t2"}

    def read(source, study, real):
        if study.study_id in bad:
            raise UserError("mend me.")
        return real(source, study)

    reading(read)
    with pytest.raises(BadCases, match="2 entries are wrong") as caught:
        prepare_cohort(*PHANTOM, tmp_path, patients=patients)
    assert set(dict(caught.value.cases)) == bad
    assert not list(tmp_path.iterdir())


def test_a_defect_in_the_middle_leaves_nothing_under_the_final_name(tmp_path, reading):
    def read(source, study, real):
        if study.study_id == "phantom0002_t2":
            raise ZeroDivisionError
        return real(source, study)

    reading(read)
    with pytest.raises(ZeroDivisionError):
        prepare_cohort(*PHANTOM, tmp_path, patients=3)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_said_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*Nothing half-written"):
            prepare_cohort(*PHANTOM, tmp_path, patients=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_failed_config_leaves_the_packaged_one_alone(tmp_path):
    prepare_cohort(*PHANTOM, tmp_path, patients=1)
    with pytest.raises(UserError):
        prepare_cohort(*T2SPACE, tmp_path, tmp_path)
    assert len(prepare_cohort(*PHANTOM, tmp_path, patients=1).studies) == 1


def test_many_shards_keep_the_order_of_the_index(tmp_path):
    cohort = prepare_cohort(*PHANTOM, tmp_path, patients=STUDIES_PER_SHARD + 1)
    assert len(list(tmp_path.rglob("*array_record*"))) == 2
    names = [f"phantom{i:04d}_t2" for i in range(STUDIES_PER_SHARD + 1)]
    assert [study for _, study in cohort.index] == names
    assert [s["study_id"] for s in cohort.studies] == names


def same_size(path):
    """Another mask in the same number of bytes, as a corrected one in .nii is."""
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    at = content.index(DISC, 352)  # behind the header of NIfTI-1
    content[at : at + 1] = VERTEBRA
    path.write_bytes(content)
    assert path.stat().st_size == size


def test_a_packaged_cohort_belongs_to_its_raw_files(tmp_path, raw):
    data = tmp_path / "data"
    fingerprint = prepare_cohort(*T2SPACE, data, raw).audit["fingerprint"]
    moved = tmp_path / "moved"
    shutil.move(raw, moved)
    assert prepare_cohort(*T2SPACE, data, moved).audit["fingerprint"] == fingerprint
    assert prepare_cohort(*T2SPACE, data).audit["fingerprint"] == fingerprint


def test_a_corrected_mask_of_the_same_size_is_noticed_and_packaged_again(own_raw, tmp_path):
    data = tmp_path / "data"
    first = prepare_cohort(*OWN, data, own_raw).audit
    mask = own_raw / "a_seg.nii"
    same_size(mask)
    with pytest.raises(UserError, match=r"1 raw file is not what .*: a_seg\.nii changed") as caught:
        prepare_cohort(*OWN, data, own_raw)
    command = f"--cohort=disc_degeneration/cohort --manual_dir={own_raw} --data_dir={data} --again"
    assert command in str(caught.value)
    second = prepare_cohort(*OWN, data, own_raw, again=True).audit
    assert second["fingerprint"] != first["fingerprint"]
    assert prepare_cohort(*OWN, data, own_raw).audit == second
    assert len(list(data.rglob("audit.json"))) == 1
    assert not [p for p in data.iterdir() if p.name.startswith(".again")]


def test_new_and_lost_files_and_tables_are_named(own_raw, tmp_path):
    data = tmp_path / "data"
    prepare_cohort(*OWN, data, own_raw)
    table = own_raw / "studies.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    expected = r"b\.nii\.gz is gone, b_seg\.nii is gone, studies\.csv changed"
    with pytest.raises(UserError, match=expected):
        prepare_cohort(*OWN, data, own_raw)


def test_packaging_again_that_fails_leaves_the_old_package(own_raw, tmp_path):
    data = tmp_path / "data"
    first = prepare_cohort(*OWN, data, own_raw).audit
    image = own_raw / "b.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[:50])
    with pytest.raises(BadCases, match=r"b\.nii\.gz"):
        prepare_cohort(*OWN, data, own_raw, again=True)
    image.write_bytes(whole)
    assert prepare_cohort(*OWN, data, own_raw).audit == first
    assert not [p for p in data.iterdir() if p.name.startswith(".again")]


def test_a_touched_file_is_read_once_more_and_then_remembered(own_raw, tmp_path, monkeypatch):
    data = tmp_path / "data"
    first = prepare_cohort(*OWN, data, own_raw).audit
    (own_raw / "a.nii.gz").touch()
    assert prepare_cohort(*OWN, data, own_raw).audit == first
    monkeypatch.setattr(hashlib, "file_digest", None)  # nothing is left to be read
    assert prepare_cohort(*OWN, data, own_raw).audit == first


def test_packages_of_other_options_and_other_raw_files_lie_side_by_side(own_raw, tmp_path):
    data = tmp_path / "data"
    two = prepare_cohort(*PHANTOM, data, patients=2)
    three = prepare_cohort(*PHANTOM, data, patients=3)
    assert [len(c.studies) for c in (two, three)] == [2, 3]
    assert prepare_cohort(*PHANTOM, data, patients=2).audit == two.audit
    one = prepare_cohort(*OWN, data, own_raw)
    other_raw = tmp_path / "other"
    shutil.copytree(own_raw, other_raw)
    same_size(other_raw / "a_seg.nii")
    other = prepare_cohort(*OWN, data, other_raw)
    assert other.audit["fingerprint"] != one.audit["fingerprint"]
    assert prepare_cohort(*OWN, data, own_raw).audit == one.audit
    with pytest.raises(UserError, match="2 packages .* give the one you mean as manual_dir"):
        prepare_cohort(*OWN, data)


def test_a_mask_in_two_files_is_noticed_too(tmp_path):
    header, voxels = tmp_path / "i.mhd", tmp_path / "i.raw"
    header.write_text("ObjectType = Image\nElementDataFile = i.raw\n")
    voxels.write_bytes(b"1234")
    assert raw_files.parts(header) == [header, voxels]


def test_one_image_under_two_patients_is_refused(own_raw, tmp_path):
    """Byte for byte, and as another file with the same voxels."""
    shutil.copy(own_raw / "a.nii.gz", own_raw / "b.nii.gz")
    with pytest.raises(BadCases, match=r"patients 'pa' .* and 'pb' .* share an image, b\.nii\.gz"):
        prepare_cohort(*OWN, tmp_path / "data", own_raw)
    again = nib.Nifti1Image(mini.image(0), mini.AFFINE)
    again.header["descrip"] = "anonymised"
    nib.save(again, own_raw / "b.nii.gz")
    with pytest.raises(BadCases, match="share an image, its image; a row was copied"):
        prepare_cohort(*OWN, tmp_path / "data", own_raw)


def test_one_image_twice_under_one_patient_is_noted(own_raw, tmp_path):
    shutil.copy(own_raw / "a.nii.gz", own_raw / "b.nii.gz")
    table = own_raw / "studies.csv"
    table.write_text(table.read_text().replace("pb,", "pa,"))
    notes = prepare_cohort(*OWN, tmp_path / "data", own_raw).audit["notes"]
    assert "studies a and b of patient pa hold the same image: its case counts twice" in notes


def test_one_mask_under_two_studies_is_noted(own_raw, tmp_path):
    table = own_raw / "studies.csv"
    table.write_text(table.read_text().replace("b_seg.nii", "a_seg.nii"))
    notes = prepare_cohort(*OWN, tmp_path / "data", own_raw).audit["notes"]
    assert (
        "studies a and b have different images but one mask, a_seg.nii: was a row copied?" in notes
    )


def test_the_same_viewer_on_two_discs_is_not_the_same_image(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "viewer.exe").write_bytes(b"MZ" * 100)
        (folder / "1.dcm").write_bytes(bytes(128) + b"DICM" + name.encode())
    studies = [RawStudy(name, name, (tmp_path / name,)) for name in ("a", "b")]
    files = [p for s in studies for p in raw_files.parts(s.files[0])]
    stamps = {p.relative_to(tmp_path).as_posix(): raw_files._stamp(p, None) for p in files}
    raw = raw_files.RawFiles(str(tmp_path), stamps)
    assert len(stamps) == 4
    assert not raw_files.shared_files(studies, raw)
    shutil.copy(tmp_path / "a/1.dcm", tmp_path / "b/1.dcm")
    stamps["b/1.dcm"] = raw_files._stamp(tmp_path / "b/1.dcm", None)
    ((_, _, name, twin),) = raw_files.shared_files(studies, raw)
    assert (name, twin) == ("b/1.dcm", "a/1.dcm")


def test_notes_on_files_are_said_once_with_their_files(tmp_path, reading):
    def read(source, study, real):
        note(f"/raw/{study.study_id}.dcm", "has no preamble")
        return real(source, study)

    reading(read)
    audit = prepare_cohort(*PHANTOM, tmp_path, patients=7).audit
    (said,) = [n for n in audit["notes"] if "preamble" in n]
    assert said.startswith("has no preamble: 7 files, /raw/phantom0000_t2.dcm, ")
    assert said.endswith("/raw/phantom0004_t2.dcm and 2 more")
    assert len(audit["file_notes"]["has no preamble"]) == 7


def test_a_folder_without_studies_is_refused(tmp_path, raw):
    for path in raw.glob("*.nii.gz"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no study that can be packaged \(none was found\)"):
        prepare_cohort(*T2SPACE, tmp_path / "data", raw)


def digest(value):
    state = hashlib.sha256()
    update_digest(state, value)
    return state.hexdigest()


def test_fingerprint_sees_every_change_and_nothing_else():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    base = digest({"a": array, "b": "x", "c": [{"k": 1}, {"k": 2}]})
    same = {"c": [{"k": 1}, {"k": 2}], "b": "x", "a": np.asfortranarray(array)}
    assert digest(same) == base
    assert digest({**same, "a": array.astype(">f4")}) == base
    for change in (
        {"a": array.astype(np.float64)},
        {"a": array.reshape(3, 2)},
        {"a": np.nextafter(array, 9)},
        {"b": "y"},
        {"c": [{"k": 2}, {"k": 1}]},
        {"c": [{"k": 1}]},
    ):
        assert digest({**same, **change}) != base, change


def test_records_are_what_tfds_writes_but_for_the_effort_of_zlib():
    kinds = tfds.features
    features = kinds.FeaturesDict(
        {
            "volume": kinds.Tensor(shape=(None, None, None), dtype=np.float32, encoding="zlib"),
            "rows": kinds.Tensor(shape=(None, 3), dtype=np.uint8, encoding="zlib"),
            "plain": kinds.Tensor(shape=(None, None), dtype=np.uint8, encoding="bytes"),
            "number": kinds.Scalar(np.int32),
            "name": kinds.Text(),
            "levels": kinds.Sequence({"level": np.int32}),
        }
    )
    example = {
        "volume": np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32),
        "rows": np.arange(21, dtype=np.uint8).reshape(7, 3),
        "plain": np.ones((2, 2), np.uint8),
        "number": 3,
        "name": "a",
        "levels": [{"level": 1}, {"level": 2}],
    }
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    ours, theirs = (
        features.deserialize_example_np(serializer.get_tf_example(encoded).SerializeToString())
        for encoded in (shards._encoder(features)(example), features.encode_example(example))
    )
    assert ours.keys() == theirs.keys() == example.keys()
    for name, value in theirs.items():
        np.testing.assert_equal(ours[name], value)
    with pytest.raises(ValueError, match="float64"):
        shards._encoder(features)(example | {"volume": np.zeros((1, 1, 1))})
