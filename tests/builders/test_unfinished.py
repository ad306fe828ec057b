"""Packaging that is stopped, in the middle, by whatever it is: the same command goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import mini_spine as mini

from mskjax.data.cohorts import prepare_cohort
from mskjax.errors import BadCases, Preempted, UserError
from tfds_builders import claims, crew, shards
from tfds_builders.disc_degeneration.sources import PhantomSource
from tfds_builders.disc_degeneration.sources_cohort import CohortSource

PHANTOM = ("disc_degeneration", "phantom")
OWN = ("disc_degeneration", "cohort")
PATIENTS = 3 * shards.STUDIES_PER_SHARD + 4
ROOT = Path(__file__).resolve().parents[2]


def start(data, workers=2):
    """Packages four shards, as typed."""
    return subprocess.Popen(
        [sys.executable, "-m", "mskjax.prepare", "--cohort=disc_degeneration/phantom",
         f"--data_dir={data}", f"--option=patients={PATIENTS}"],
        cwd=ROOT, env={**os.environ, "MSKJAX_WORKERS": str(workers)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition, within=120.0):
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def children(process):
    """The numbers of the processes that a process has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(pid) for pid in path.read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stopped(process, data, how):
    """Ends packaging once a shard is finished; the exit code, and what was said."""
    wait_for(lambda: list(data.rglob("accounts/*.json")))
    workers = children(process)
    assert len(workers) == 2
    how(process, workers)
    out, err = process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_running, workers)), within=20)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Packaged in one go, by one process."""
    folder = tmp_path_factory.mktemp("data")
    return folder, prepare_cohort(*PHANTOM, folder, patients=PATIENTS)


def check_resumed(data, undisturbed):
    """The next run reads less, and leaves what an undisturbed one does."""
    finished = len(list(data.rglob("accounts/*.json"))) * shards.STUDIES_PER_SHARD
    process = start(data)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (there,) = re.findall(rf"(\d+) of {PATIENTS} studies are there already", out)
    assert int(there) >= min(finished, PATIENTS) - shards.STUDIES_PER_SHARD + 4 > 0
    folder, _ = undisturbed
    contents = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (folder, data)
    ]
    assert contents[0].keys() == contents[1].keys()
    for name, content in contents[0].items():
        assert contents[1][name] == content, name
    folders = {p.name for p in data.rglob("*") if p.is_dir()}
    assert folders == {"disc_degeneration", ".config", "phantom", "1.3.0"}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_finished_survives_a_signal(tmp_path, undisturbed, number):
    code, _, err = stopped(start(tmp_path), tmp_path, lambda p, _: p.send_signal(number))
    assert code == (75 if number == signal.SIGTERM else -number), err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("audit.json"))
    if number == signal.SIGTERM:
        assert not list(tmp_path.rglob("tmp/*"))
        assert not list(tmp_path.rglob("claims/*"))
    check_resumed(tmp_path, undisturbed)


@pytest.mark.long
@pytest.mark.slow
def test_a_worker_that_is_killed_ends_in_a_sentence_and_not_in_a_hang(tmp_path, undisturbed):
    def kill(_, workers):
        os.kill(workers[0], signal.SIGKILL)

    code, _, err = stopped(start(tmp_path), tmp_path, kill)
    assert code == 2, err
    assert re.search(r"error: a worker of packaging ended.*\(SIGKILL\).*MSKJAX_WORKERS=1", err)
    assert "Traceback" not in err
    check_resumed(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_commands_at_once_share_the_work(tmp_path, undisturbed):
    processes = [start(tmp_path, workers=1) for _ in range(2)]
    said = [p.communicate(timeout=120) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    fingerprint = undisturbed[1].audit["fingerprint"]
    assert all(fingerprint in out for out, _ in said)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.fixture
def alone(monkeypatch):
    """Shards of one study, packaged in this process."""
    monkeypatch.setattr(shards, "STUDIES_PER_SHARD", 1)


@pytest.fixture
def own_raw(tmp_path):
    """A user's ten patients."""
    names = "abcdefghij"
    root = tmp_path / "own"
    for number, name in enumerate(names):
        mini.write_nifti(root / f"{name}.nii.gz", mini.image(number))
        mini.write_nifti(root / f"{name}_seg.nii.gz", mini.semantic())
    mini.write_csv(
        root / "studies.csv",
        ["patient_id", "study_id", "image", "mask"],
        [[f"p{n}", n, f"{n}.nii.gz", f"{n}_seg.nii.gz"] for n in names],
    )
    rows = [[n, level, 2] for n in names[::2] for level in range(1, 5)]
    mini.write_csv(root / "discs.csv", ["study_id", "level", "pfirrmann"], rows)
    return root


