"""What a study would cost, before anything is paid: ``python -m mskjax.main --mode=plan``.

No data are needed.  Shapes come from the cohort where it is packaged, else from a handful of
generated patients, whose slices may be smaller or larger than the user's: the table says which.
Nothing is computed on the device unless the training step is compiled, which is done where an
accelerator is present or ``--compile`` asks for it.
"""

import dataclasses
import functools
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mskjax import replicas, systems
from mskjax.config import StudyConfig
from mskjax.data import pipeline
from mskjax.data.cohorts import builder_class, prepare_cohort
from mskjax.data.pipeline import Examples
from mskjax.errors import UserError
from mskjax.models.summary import parameter_count
from mskjax.progress import duration, say
from mskjax.training.costs import Step, compile_and_time, nbytes
from mskjax.training.feed import SHARE_OF_DEVICE
from mskjax.training.mesh import check_batch_size
from mskjax.training.stage import Stage, Study
from mskjax.two_stage.system import System
from mskjax.writers import write_json

PLAN = "plan.json"
SAMPLE = 4  # studies that examples are cut from, to learn their shapes
NOT_COUNTED = (
    "compilation, packaging, cutting examples, validation, checkpoints and evaluation;"
    " in a memory that was not compiled, the compiler's work space"
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """What examples are cut from to learn their shapes.

    Attributes:
      system: built for these studies.
      studies: a handful.
      count: studies of the whole cohort; None where that is not known.
      origin: in words.
    """

    system: System
    studies: Sequence[Study]
    count: int | None
    origin: str


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What one stage costs on a mesh; bytes are those of one device unless it says otherwise.

    Attributes:
      stage: its name.
      parameters: trained scalars.
      state_bytes: weights, their average and the moments of Adam; each device holds all of it.
      gradient_bytes: of the parameters.
      batch_bytes: its share of a batch, as cut and as augmented.
      activation_bytes: what automatic differentiation keeps for the gradient of its share.  The
        compiler keeps less where it fuses, and needs work space beside it, which is not counted.
      example_bytes: training examples of the whole cohort; None where their number is not known.
      resident: whether they are held on the device; None where that is not known.
      flops: of a training step on the whole batch, augmentation and optimiser included, as counted
        before the compiler simplifies.
      steps: of a fold.
      memory_bytes: of the compiled step where it was compiled, else of state, gradient, batch
        and activations; the examples beside it where they are resident.
      compiled: whether the compiler said it.
      fits: whether it is less than the memory of a device; None where that is not known.
      step_s: seconds a step; None where no speed is known.
    """

    stage: str
    parameters: int
    state_bytes: int
    gradient_bytes: int
    batch_bytes: int
    activation_bytes: int
    example_bytes: int | None
    resident: bool | None
    flops: float
    steps: int
    memory_bytes: int
    compiled: bool
    fits: bool | None
    step_s: float | None


def run(
    config: StudyConfig,
    workdir: Path | None = None,
    *,
    memory_gb: float | None = None,
    tflops: float | None = None,
    studies: int | None = None,
    compile: bool | None = None,
) -> dict[str, Any]:
    """Prints a table for each stage; writes ``plan.json`` if a folder is given, else nothing.

    Args:
      config: resolved; ``config.devices`` is the size of the mesh, which need not be present.
      workdir: gets plan.json, which leaves it free for any study.
      memory_gb: of a device, in 1e9 bytes; None takes what an accelerator that is present says.
      tflops: of a device, in 1e12 floating-point operations a second that the step would reach;
        None takes what a compiled step reaches here.
      studies: of the cohort, where it is not packaged.
      compile: the step, to have its memory and to time it; None does so where the mesh is that of
        an accelerator which is present.

    Returns:
      The content of plan.json.

    Raises:
      UserError: the config is wrong, the devices do not divide a batch, or the step is to be
        compiled for devices that are not present.
    """
    systems.load(config.system).check(config)
    devices = config.devices or jax.device_count()
    present = devices <= jax.device_count()
    if compile and not present:
        raise UserError(
            f"--compile: config.devices is {devices}, but {jax.device_count()} are visible; leave"
            " one of the two out."
        )
    if compile is None:
        compile = present and jax.default_backend() != "cpu"
    memory = _memory(memory_gb)
    sample = sample_of(config, studies)
    count = functools.partial(
        cost, sample=sample, devices=devices, memory=memory, tflops=tflops, compiles=compile
    )
    costs = _each(sample, count)
    folds = _folds(config)
    singles = len(list(replicas.of(config, Path()).single()))
    seconds = [c.step_s and c.step_s * c.steps * folds * singles for c in costs]
    content = {
        "system": config.system,
        "variant": config.variant,
        "devices": devices,
        "memory_bytes_of_device": memory,
        "shapes_from": sample.origin,
        "folds": folds,
        "replicas": singles,
        "training_s": None if None in seconds else sum(s for s in seconds if s),
        "not_counted": NOT_COUNTED,
        "stages": {c.stage: dataclasses.asdict(c) for c in costs},
    }
    for text in tables(content):
        say(text)
    if workdir is not None:
        write_json(workdir / PLAN, content)
        say(f"plan: {workdir / PLAN}")
    return content


def _each(sample: Sample, count: Callable[[Stage], StageCost]) -> list[StageCost]:
    """The cost of every stage; stages whose programs and examples are alike are counted once."""
    known: dict[Any, StageCost] = {}
    found = []
    for stage in sample.system.stages:
        examples = _examples(stage, sample.studies)
        shapes = tuple((k, v.shape, str(v.dtype)) for k, v in sorted(examples.items()))
        key = (stage.traced(), shapes, stage.train.batch_size, stage.train.steps)
        if key not in known:
            known[key] = count(stage)
        found.append(dataclasses.replace(known[key], stage=stage.name))
    return found


def sample_of(config: StudyConfig, studies: int | None = None) -> Sample:
    """Studies to learn shapes from: of the packaged cohort, else generated ones.

    Args:
      config: of the study.
      studies: their number in the cohort, where it is not packaged.

    Raises:
      UserError: the cohort is not packaged and its builder generates no patients.
    """
    module, data = systems.load(config.system), config.data
    builders = builder_class(data.cohort).builder_configs
    if data.config in builders and builders[data.config].obtain:
        try:
            cohort = prepare_cohort(data.cohort, data.config, data.data_dir, **data.options)
        except UserError as error:
            say(f"note: {error}")  # not packaged, as a rule
        else:
            found = cohort.studies
            measured = module.build(config).measure(cohort.outlines)
            some = [found[i] for i in range(min(len(found), SAMPLE))]
            system = _fitted(config, measured, some)
            origin = f"the packaged cohort in {data.data_dir}, {len(found)} studies"
            return Sample(system, _labelled(system, found) or some, len(found), origin)
        options: dict[str, Any] = {}
    else:
        options = dict(data.options)
        studies = studies or options.get("patients")
    phantom = next(iter(builders.values()))
    if phantom.kind != "phantom":
        raise UserError(
            f"cohort {data.cohort} has no generated patients to learn shapes from; package it first"
            f" (python -m mskjax.prepare --cohort={data.cohort}/{data.config} --help)."
        )
    with tempfile.TemporaryDirectory() as folder:
        options["patients"] = SAMPLE
        cohort = prepare_cohort(data.cohort, phantom.name, folder, **options)
        some = [cohort.studies[i] for i in range(len(cohort.studies))]
    # Not the system's own `measure`: it may ask for more patients than a handful.
    measured = System.measure(module.build(config), some)
    origin = f"{len(some)} generated patients: your slices may be larger or smaller"
    return Sample(_fitted(config, measured, some), some, studies, origin)


def _fitted(config: StudyConfig, measured: Mapping[str, Any], some: Sequence[Study]) -> System:
    module = systems.load(config.system)
    system = module.build(config, measured)
    return module.build(config, {**measured, **system.fit(some, range(len(some)))})


def _labelled(system: System, studies: Sequence[Study]) -> list[Study]:
    """The first studies that every stage can be trained on."""
    every = (studies[i] for i in range(len(studies)))
    whole = (s for s in every if all(x.training_examples(s) is not None for x in system.stages))
    return list(itertools.islice(whole, SAMPLE))


def cost(
    stage: Stage,
    sample: Sample,
    devices: int,
    *,
    memory: int | None = None,
    tflops: float | None = None,
    compiles: bool = False,
) -> StageCost:
    """What a stage costs, see `StageCost`.

    Args:
      stage: of the sample's system.
      sample: see `sample_of`.
      devices: on the mesh.
      memory: bytes of a device.
      tflops: of a device.
      compiles: the training step on the devices that are present, and times it.

    Raises:
      UserError: the devices do not divide a batch, or no study of the sample has an example.
    """
    size = stage.train.batch_size
    check_batch_size(size, devices, f"config.stages.{stage.name}.train.batch_size")
    examples = _examples(stage, sample.studies)
    step, part = Step.of(stage, examples, size), Step.of(stage, examples, size // devices)
    state, params = part.state, part.state.variables["params"]
    gradient = nbytes(params)
    room = _example_bytes(examples, sample)
    resident = room <= SHARE_OF_DEVICE * memory if room is not None and memory else None
    kept = part.activation_bytes()
    batch = nbytes(part.batch) + nbytes(part.view)
    needed = nbytes(state) + gradient + batch + kept
    found, seconds = compile_and_time(step, devices) if compiles else (None, None)
    total = (needed if found is None else found) + (room if resident and room else 0)
    flops = step.flops()
    if tflops is not None:
        seconds = flops / (devices * tflops * 1e12)
    return StageCost(
        stage=stage.name,
        parameters=int(parameter_count(params)),
        state_bytes=nbytes(state),
        gradient_bytes=gradient,
        batch_bytes=batch,
        activation_bytes=kept,
        example_bytes=room,
        resident=resident,
        flops=flops,
        steps=stage.train.steps,
        memory_bytes=total,
        compiled=found is not None,
        fits=None if memory is None else total <= memory,
        step_s=seconds,
    )


def tables(content: Mapping[str, Any]) -> list[str]:
    """Aligned plain text: a head, a table for each stage, and what it comes to.

    Stages that cost the same stand in one table.

    Args:
      content: of plan.json.
    """
    alike: dict[str, list[str]] = {}
    for name, found in content["stages"].items():
        key = json.dumps({k: v for k, v in found.items() if k not in ("stage", "step_s")})
        alike.setdefault(key, []).append(name)
    devices, folds = content["devices"], content["folds"]
    parts = [
        f"{content['system']}:{content['variant']} on {devices} device(s), {folds} fold(s);"
        f" shapes of {content['shapes_from']}"
    ]
    for names in alike.values():
        rows = _rows(content["stages"][names[0]], content["memory_bytes_of_device"])
        width = max(len(name) for name, _ in rows)
        title = names[0] if len(names) == 1 else f"each of {', '.join(names)}"
        parts.append("\n".join([f"stage {title}", *(f"  {n:{width}}  {t}" for n, t in rows)]))
    if content["training_s"] is not None:
        each = f", {content['replicas']} seeds or members" if content["replicas"] > 1 else ""
        what = f"all stages and folds{each}"
        parts.append(f"training, {what}: {duration(content['training_s'])}")
    parts.append(f"not counted: {content['not_counted']}")
    return parts


def _rows(found: Mapping[str, Any], memory: int | None) -> list[tuple[str, str]]:
    how = "compiled" if found["compiled"] else "the sum; see what is not counted"
    fits = {None: "", True: "; fits", False: "; DOES NOT FIT"}[found["fits"]]
    of = f" of {_size(memory)}" if memory else ""
    rows = [
        ("parameters", f"{found['parameters']:,}"),
        ("state", f"{_size(found['state_bytes'])} a device (weights, average, Adam)"),
        ("gradient", f"{_size(found['gradient_bytes'])} a device"),
        ("batch", f"{_size(found['batch_bytes'])} a device, as cut and as augmented"),
        ("activations", f"{_size(found['activation_bytes'])} a device, kept for the gradient"),
        ("examples", _about_examples(found)),
        ("memory", f"{_size(found['memory_bytes'])}{of} a device ({how}){fits}"),
        ("FLOPs", f"{_scaled(found['flops'])} a step of the whole batch"),
        ("steps", f"{found['steps']:,} a fold"),
    ]
    if found["step_s"] is None:
        return [*rows, ("time", "not known; give --tflops, or --compile to measure it here")]
    per_fold = duration(found["step_s"] * found["steps"])
    return [*rows, ("time", f"{found['step_s'] * 1e3:.3g} ms a step, {per_fold} a fold")]


def _about_examples(found: Mapping[str, Any]) -> str:
    if found["example_bytes"] is None:
        return "their number is not known; give --studies"
    where = {None: "", True: ", resident on each device", False: ", streamed from the host"}
    return f"{_size(found['example_bytes'])} of the whole cohort{where[found['resident']]}"


def _size(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"


def _scaled(number: float) -> str:
    """With the prefix that leaves one to three digits before the point."""
    power = int(min(max(math.log10(max(number, 1)) // 3, 0), 5))
    return f"{number / 1e3**power:.3g} {' kMGTP'[power]}".strip()


def _examples(stage: Stage, studies: Sequence[Study]) -> Examples:
    parts = [found for s in studies if (found := stage.training_examples(s)) is not None]
    for part in parts:
        part.pop("case", None)
    if not sum(map(pipeline.count, parts)):
        raise UserError(f"none of {len(studies)} studies has a training example of {stage.name}.")
    return pipeline.concatenate(parts)


def _example_bytes(examples: Examples, sample: Sample) -> int | None:
    """Of the whole cohort, at the sample's mean number of examples a study."""
    if sample.count is None:
        return None
    return round(sum(v.nbytes for v in examples.values()) / len(sample.studies) * sample.count)


def _memory(memory_gb: float | None) -> int | None:
    if memory_gb is not None:
        return int(memory_gb * 1e9)
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


def _folds(config: StudyConfig) -> int:
    data = config.data
    if data.splits is not None:
        try:
            return len(json.loads(Path(data.splits).read_text())["folds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"config.data.splits: {data.splits} cannot be read ({error})."
            ) from None
    return {"folds": data.folds, "folds_and_official": data.folds + 1}.get(data.split, 1)
