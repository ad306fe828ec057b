"""What the launchers start exists, and what they promise of exit codes holds.

No cluster is asked: files are parsed, commands are parsed by the commands themselves, and the Slurm
script runs with a worker and a `scontrol` made here.
"""

import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from mskjax import commands
from mskjax.errors import EXIT_PREEMPTED, EXIT_USER

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "experiments" / "launch"
SLURM = LAUNCH / "slurm_sweep.sh"
IMAGE = "REGISTRY/mskjax:cuda"  # as the head of the Dockerfile names it


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load((LAUNCH / "kubernetes_jobset.yaml").read_text())


@pytest.fixture(scope="module")
def task():
    return yaml.safe_load((LAUNCH / "skypilot_sweep.yaml").read_text())


@functools.cache
def help_of_sweeps():
    return subprocess.run(
        [sys.executable, "-m", "mskjax.sweep", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def check_sweep(words, shipped):
    """The command of a worker of a sweep: module, flags, and the sweep that the file names."""
    assert words[:3] == ["python", "-m", "mskjax.sweep"]
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags == {"--config", "--workdir", "--storage"}
    assert all(flag in help_of_sweeps() for flag in flags)
    assert (ROOT / "experiments" / "sweeps" / f"{shipped}.py").is_file()


def test_every_launcher_is_tested_here():
    names = {"Dockerfile", "kubernetes_jobset.yaml", "skypilot_sweep.yaml", "slurm_sweep.sh"}
    assert {p.name for p in LAUNCH.iterdir() if p.is_file()} == names


def test_the_jobset_starts_one_study_of_two_processes(jobset):
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completionMode"] == "Indexed"  # or no pod had a number
    assert job["completions"] == job["parallelism"] == 2
    (container,) = job["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    _, module, name, *flags = container["command"]
    assert (module, name) == ("-m", "mskjax.main")
    commands.study_flags(flags)  # raises if a flag, the experiment or a field is unknown
    found = {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}
    assert found["MSKJAX_PROCESSES"] == str(job["completions"])
    index = found["MSKJAX_PROCESS"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    # <jobset>-<replicated job>-<job>-<pod>.<subdomain>:<port>
    host, port = found["MSKJAX_COORDINATOR"].split(":")
    subdomain = jobset["spec"]["network"]["subdomain"]
    assert host == f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{subdomain}"
    assert int(port) in {p["containerPort"] for p in container["ports"]}
    volumes = {v["name"] for v in job["template"]["spec"]["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} == volumes


def test_the_jobset_tries_again_but_not_on_wrong_input(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # a pod failure policy needs it
    assert job["backoffLimit"] == 0  # one pod cannot be replaced; JobSet makes all anew
    assert pod["terminationGracePeriodSeconds"] > 60
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [EXIT_USER]
    assert rule["onExitCodes"]["containerName"] in {c["name"] for c in pod["containers"]}
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert [r["action"] for r in policy["rules"]] == ["FailJobSet"]
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_the_task_recovers_from_what_a_spot_machine_does(task):
    resources = task["resources"]
    assert resources["use_spot"] is True
    assert resources["job_recovery"] == {"recover_on_exit_codes": [EXIT_PREEMPTED]}
    assert resources["image_id"] == f"docker:{IMAGE}"
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)
    (line,) = [x for x in task["run"].splitlines() if "mskjax" in x]
    check_sweep(shlex.split(line.partition("||")[0]), task["envs"]["SWEEP"])
    given = {*task["envs"], *task["secrets"], "HOME", "SKYPILOT_TASK_ID"}
    assert set(re.findall(r"\$([A-Z_]+)", task["run"])) <= given
    assert all(m["mode"] in ("COPY", "MOUNT", "MOUNT_CACHED") for m in task["file_mounts"].values())


@pytest.fixture
def worker(tmp_path):
    """Starts the Slurm script with a stand-in for python, which gets SIGTERM or ends by itself."""
    (tmp_path / "bin").mkdir()

    def start(body, **variables):
        for name, text in {"python": body, "scontrol": f'echo "$@" > {tmp_path}/requeued'}.items():
            file = tmp_path / "bin" / name
            file.write_text(f"#!/usr/bin/env bash\n{text}\n")
            file.chmod(0o755)
        known = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
        known |= {"SWEEP": "disc_degeneration_rates", "WORKDIR": "runs", **variables}
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", SLURM], cwd=tmp_path, env={**os.environ, **known, "PATH": path}
        )

    return start


def test_the_directives_of_the_slurm_script():
    subprocess.run(["bash", "-n", SLURM], check=True)
    lines = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", SLURM.read_text(), re.MULTILINE)
    found = dict(lines)
    assert len(found) == len(lines) == SLURM.read_text().count("#SBATCH")
    assert re.fullmatch(r"\d+-\d+", found["array"])
    assert found["requeue"] == ""
    assert found["signal"] == "B:TERM@120"
    assert found["open-mode"] == "append"  # or a task that goes on erases its log


def test_a_worker_that_saves_at_sigterm_is_queued_again(worker, tmp_path):
    saves = (
        f"trap 'sleep 0.3; exit {EXIT_PREEMPTED}' TERM; touch begun; while :; do sleep 0.05; done"
    )
    process = worker(saves)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    process.terminate()
    assert process.wait(20) == EXIT_PREEMPTED
    assert (tmp_path / "requeued").read_text() == "requeue 12_3\n"


@pytest.mark.parametrize("code", [0, 1, EXIT_USER])
def test_a_worker_that_ends_is_not_queued_again(worker, tmp_path, code):
    assert worker(f"exit {code}").wait(20) == code
    assert not (tmp_path / "requeued").exists()


def test_what_the_slurm_script_types(worker, tmp_path):
    process = worker('printf "%s\\n" python "$@" > typed', STORAGE="postgresql://u@h/d")
    assert process.wait(20) == 0
    check_sweep((tmp_path / "typed").read_text().split(), "disc_degeneration_rates")


def test_the_recipe_builds_on_what_pyproject_declares():
    text = (LAUNCH / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = re.search(r"^FROM python:(\d)\.(\d+)-slim$", text, re.MULTILINE)
    low, high = re.findall(r"\d\.(\d+)", project["requires-python"])
    assert int(low) <= int(base[2]) < int(high)
    extras = project["optional-dependencies"]
    named = re.findall(r"EXTRA=(\w+)", text)
    assert set(named) == {"cuda", "tpu"} <= set(extras)
    assert [extras["cuda"], extras["tpu"]] == [["jax[cuda12]"], ["jax[tpu]"]]
    copied = [
        w for line in re.findall(r"^COPY (.*)", text, re.MULTILINE) for w in line.split()[:-1]
    ]
    assert all((ROOT / name).exists() for name in copied)
    packaged = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} | {"experiments"}
    assert packaged - {"tests"} <= set(copied)
    module = re.search(r'"-m", "(mskjax\.\w+)"', text)[1]
    assert importlib.util.find_spec(module)
    assert all(f"-t {IMAGE.replace('cuda', x)}" in text for x in ("cuda", "tpu"))
