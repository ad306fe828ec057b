"""Studies a minute and peak memory of reading new studies, of every system.

    python experiments/benchmarks/predict.py [--members=5] [--studies=6] [SYSTEM[:VARIANT] ...]

By default every system at the size of its ``phantom`` variant and at published size (``cohort``).
Networks have random weights, which take as long as trained ones; so that as many regions are graded
as there are, graders get the reference regions.  Images are generated ones of phantom size.  Each
line is a process of its own: first study apart, since it compiles; then the others, from images in
memory to label map, grades and picture.  Not counted: start of the process, files, and
the picture of a system that grades nothing.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from mskjax import commands

SYSTEMS = (
    "disc_degeneration",
    "fatty_infiltration",
    "vertebral_fracture",
    "shoulder_bones",
    "modic_changes",
)


def main() -> None:
    """Measures each in a process of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--studies", type=int, default=4)
    parser.add_argument("--one", help="internal: measures this one here")
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(measured(flags.one, flags.members, flags.studies)))
        return
    wanted = flags.systems or [f"{n}:{v}" for n in SYSTEMS for v in ("phantom", "cohort")]
    print("| networks | first study, s | studies a minute | peak memory, GB |\n|---|---|---|---|")
    for name in wanted:
        own = [f"--one={name}", f"--members={flags.members}", f"--studies={flags.studies}"]
        done = subprocess.run(
            [sys.executable, __file__, *own], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"| `{name}` | failed: {done.stderr.strip().splitlines()[-1]} | | |", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        rate = f"{found['per_minute']:.3g}"
        print(
            f"| `{name}` | {found['first_s']:.1f} | {rate} | {found['peak_gb']:.1f} |", flush=True
        )
    print(f"\n{flags.members} training(s) together, {flags.studies} studies; {platform.machine()}")


def measured(name: str, members: int, studies: int) -> dict[str, Any]:
    """First study, rate of the others, peak memory of this process."""
    system_name, _, variant = name.partition(":")
    commands.configure_runtime()
    import jax

    from mskjax import experiment, fields, systems
    from mskjax.config import StudyConfig, parse
    from mskjax.data.cohorts import prepare_cohort
    from mskjax.evaluation import predict
    from mskjax.training.mesh import data_mesh
    from mskjax.training.program import Program
    from mskjax.two_stage.system import System, predict_parts

    spec = system_name if variant in ("", "phantom") else f"{system_name}:{variant}"
    config = parse(StudyConfig, fields.completed(experiment.load(spec)).to_dict())
    module = systems.load(system_name)
    with tempfile.TemporaryDirectory() as folder:
        cohort = prepare_cohort(system_name, "phantom", folder, patients=studies + 1)
        some = [cohort.studies[i] for i in range(studies + 1)]
        # Not the system's own: it refuses cohorts as small as this.
        measures = System.measure(module.build(config), cohort.outlines)
    system = module.build(config, {**measures, **module.build(config, measures).fit(some, [0])})
    mesh = data_mesh(1)
    programs = {stage.name: Program(stage, mesh) for stage in system.stages}
    first = system.stages[0]
    weights: dict[str, Any] = {}

    def run(stage: str, examples: Any, /, *, untrained: bool = False) -> Any:
        if stage not in weights:
            inputs = [examples[n][:1] for n in programs[stage].stage.inputs]
            init = jax.jit(programs[stage].stage.model().init, static_argnames="train")
            weights[stage] = init(jax.random.key(0), *inputs, train=False)
        outputs = [predict(programs[stage], weights[stage], examples) for _ in range(members)]
        return programs[stage].stage.combine(outputs)

    def read(study: Any) -> None:
        (outputs,) = predict_parts(run, first.name, [first.inference_examples(study)])
        first.decode(study, outputs)
        (reading,) = system.read([study], run, "reference")
        if system.gradings:
            system.picture(study, reading, None, True)

    started = time.perf_counter()
    read(some[0])
    first_s = time.perf_counter() - started
    started = time.perf_counter()
    for study in some[1:]:
        read(study)
    seconds = (time.perf_counter() - started) / studies
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"first_s": first_s, "per_minute": 60 / seconds, "peak_gb": peak}


if __name__ == "__main__":
    main()
