"""Tables damaged at random: rows come out of a source, or sentences, and nothing else."""

import re
import time

import numpy as np
import pytest

from mskjax.data.cohorts import builder_class, cohort_names
from mskjax.errors import UserError

QUICK, ALL = 30, 750  # mutations of each table
SECONDS = 5.0  # for one set of tables
SPIDER = ("overview.csv", "radiological_gradings.csv")
# Cohort to its tables and to the files that they name; images are not opened here.
LAYOUTS = {
    ("fatty_infiltration", "cohort"): {
        "studies.csv": "patient_id,study_id,image,mask,grade,slice,pixel_mm,age,sex,subset\n"
        'p1,s1,i1,m1,2,,0.5,61,F,training\n"p 2",s2,i2,m2,0,3,,,M,\np3,s3,i1,,4,,,018M,,\n',
    },
    ("shoulder_bones", "cohort"): {
        "studies.csv": "patient_id,study_id,image,mask,humerus,scapula,side,id_checked\n"
        "7,s1,i1,m1,,,left,yes\n007,s2,i2,,m1,m2,right,yes\n8,s3,i1,,m2,,,\n",
    },
    ("disc_degeneration", "cohort"): {
        "studies.csv": "patient_id;study_id;image;mask;pixel_spacing_mm;age\n"
        "p1;12;i1;m1;0,5;61,5\np2;13;i2;m2;;\n",
        "discs.csv": "sep=;\nstudy_id;level;pfirrmann;modic\n12;1;3,0;\n12;2;;1\n13;1;5;0\n",
    },
    ("disc_degeneration", "spider"): {
        "overview.csv": "new_file_name,sex,birth_date,subset,MagneticFieldStrength,"
        "ScanningSequence,SequenceName,SeriesDescription\n"
        '1_t2,F ,49.0,training,1.5,"[\'SE\', \'IR\']",*tir,STIR\n2_t2,M,,validation,,SE,,\n',
        "radiological_gradings.csv": "Patient,IVD label,Modic,UP endplate,LOW endplate,"
        "Spondylolisthesis,Disc herniation,Disc narrowing,Disc bulging,Pfirrman grade\n"
        "1,1,0,0,0,0,0,0,0,3\n1,0,0,0,0,0,0,0,0,3\n2,1,0,0,0,0,0,1,1,5\n",
    },
    ("modic_changes", "cohort"): {
        "studies.csv": "patient_id\tstudy_id\tt1\tt2\tdisc_mask\n"
        "p1\ts1\ti1\ti2\t\np2\ts2\ti2\ti1\tm1\n",
        "discs.csv": "study_id,level,slice,row0,col0,row1,col1,modic\n"
        "s1,1,2,20,3,24,9,1\ns1,2,,,,,,0\ns2,1,,,,,,3\n",
    },
    ("modic_changes", "spider_midsagittal"): {
        "disc_boxes.csv": "patient,series,img_w,img_h,ivd_label_from_bottom,x0,y0,x1,y1\n"
        "1,t2,40,60,1,5,40,20,44\n1,t1,40,60,1,5,40,20,44\n2,t2,40,60,1,5,30,20,34\n",
    },
    ("vertebral_fracture", "cohort"): {
        "studies.csv": "patient_id,study_id,t1,t2,label,slice,row0,col0,row1,col1,box_mask\n"
        "p1,s1,i1,i2,benign,2,1,1,9,9,\np2,s2,i2,i1,,,,,,,m1\n",
        "readers.csv": "study_id,reader,call,aided_call\ns1,A,benign,\ns2,A,malignant,benign\n",
        "findings.csv": "study_id,fracture line,mass\ns1,0,1.0\ns2,,1\n",
    },
}  # fmt: skip
LAYOUTS["modic_changes", "spider_midsagittal"] |= LAYOUTS["disc_degeneration", "spider"]
FILES = ("i1", "i2", "m1", "m2", "images/1_t2.mha", "images/2_t2.mha", "masks/1_t2.mha",
         "masks/2_t2.mha")  # fmt: skip
CASES = [(*cohort, table) for cohort, tables in LAYOUTS.items() for table in tables]
ODD = [
    "", " ", "0", "-1", "1e308", "1e400", "nan", "-inf", "9" * 400, "1_0", "0x10", "٣", "²", "1,5",
    "12.0", "007", "1.2E+11", "yes", "..", "../../etc", "a/b", "con", "\u200b", "\ufeff", "\u2028",
    "'", '"', '""', "=1+1", "#REF!", "None", "s1", "p1", "i1", "é" * 3, "x" * 140_000, "\\", "%s",
    "{0}", "\x1b[31m",
]  # fmt: skip
BITS = [b",", b";", b"\t", b"|", b'"', b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\x80",
        b"\xef\xbb\xbf", b"sep=;\n", b"PK\x03\x04", b"\n\n", b",,,,"]  # fmt: skip


