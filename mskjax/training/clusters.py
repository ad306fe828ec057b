"""Whether this process is one of several that compute together, and which.

Plain variables come first, then what the launcher that started the process says of it.  A job of
Slurm or Kubernetes that is one process, or many that know nothing of each other (an array of tasks,
workers of a sweep), is no cluster.
"""

import dataclasses
import os
from collections.abc import Mapping

from mskjax.errors import UserError

COORDINATOR = "MSKJAX_COORDINATOR"  # host:port on which the first process listens
PROCESSES = "MSKJAX_PROCESSES"  # how many there are; 1 alone: whatever launched it, this is one
PROCESS = "MSKJAX_PROCESS"  # number of this one, from 0
_INDICES = (PROCESS, "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "PMI_RANK", "JOB_COMPLETION_INDEX")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that compute together, as this one sees them.

    Attributes:
      address: host:port on which the first process listens.
      count: how many there are.
      index: number of this one.
      devices: numbers of the accelerators of this machine that are this process's; None: all that
        it sees.
    """

    address: str
    count: int
    index: int
    devices: tuple[int, ...] | None = None


def visible(variables: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that this process belongs to; None where it is alone.

    Args:
      variables: of the environment.

    Raises:
      UserError: the variables contradict each other, or say too little.
    """
    if any(name in variables for name in (COORDINATOR, PROCESSES, PROCESS)):
        return _plain(variables)
    if _number(variables, "OMPI_COMM_WORLD_SIZE") > 1:
        return _of_mpi(variables)
    # Within a step; a job's script, which starts steps, has SLURM_NTASKS as well.
    if "SLURM_STEP_NODELIST" in variables and _slurm_count(variables) > 1:
        return _of_slurm(variables)
    if _number(variables, "PMI_SIZE") > 1:
        return _of_mpi(variables)
    return _of_tpu()


def _plain(variables: Mapping[str, str]) -> Cluster | None:
    if COORDINATOR not in variables and variables.get(PROCESSES) == "1":
        return None
    address = variables.get(COORDINATOR, "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"{COORDINATOR} is {address!r}; give host:port on which the first process can listen."
        )
    sizes = (PROCESSES, "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "PMI_SIZE")
    size = next((s for s in sizes if s in variables), None)
    rank = next((r for r in _INDICES if r in variables), None)
    if size is None or (rank is None and variables[size] != "1"):
        raise UserError(
            f"{COORDINATOR} is set, but not {PROCESSES if size is None else PROCESS}: how many"
            " processes there are and which one this is; set all three."
        )
    count = _number(variables, size)
    index = _number(variables, rank) if rank else 0
    if not 0 <= index < count:
        raise UserError(
            f"{rank or PROCESS} is {index} and {size} is {count}; processes are counted from 0."
        )
    return Cluster(address, count, index)


def _of_mpi(variables: Mapping[str, str]) -> Cluster:
    name = "ompi" if "OMPI_MCA_orte_hnp_uri" in variables else "mpi4py"
    kind = _environment(name)
    if kind is None:
        size = variables.get("OMPI_COMM_WORLD_SIZE", variables.get("PMI_SIZE"))
        raise UserError(
            f"MPI started {size} processes, and this version of it does not say where the first one"
            f" listens; set {COORDINATOR}=host:port, or install mpi4py ({PROCESSES}=1 if they are"
            " to know nothing of each other)."
        )
    return _asked(kind, variables, alone_on_host=False)


def _of_slurm(variables: Mapping[str, str]) -> Cluster:
    kind = _environment("slurm")
    assert kind is not None
    alone = _slurm_count(variables) == _number(variables, "SLURM_STEP_NUM_NODES")
    return _asked(kind, variables, alone)


def _of_tpu() -> Cluster | None:
    """Hosts of a TPU slice, which JAX's own detection tells apart from a single host."""
    for name in ("gcetpu", "gketpu"):
        kind = _environment(name)
        if kind is not None and kind.get_process_count() > 1:
            return _asked(kind, os.environ, alone_on_host=True)
    return None


def _environment(name: str):
    """JAX's knowledge of a kind of cluster; None where there is none of it here."""
    from jax._src import clusters  # not public, but what `jax.distributed.initialize` asks

    kinds = {kind.name: kind for kind in clusters.ClusterEnv._cluster_types}
    kind = kinds.get(name)
    return kind if kind is not None and kind.is_env_present() else None


def _asked(kind, variables: Mapping[str, str], alone_on_host: bool) -> Cluster:
    port = variables.get("JAX_COORDINATOR_PORT")
    address = kind.get_coordinator_address(timeout_secs=60, override_coordinator_port=port)
    # A launcher that gives each process its own accelerators shows it no others.
    shown = variables.get("CUDA_VISIBLE_DEVICES", "").split(",")
    all_own = alone_on_host or (len(shown) == 1 and shown[0] != "")
    local = None if all_own else _local(kind)
    return Cluster(address, kind.get_process_count(), kind.get_process_id(), local)


def _local(kind) -> tuple[int, ...] | None:
    number = kind.get_local_process_id()
    return None if number is None else (number,)


def _slurm_count(variables: Mapping[str, str]) -> int:
    return _number(variables, "SLURM_STEP_NUM_TASKS") or _number(variables, "SLURM_NTASKS")


def _number(variables: Mapping[str, str], name: str) -> int:
    """The number that a variable holds; 0 where it is not set."""
    text = variables.get(name, "0")
    if not text.isdigit():
        raise UserError(f"{name} is {text!r}; it must be a whole number.")
    return int(text)
