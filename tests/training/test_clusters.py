"""What launchers leave in the environment, and what is no cluster."""

import pytest

from mskjax.errors import UserError
from mskjax.training.clusters import Cluster, visible

PLAIN = {
    "MSKJAX_COORDINATOR": "10.0.0.1:4000",
    "MSKJAX_PROCESSES": "4",
    "MSKJAX_PROCESS": "2",
}
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.fixture
def found(monkeypatch):
    """The cluster that a process with these variables alone belongs to."""

    def of(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)  # JAX's own detection looks there
        return visible(variables)

    return of


def test_plain_variables(found):
    assert found(PLAIN) == Cluster("10.0.0.1:4000", 4, 2)


def test_plain_variables_come_before_what_a_launcher_says(found):
    assert found(PLAIN | STEP | OPEN_MPI) == Cluster("10.0.0.1:4000", 4, 2)


def test_a_step_of_slurm(found):
    port = 4711 + 65535 - 2**12 + 1 - 2**12  # JAX makes it of the number of the job
    assert found(STEP) == Cluster(f"node07:{port}", 4, 3, devices=(1,))


@pytest.mark.parametrize(
    "changes", [{"SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "0"}, {"CUDA_VISIBLE_DEVICES": "5"}]
)
def test_a_process_takes_all_devices_where_none_of_them_is_another_ones(found, changes):
    assert found(STEP | changes).devices is None


@pytest.mark.parametrize(
    "variables",
    [
        {},
        # A job of one task, and a task of an array.
        STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_ARRAY_TASK_ID": "3"},
        # A job's script, which has four tasks to give to its steps.
        {k: v for k, v in STEP.items() if "STEP" not in k},
        # Workers that know nothing of each other.
        STEP | {"MSKJAX_PROCESSES": "1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"},
    ],
)
def test_what_is_no_cluster(found, variables):
    assert found(variables) is None


def test_open_mpi(found):
    cluster = found(OPEN_MPI)
    assert cluster.address.startswith("10.96.0.1:")
    assert (cluster.count, cluster.index, cluster.devices) == (2, 1, (1,))


@pytest.mark.parametrize(
    ("size", "rank"),
    [("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")],
)
def test_another_mpi_needs_an_address(found, size, rank):
    variables = {size: "4", rank: "3"}
    with pytest.raises(UserError, match="set MSKJAX_COORDINATOR=host:port, or install mpi4py"):
        found(variables)
    address = {"MSKJAX_COORDINATOR": "node07:4000"}
    assert found(variables | address) == Cluster("node07:4000", 4, 3)


def test_an_indexed_job_of_kubernetes_with_an_address(found):
    variables = {
        "JOB_COMPLETION_INDEX": "1",
        "MSKJAX_COORDINATOR": "study-0.study:4000",
        "MSKJAX_PROCESSES": "2",
    }
    assert found(variables) == Cluster("study-0.study:4000", 2, 1)


def test_a_cluster_of_one(found):
    variables = {"MSKJAX_COORDINATOR": "localhost:4000", "MSKJAX_PROCESSES": "1"}
    assert found(variables) == Cluster("localhost:4000", 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MSKJAX_COORDINATOR": "node07"}, "MSKJAX_COORDINATOR is 'node07'; give host:port"),
        ({"MSKJAX_COORDINATOR": ""}, "give host:port"),
        ({"MSKJAX_PROCESSES": "two"}, "MSKJAX_PROCESSES is 'two'; it must be a whole number"),
        ({"MSKJAX_PROCESS": "4"}, "MSKJAX_PROCESS is 4 and MSKJAX_PROCESSES is 4; processes are"),
    ],
)
def test_wrong_variables(found, changes, message):
    with pytest.raises(UserError, match=message):
        found(PLAIN | changes)


@pytest.mark.parametrize("missing", ["MSKJAX_PROCESSES", "MSKJAX_PROCESS"])
def test_half_a_set(found, missing):
    with pytest.raises(UserError, match=f"not {missing}"):
        found({k: v for k, v in PLAIN.items() if k != missing})