def stop_at(monkeypatch, source, name, error):
    """Raises where a study is read, once; returns the ids of what was read since."""
    real, read, raised = source.read, [], []

    def patched(self, study):
        if study.study_id == name and not raised:
            raised.append(True)
            raise error
        read.append(study.study_id)
        return real(self, study)

    monkeypatch.setattr(source, "read", patched)
    return read


@pytest.mark.parametrize(
    "error", [Preempted("stopped"), KeyboardInterrupt(), OSError(5, "I/O"), MemoryError()]
)
def test_only_what_is_not_finished_is_read(tmp_path, monkeypatch, alone, error):
    read = stop_at(monkeypatch, PhantomSource, "phantom0002_t2", error)
    with pytest.raises(type(error)):
        prepare_cohort(*PHANTOM, tmp_path, patients=4)
    assert read == ["phantom0000_t2", "phantom0001_t2"]
    read.clear()
    cohort = prepare_cohort(*PHANTOM, tmp_path, patients=4)
    assert read == ["phantom0002_t2", "phantom0003_t2"]
    whole = prepare_cohort(*PHANTOM, tmp_path / "whole", patients=4)
    assert cohort.audit == whole.audit
    assert not list(tmp_path.rglob("*partial*"))


def test_packaging_again_goes_on_as_well_and_keeps_the_old_package_until_then(
    tmp_path, monkeypatch, alone
):
    first = prepare_cohort(*PHANTOM, tmp_path, patients=3).audit
    read = stop_at(monkeypatch, PhantomSource, "phantom0002_t2", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*PHANTOM, tmp_path, again=True, patients=3)
    assert prepare_cohort(*PHANTOM, tmp_path, patients=3).audit == first
    read.clear()
    assert prepare_cohort(*PHANTOM, tmp_path, again=True, patients=3).audit == first
    assert read == ["phantom0002_t2"]
    (folder,) = (tmp_path / "disc_degeneration" / "phantom").iterdir()
    assert folder.name == "1.3.0"


def test_shards_of_a_process_that_falls_silent_are_taken_over(tmp_path, monkeypatch, alone, capsys):
    stop_at(monkeypatch, PhantomSource, "phantom0001_t2", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*PHANTOM, tmp_path, patients=2)
    (left,) = tmp_path.rglob("*partial*")
    claim = {"host": "far", "pid": 1, "started": 0.0}
    (left / "claims" / "00001").write_text(json.dumps(claim))
    monkeypatch.setattr(claims, "STALE_S", 0.5)
    assert len(prepare_cohort(*PHANTOM, tmp_path, patients=2).studies) == 2
    assert "waiting for 1 shards that process 1 on far" in capsys.readouterr().out


def test_work_on_raw_files_that_were_changed_is_thrown_away(tmp_path, monkeypatch, own_raw, alone):
    data = tmp_path / "data"
    read = stop_at(monkeypatch, CohortSource, "j", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*OWN, data, own_raw)
    mini.write_nifti(own_raw / "a.nii.gz", mini.image(50))
    read.clear()
    prepare_cohort(*OWN, data, own_raw)
    assert read == list("abcdefghij")
    assert not list(data.rglob("*partial*"))


def test_raw_files_are_hashed_once(tmp_path, monkeypatch, own_raw, alone):
    data = tmp_path / "data"
    stop_at(monkeypatch, CohortSource, "c", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*OWN, data, own_raw)
    monkeypatch.setattr("hashlib.file_digest", None)  # nothing is left to be read
    assert len(prepare_cohort(*OWN, data, own_raw).studies) == 10


def test_a_disk_that_is_full_in_the_middle_keeps_what_is_finished(tmp_path, monkeypatch, alone):
    full = OSError(28, "No space left on device")
    read = stop_at(monkeypatch, PhantomSource, "phantom0002_t2", full)
    expected = r"cannot be written \(No space left on device\).*goes on from the 2 of 3 studies"
    with pytest.raises(UserError, match=expected):
        prepare_cohort(*PHANTOM, tmp_path, patients=3)
    read.clear()
    assert len(prepare_cohort(*PHANTOM, tmp_path, patients=3).studies) == 3
    assert read == ["phantom0002_t2"]


