"""`tests/` mirrors `mskjax/`: who looks for the tests of a module finds them under its name."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGES = sorted(p.parent.name for p in (TESTS.parent / "mskjax").glob("*/__init__.py"))

# Modules that are tested through another one, whose tests a file of their own would repeat.
THROUGH = {
    "data/packages": "builders/test_packaging",  # what is packaged once, again, or beside
    "data/helpers": "data/test_shards",  # processes that cut shards
    "imaging/dicom_decode": "imaging/test_dicom_pixels",
    "imaging/dicom_fields": "imaging/test_dicom",
    "imaging/dicom_file": "imaging/test_dicom_folder",
    "imaging/dicom_frames": "imaging/test_dicom",
    "imaging/dicom_grid": "imaging/test_dicom",
    "imaging/grids": "imaging/test_masks",  # a mask is read onto its image's grid
    "imaging/limits": "imaging/test_fuzz_files",  # damaged files of every format
    "imaging/series": "imaging/test_dicom",
    "imaging/volume": "imaging/test_geometry",
    "inputs/dicom_studies": "inputs/test_studies",
    "inputs/drafts": "inputs/test_studies",
    "inputs/headers": "inputs/test_studies",
    "inputs/identifying": "inputs/test_scrub",
    "inputs/study": "inputs/test_studies",
    "metrics/grading_statistic": "metrics/test_grading_figures",
    "models/torch_files": "models/test_weight_files",
    "portable/example": "commands/test_export_command",  # run as whoever gets an export runs it
    "reporting/artefacts": "reporting/test_summary",
    "reporting/external": "commands/test_evaluate_command",
    "reporting/checklist_answers": "reporting/test_checklist",
    "reporting/sections": "reporting/test_checklist",  # and every page
    "reporting/curves": "reporting/test_figures",
    "reporting/spreads": "reporting/test_figures",
    "reporting/page_drawings": "reporting/test_page",
    "reporting/page_rows": "reporting/test_page",
    "reporting/environment": "commands/test_main_run",  # of the machine that the run was on
    "results/document": "results/test_study",
    "results/sources": "results/test_dicom",
    "training/member": "training/test_loop",
    "training/mesh": "commands/test_main_devices",  # the same figures on 1 and 8 devices
    "training/trainer": "training/test_population",
    "training/stage": "training/test_loop",  # with the stage of training/toy.py
    # A finished run, untouched and forged.
    "verification/account": "commands/test_verify_command",
    "verification/checks": "commands/test_verify_command",
    # What systems share is tested with the systems' own masks, grades and rules.
    "two_stage/boxes": "systems/test_modic_changes",
    "two_stage/discs": "systems/test_disc_degeneration",
    "two_stage/readers": "systems/test_vertebral_fracture",
    "two_stage/region_then_grade": "systems/test_fatty_infiltration",
    "two_stage/regions_then_grades": "systems/test_disc_degeneration",
}


def modules(package: str) -> set[str]:
    """Modules of a package of mskjax, as ``package/module``."""
    inside = TESTS.parent / "mskjax" / package
    files = [f.relative_to(inside) for f in inside.rglob("*.py") if f.parent != inside]
    files += [f.relative_to(inside) for f in inside.glob("*.py") if f.stem != "__init__"]
    # A system that has stages of its own is a folder: NAME/__init__.py and NAME/STAGE.py.
    names = ["_".join(f.with_suffix("").parts).removesuffix("___init__") for f in files]
    return {f"{package}/{name}" for name in names}


def has_tests(module: str) -> bool:
    """Whether a module has a test file of its name."""
    package, _, name = module.partition("/")
    return (TESTS / package / f"test_{name}.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_tests(package):
    missing = {m for m in modules(package) if not has_tests(m) and m not in THROUGH}
    assert not missing, "give it a test file of its name, or say in THROUGH where it is tested"


def test_every_stage_has_tests_of_its_own():
    assert all(has_tests(stage) for stage in modules("stages"))


def test_what_is_tested_elsewhere_is_there_and_so_are_its_tests():
    every = set().union(*map(modules, PACKAGES))
    assert set(THROUGH) <= {m for m in every if not has_tests(m)}
    assert all((TESTS / f"{file}.py").exists() for file in THROUGH.values())


def test_files_that_text_names_are_there():
    """A reader follows these paths; modules move, and prose does not move with them."""
    root = TESTS.parent
    texts = [*root.glob("*.md")]
    for folder in ("mskjax", "experiments", "tfds_builders", "docs"):
        texts += [p for p in (root / folder).rglob("*") if p.suffix in (".py", ".md")]
    named = r"\b(?:mskjax|tests|experiments|tfds_builders|docs)/[\w/.-]+\.(?:py|md)\b"
    lost = {
        (str(path.relative_to(root)), name)
        for path in texts
        for name in re.findall(named, path.read_text())
        if "NAME" not in name and not any((at / name).exists() for at in (root, path.parent))
    }
    assert not lost