def mutated(content, rng):
    """The table with one to three things wrong."""
    for _ in range(rng.integers(1, 4)):
        content = MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)
    return content


def flip(content, rng):
    out = bytearray(content)
    for k in rng.integers(0, max(1, len(out)), 3):
        if out:
            out[k] ^= 1 << rng.integers(8)
    return bytes(out)


def cut(content, rng):
    return content[: rng.integers(0, len(content) + 1)]


def drop(content, rng):
    start, length = rng.integers(0, len(content) + 1), rng.integers(1, 12)
    return content[:start] + content[start + length :]


def insert(content, rng):
    at = rng.integers(0, len(content) + 1)
    return content[:at] + BITS[rng.integers(len(BITS))] + content[at:]


def cell(content, rng):
    """One cell, header included, holds something odd."""
    cells = list(re.finditer(rb"[^,;\t|\n]*", content))
    chosen = cells[rng.integers(len(cells))]
    odd = ODD[rng.integers(len(ODD))].encode()
    return content[: chosen.start()] + odd + content[chosen.end() :]


def twice(content, rng):
    lines = content.splitlines(keepends=True) or [b""]
    return b"".join([*lines, lines[rng.integers(len(lines))]])


def shuffled(content, rng):
    lines = content.splitlines(keepends=True)
    return b"".join(lines[k] for k in rng.permutation(len(lines)))


def separated(content, rng):
    one, other = BITS[rng.integers(4)], BITS[rng.integers(4)]
    return content.replace(one, other)


def recoded(content, rng):
    name = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp500")[rng.integers(5)]
    return content.decode("utf-8", "replace").encode(name, "replace")


MUTATIONS = (flip, cut, drop, insert, cell, cell, cell, twice, shuffled, separated, recoded)


@pytest.fixture
def folder(tmp_path):
    for name in (*FILES, "images/1_t2.png", "images/2_t2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def source_of(name, config, folder):
    """A fresh source; the images of the other layout of SPIDER are put away."""
    keep = ".png" if config == "spider_midsagittal" else ".mha"
    for path in (folder / "images").iterdir():
        if path.suffix != keep:
            path.unlink()
    cls = builder_class(name)
    return cls(config=config, data_dir=str(folder / "data"), manual_dir=folder).source()


def check(name, config, folder):
    """Studies or sentences, in time.  Returns whether anything was refused."""
    source = source_of(name, config, folder)
    start = time.perf_counter()
    try:
        studies, bad = source.studies(), source.ledger.bad
    except UserError as error:
        studies, bad = [], [("", str(error))]
    assert time.perf_counter() - start < SECONDS
    for where, why in bad:
        assert "\n" not in where
        assert why.endswith((".", "?"))
        assert "Traceback" not in why
        assert "\n" not in why
    for study in studies:
        assert study.patient_id
        assert re.fullmatch(r"[\w.+-]+", study.study_id)
        assert study.files
    if not bad:
        assert len({study.study_id for study in studies}) == len(studies)
    return bool(bad)


def fuzz(name, config, table, folder, count):
    tables = LAYOUTS[name, config]
    for file, text in tables.items():
        (folder / file).write_text(text)
    assert not check(name, config, folder), "the tables are valid as they are"
    valid = tables[table].encode()
    refused = 0
    for seed in range(count):
        content = mutated(valid, np.random.default_rng((seed, CASES.index((name, config, table)))))
        (folder / table).write_bytes(content)
        try:
            refused += check(name, config, folder)
        except Exception as error:
            raise AssertionError(f"mutation {seed} of {table}: {content[:2000]!r}") from error
    assert count / 5 < refused < count, "mutations must neither all fit nor all fail"


@pytest.mark.parametrize("name", cohort_names())
def test_tables_of_every_cohort_are_damaged_here(name):
    assert (name, "cohort") in LAYOUTS, f"add to LAYOUTS the tables of {name}/cohort"


@pytest.mark.parametrize(("name", "config", "table"), CASES)
def test_damaged_tables_are_sentences(name, config, table, folder):
    fuzz(name, config, table, folder, QUICK)


@pytest.mark.long
@pytest.mark.parametrize(("name", "config", "table"), CASES)
def test_many_damaged_tables_are_sentences(name, config, table, folder):
    fuzz(name, config, table, folder, ALL)
