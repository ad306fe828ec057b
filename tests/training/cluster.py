"""Real processes on the loopback, none of which is waited for longer than a minute."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
LIMIT_S = 60.0

# Trains the toy in FOLDER; what else it does at a step is said by the arguments.
WORKER = """
import sys
sys.path.insert(0, {tests!r})
import os, time
from pathlib import Path
from mskjax import commands, preemption
from mskjax.training import processes

def work(argv):
    folder = Path(argv[0])
    what = dict(a.split("=") for a in argv[1:])
    commands.together(resamples=int(what.get("resamples", 50)))
    from mskjax.training.mesh import data_mesh
    from mskjax.training.program import Program
    from training.toy import toy, train

    from mskjax.training.trainer import Trainer

    program = Program(toy(**{recipe}), data_mesh())
    step, done = Trainer.step, 0

    def slowly(*arguments):
        nonlocal done
        done += 1
        time.sleep(float(what.get("pause", 0)))
        return step(*arguments)

    Trainer.step = slowly
    with preemption.listening() as stop, stop.held():
        train(program, folder, processes.Together(stop))

sys.exit(commands.run(work, None))
"""


# Does `theirs` where it is the process of that number, `ours` where it is another, once all are in.
MEETING = """
import hashlib, sys, time
from mskjax import commands, roles
from mskjax.errors import UserError
from mskjax.training import processes
{settings}

def work(argv):
    commands.together(resamples=int(argv[0]))
    processes.sync("in")
    print("in", flush=True)
    if roles.index() == {other}:
        {theirs}
    else:
        {ours}

sys.exit(commands.run(work, None))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """Started together; all are killed when the block ends.

    Args:
      commands: of each process, by its number.
      devices: of each process.
    """

    def __init__(self, commands, devices, **variables):
        address = f"127.0.0.1:{free_port()}"
        shared = {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            # As many threads whatever number of devices: sums are divided over them.
            "NPROC": "4",
            "MSKJAX_COORDINATOR": address,
            "MSKJAX_PROCESSES": str(len(commands)),
            **variables,
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.started = [
            subprocess.Popen(
                command,
                env=os.environ | shared | {"MSKJAX_PROCESS": str(i)},
                cwd=TESTS.parent,
                **pipes,
            )
            for i, command in enumerate(commands)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()

    def signal(self, index, number):
        self.started[index].send_signal(number)

    def wait_until_in(self):
        """Until each has said that all have met."""
        for process in self.started:
            assert process.stdout.readline() == "in\n", process.communicate()

    def wait_for(self, condition, seconds=LIMIT_S):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited for longer than a minute"
            codes = [p.poll() for p in self.started]
            assert codes == [None] * len(codes), [p.communicate() for p in self.started]
            time.sleep(0.02)

    def ended(self, seconds=LIMIT_S):
        """Exit codes and what was said on stderr, once all have ended."""
        end = time.monotonic() + seconds
        both = [p.communicate(timeout=max(end - time.monotonic(), 0.1)) for p in self.started]
        self.out = [out for out, _ in both]
        return [p.returncode for p in self.started], [err for _, err in both]


def workers(folder, recipe, count=2, **what):
    """Commands of processes that train the toy."""
    script = WORKER.format(tests=str(TESTS), recipe=recipe)
    options = [f"{k}={v}" for k, v in what.items()]
    return [[sys.executable, "-c", script, str(folder), *options]] * count


def meeting(theirs="pass", ours="pass", other=1, settings="", resamples=(50, 50)):
    """Commands of processes that meet and do little else."""
    script = MEETING.format(theirs=theirs, ours=ours, other=other, settings=settings)
    return [[sys.executable, "-c", script, str(n)] for n in resamples]


KILLED = -signal.SIGKILL
