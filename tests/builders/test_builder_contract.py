"""What every cohort that needs no raw files must keep to."""

import json

import numpy as np
import pytest

from mskjax.data.cohorts import builder_class, cohort_names, prepare_cohort
from mskjax.prepare import audit_table
from tfds_builders.outlines import Unread

GENERATED = [
    (name, config.name)
    for name in cohort_names()
    for config in builder_class(name).BUILDER_CONFIGS
    if not config.obtain
]
ALL = [(name, c.name) for name in cohort_names() for c in builder_class(name).BUILDER_CONFIGS]
AUDIT_FIELDS = {
    "name", "config", "version", "options", "kind", "licence", "citation", "patients", "studies",
    "cases", "parts", "studies_without_pixel_size", "counts", "excluded", "restricted", "notes",
    "file_notes", "fingerprint", "raw", "index", "images",
}  # fmt: skip


def options_of(name, config):
    """Few patients, so that the contract is cheap to check."""
    options = builder_class(name).builder_configs[config].options
    return {"patients": 3} if hasattr(options, "patients") else {}


@pytest.fixture(scope="module", params=GENERATED, ids="/".join)
def twice(request, tmp_path_factory):
    """A cohort that was packaged twice, independently."""
    name, config = request.param
    folders = [tmp_path_factory.mktemp("data") for _ in range(2)]
    made = [prepare_cohort(name, config, f, **options_of(name, config)) for f in folders]
    return name, config, folders, made


def test_every_builder_can_be_found_and_says_where_its_data_come_from():
    assert ("disc_degeneration", "phantom") in GENERATED
    for name, config in ALL:
        found = builder_class(name).builder_configs[config]
        assert found.kind == ("real" if found.obtain else "phantom"), (name, config)
        assert found.licence, (name, config)
        assert found.citation, (name, config)
    for name in cohort_names():
        assert builder_class(name).name == name
        assert builder_class(name).BUILDER_CONFIGS[0].name == "phantom"


def test_two_builds_give_the_same_bytes(twice):
    name, config, folders, (first, second) = twice
    assert first.audit == second.audit
    files = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in folders]
    assert files[0] == files[1]
    assert {p.parts[:2] for p in files[0]} <= {(name, config), (name, ".config")}
    for path in files[0]:
        assert (folders[0] / path).read_bytes() == (folders[1] / path).read_bytes(), path


def test_another_build_of_other_patients_has_another_fingerprint(twice, tmp_path):
    name, config, _, (first, _) = twice
    if not hasattr(builder_class(name).builder_configs[config].options, "seed"):
        pytest.skip("the cohort has no seed")
    options = {**options_of(name, config), "seed": 1}
    other = prepare_cohort(name, config, tmp_path, **options)
    assert other.audit["fingerprint"] != first.audit["fingerprint"]


def test_audit_is_complete_and_agrees_with_the_studies(twice):
    name, config, _, (cohort, _) = twice
    audit = cohort.audit
    assert set(audit) == AUDIT_FIELDS
    assert (audit["name"], audit["config"], audit["kind"]) == (name, config, "phantom")
    assert audit["studies"] == len(cohort.studies) == len(cohort.index)
    assert audit["patients"] == len(cohort.patients)
    assert audit["cases"] > 0
    assert audit["parts"]["image"] == {"patients": audit["patients"], "studies": audit["studies"]}
    for having in audit["parts"].values():
        assert 0 < having["patients"] <= having["studies"] <= audit["studies"]
    assert audit["studies_without_pixel_size"] == 0
    hashes = [h for study in cohort.index for h in audit["images"][study[1]]]
    assert len(set(hashes)) == len(hashes) >= audit["studies"]
    for counts in audit["counts"].values():
        assert sum(counts.values()) == audit["cases"]
    assert json.loads(json.dumps(audit)) == audit
    assert "PHANTOM" in audit_table(audit)


def test_studies_name_patient_and_study_and_are_sorted(twice):
    cohort = twice[3][0]
    assert [(s["patient_id"], s["study_id"]) for s in cohort.studies] == list(cohort.index)
    names = [study for _, study in cohort.index]
    assert names == sorted(set(names))
    assert all(patient for patient, _ in cohort.index)


def test_arrays_are_finite_and_share_their_grid(twice):
    for study in twice[3][0].studies:
        volumes = {k: v for k, v in study.items() if isinstance(v, np.ndarray) and v.ndim == 3}
        assert volumes
        for name, volume in volumes.items():
            assert volume.dtype in (np.float32, np.uint8), name
            assert np.isfinite(volume).all(), name
        if "affine" in study:
            assert study["affine"].shape == (4, 4)
            assert study["affine"].dtype == np.float64
            assert abs(np.linalg.det(study["affine"])) > 0


def test_outlines_are_the_studies_without_the_values_of_their_volumes(twice):
    cohort = twice[3][0]
    assert len(cohort.outlines) == len(cohort.studies)
    for outline, study in zip(cohort.outlines, cohort.studies, strict=True):
        assert outline.keys() == study.keys()
        volumes = {k for k, v in study.items() if getattr(v, "ndim", 0) == 3}
        assert {k for k, v in outline.items() if isinstance(v, Unread)} == volumes
        for name in volumes:
            stand_in, volume = outline[name], study[name]
            assert stand_in.shape == volume.shape
            assert (stand_in.dtype, stand_in.ndim) == (volume.dtype, volume.ndim)
            assert (len(stand_in), stand_in.size) == (len(volume), volume.size)
        assert_same(*({k: v for k, v in s.items() if k not in volumes} for s in (outline, study)))


def assert_same(a, b):
    """Equal to the bit, and of the same types."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert repr(a) == repr(b)  # NaN is like NaN


def test_channels_are_the_images_of_a_study(twice):
    name, *_, (cohort, _) = twice
    channels = builder_class(name).channels
    for study in cohort.studies:
        images = {k for k, v in study.items() if getattr(v, "ndim", 0) == 3 and v.dtype == "f4"}
        assert images == set(channels)
        assert len({study[c].shape for c in channels}) == 1


def test_what_a_new_study_must_show_is_said_of_each_channel():
    for name in cohort_names():
        builder = builder_class(name)
        assert set(builder.wanted) == set(builder.channels), name
        assert not builder.wanted[builder.channels[0]].optional, name  # it gives the grid


def test_the_affine_comes_back_bit_for_bit(twice):
    name, config, folders, (cohort, _) = twice
    options = options_of(name, config)
    builder = builder_class(name)(config=config, data_dir=str(folders[0]), options=options)
    source = builder.source()
    study = min(source.studies(), key=lambda s: s.study_id)
    drawn = source.read(study)["affine"]
    assert (drawn != drawn.astype(np.float32)).any()  # else nothing could be lost
    np.testing.assert_array_equal(cohort.studies[0]["affine"], drawn)