def test_a_finished_shard_that_is_damaged_is_noticed(tmp_path, monkeypatch, alone):
    read = stop_at(monkeypatch, PhantomSource, "phantom0002_t2", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*PHANTOM, tmp_path, patients=3)
    short, other = sorted(tmp_path.rglob("*array_record*"))
    short.write_bytes(short.read_bytes()[:-1])
    content = bytearray(other.read_bytes())
    content[2000:2100] = bytes(100)
    other.write_bytes(content)
    with pytest.raises(UserError, match=r"00001-of-00003 is damaged .*; run the same command"):
        prepare_cohort(*PHANTOM, tmp_path, patients=3)
    read.clear()
    mended = prepare_cohort(*PHANTOM, tmp_path, patients=3)
    assert read == ["phantom0001_t2"]
    assert mended.audit == prepare_cohort(*PHANTOM, tmp_path / "whole", patients=3).audit


@pytest.mark.slow
def test_workers_find_what_one_process_finds(tmp_path, monkeypatch, own_raw):
    """Notes, restrictions and faults, in the same order and words."""

    def both():
        for workers in (1, 2):
            monkeypatch.setenv("MSKJAX_WORKERS", str(workers))
            yield tmp_path / f"{workers}"

    audits = [prepare_cohort(*OWN, data, own_raw).audit for data in both()]
    assert audits[0]["restricted"]
    assert audits[0] == audits[1]
    for name in "bi":
        (own_raw / f"{name}.nii.gz").write_bytes((own_raw / f"{name}.nii.gz").read_bytes()[:60])
    faults = []
    for data in both():
        with pytest.raises(BadCases) as caught:
            prepare_cohort(*OWN, data / "bad", own_raw)
        faults.append(str(caught.value))
        assert not (data / "bad").exists()
    assert faults[0] == faults[1]
    assert [line.split(":")[0].strip() for line in faults[0].splitlines()[1:]] == ["b", "i"]


def between(monkeypatch, action):
    """Does something once, before a study is read."""
    real, done = PhantomSource.read, []

    def patched(self, study):
        if not done:
            done.append(True)
            action()
        return real(self, study)

    monkeypatch.setattr(PhantomSource, "read", patched)


def test_another_process_may_be_faster_with_other_options(tmp_path, monkeypatch, alone):
    between(monkeypatch, lambda: prepare_cohort(*PHANTOM, tmp_path, patients=3))
    with pytest.raises(UserError, match="another process packaged other raw files or options"):
        prepare_cohort(*PHANTOM, tmp_path, patients=2)
    assert not list(tmp_path.rglob("*partial*"))
    for patients in (2, 3):
        assert len(prepare_cohort(*PHANTOM, tmp_path, patients=patients).studies) == patients


def test_another_process_may_find_that_a_study_is_wrong(tmp_path, monkeypatch, alone):
    def remove():
        (folder,) = tmp_path.rglob("*partial*")
        shutil.rmtree(folder)

    between(monkeypatch, remove)
    with pytest.raises(UserError, match="run the same command again to see what is"):
        prepare_cohort(*PHANTOM, tmp_path, patients=2)
    assert not list(tmp_path.iterdir())


def test_workers_start_without_what_only_training_needs():
    code = (
        "import sys; import tfds_builders.shard_worker, tfds_builders.crew, tfds_builders.packing;"
        " import tfds_builders.modic_changes.modic_changes;"
        " print({'jax', 'flax', 'orbax', 'grain', 'tensorflow', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr


def test_a_wrong_number_of_workers_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MSKJAX_WORKERS", "0")
    with pytest.raises(UserError, match="MSKJAX_WORKERS is '0'; it must be a whole number from 1"):
        prepare_cohort(*PHANTOM, tmp_path, patients=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("", 8)]
)
def test_a_container_has_the_cores_of_its_quota(tmp_path, monkeypatch, quota, cores):
    monkeypatch.delenv("MSKJAX_WORKERS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(crew, "_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert crew.workers() == cores


def test_what_a_dead_process_began_of_other_options_is_removed(tmp_path, monkeypatch, alone):
    stop_at(monkeypatch, PhantomSource, "phantom0001_t2", Preempted("stopped"))
    with pytest.raises(Preempted):
        prepare_cohort(*PHANTOM, tmp_path, patients=2)
    (left,) = tmp_path.rglob("*partial*")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    live, dead = ({"host": os.uname().nodename, "pid": p, "started": 0.0} for p in (
        os.getppid(), ended.pid
    ))  # fmt: skip
    claim = left / "claims" / "process"
    claim.write_text(json.dumps(live))
    prepare_cohort(*PHANTOM, tmp_path, patients=3)
    assert left.exists()
    claim.write_text(json.dumps(dead))
    prepare_cohort(*PHANTOM, tmp_path, again=True, patients=3)
    assert not left.exists()
