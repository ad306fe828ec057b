"""The peer in a process of its own, so that the thread pools of torch and XLA do not fight.

`Peer` is the parent's side and imports no torch; run as a script this file is the child.  Both
speak JSON, a line a request: ``prepare``, ``step``, ``train``, ``forget``, ``environment``.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from speed_turns import check_there

VARIANTS = tuple((f, fused) for f in ("contiguous", "channels_last") for fused in (False, True))


class Peer:
    """A child that runs torch; a context manager.

    Args:
      threads: of torch.

    Raises:
      UserError: torch is not installed.
    """

    def __init__(self, threads: int) -> None:
        check_there("torch")
        own = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **own},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._child.communicate()

    def ask(self, do: str, **more: Any) -> Any:
        """What the child answers.

        Raises:
          RuntimeError: it has failed; its traceback is on stderr.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer ended at {do}; its own message is above")
        return json.loads(answer)

    def prepare(self, spec: Mapping[str, Any], variant: tuple[str, bool]) -> int:
        """Makes a network ready, in place of the one before; its number of parameters."""
        return int(self.ask("prepare", spec=spec, layout=variant[0], fused=variant[1]))

    def seconds(self, what: str, count: int) -> float:
        """See `speed_torch_steps.Session.seconds`."""
        return float(self.ask("step", what=what, count=count))

    def fastest(self, spec: Mapping[str, Any], whats: tuple[str, ...]) -> dict[str, Any]:
        """The variant that is fastest at each thing, of one warm and two timed steps each."""
        best: dict[str, Any] = {}
        for variant in VARIANTS:
            self.prepare(spec, variant)
            for what in whats:
                if variant[1] and what == "inference":
                    continue  # the optimiser has no part in it
                self.seconds(what, 1)
                took = min(self.seconds(what, 1) for _ in range(2))
                if what not in best or took < best[what][0]:
                    best[what] = (took, variant)
        return {what: variant for what, (_, variant) in best.items()}


def named(variant: tuple[str, bool]) -> str:
    """A variant in words."""
    return f"torch, {variant[0]}{', fused AdamW' if variant[1] else ''}"


def serve(threads: int) -> None:
    """The child: answers until its input ends."""
    # Whatever a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import speed_torch_steps
    import torch

    torch.set_num_threads(threads)
    session: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        answer: Any = None
        if do == "prepare":
            session = None  # or two are in memory
            session = speed_torch_steps.Session(**request)
            answer = session.parameters
        elif do == "step":
            answer = session.seconds(**request)
        elif do == "train":
            import numpy as np

            with np.load(request.pop("path")) as examples:
                answer = speed_torch_steps.trained(session, dict(examples), **request)
        elif do == "environment":
            answer = {"torch": torch.__version__, "threads": torch.get_num_threads()}
            answer["cuda"] = torch.cuda.is_available()
        else:
            session = None
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serve(int(sys.argv[1]))
