"""Which operations give other bits on another CPU, or with other threads or flags, and the drift.

    python experiments/benchmarks/reproducibility.py
    python experiments/benchmarks/reproducibility.py --emulate Haswell SandyBridge EPYC-Rome

Every operation runs on the same numbers in a process per setting: once more as it is, with the
instruction set of compiled code capped, with fewer and more threads, and without the flag that
`mskjax.commands` sets (YNN, a library of products and sums).  What another processor would do, with
all that libraries choose at run time by its features and the sizes of its caches, is seen under
``qemu-x86_64`` (Debian's qemu-user), which computes to the bit what the standard of floating point
defines; approximate instructions (of rsqrt) have other values there than on the chip.  A cell says
``same``, or the largest difference from the first setting by the largest magnitude of the output.
Below the table: the loss of a tiny U-Net over its steps, from the same start, by setting.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import numpy as np

# Of `mskjax.commands`.
FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
NO_FLAG = "--xla_cpu_use_onednn=false"  # which is the default
# The variables of a setting, beside `FLAG`; NPROC is what XLA takes for the number of threads.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "again": {},
    "AVX2 code": {"XLA_FLAGS": f"{FLAG} --xla_cpu_max_isa=AVX2"},
    "AVX code": {"XLA_FLAGS": f"{FLAG} --xla_cpu_max_isa=AVX"},
    "SSE4.2 code": {"XLA_FLAGS": f"{FLAG} --xla_cpu_max_isa=SSE4_2"},
    "1 thread": {"NPROC": "1"},
    "8 threads": {"NPROC": "8"},
    "without YNN": {"XLA_FLAGS": NO_FLAG},
    "that, 1 thread": {"XLA_FLAGS": NO_FLAG, "NPROC": "1"},
}
STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
LOSS = "loss"  # name of the losses of a training among the outputs


def main() -> None:
    """Parses the flags and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--emulate", nargs="*", default=[], help="processors, as QEMU names them")
    parser.add_argument("--steps", type=int, default=200, help="of the training; 0: none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        np.savez(flags.child, **outputs(flags.steps))  # type: ignore[arg-type]
        return
    found = {name: _run(variables, flags.steps) for name, variables in SETTINGS.items()}
    for model in flags.emulate:
        found[model] = _run({}, min(flags.steps, 20), model)
    import jax

    from mskjax.reporting.processor import processor

    here = processor()
    print(f"jax {jax.__version__}, {here['model']}, {here['threads']} threads\n")
    print(table(found))
    if flags.steps:
        print("\n" + drift(found))


def _run(variables: Mapping[str, str], steps: int, model: str = "") -> dict[str, np.ndarray]:
    """The outputs of all operations, of a process of its own.

    Args:
      variables: of the environment.
      steps: of the training.
      model: of an emulated processor; empty for the one that is here.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outputs.npz"
        command = [
            os.path.realpath(sys.executable),
            __file__,
            f"--child={file}",
            f"--steps={steps}",
        ]
        if model:
            emulator = shutil.which("qemu-x86_64")
            if emulator is None:
                raise SystemExit("--emulate needs qemu-x86_64; install qemu-user.")
            command = [emulator, "-cpu", model, *command]
        environment = {**os.environ, "XLA_FLAGS": FLAG, "JAX_PLATFORMS": "cpu", **variables}
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        with np.load(file) as stored:
            return dict(stored)


def table(found: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Every operation against the first setting, as a table of Markdown."""
    first, *others = found
    lines = [f"| operation | {' | '.join(others)} |", "|---" * (len(others) + 1) + "|"]
    for name, value in found[first].items():
        if name != LOSS:
            cells = [difference(value, found[other][name]) for other in others]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def drift(found: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """The losses of the training, as a table of Markdown."""
    most = max(len(own[LOSS]) for own in found.values())
    steps = [s for s in STEPS if s <= most]
    lines = [f"| loss at step | {' | '.join(map(str, steps))} |", "|---" * (len(steps) + 1) + "|"]
    for name, own in found.items():
        cells = [f"{own[LOSS][s - 1]:.7f}" if s <= len(own[LOSS]) else "" for s in steps]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """``same`` to the bit, or the largest difference by the largest magnitude."""
    if one.tobytes() == other.tobytes():
        return "same"
    one, other = one.astype(np.float64), other.astype(np.float64)
    return f"{np.abs(one - other).max() / np.abs(one).max():.0e}"


def outputs(steps: int) -> dict[str, np.ndarray]:
    """The output of every operation, and the losses of a training.

    Args:
      steps: of the training.
    """
    import jax
    import jax.numpy as jnp

    found = {}
    for name, (function, inputs) in operations().items():
        value = jax.jit(function)(*inputs)
        if value.dtype == jnp.bfloat16:
            value = value.astype(jnp.float32)
        found[name] = np.asarray(value)
    if steps:
        found[LOSS] = losses(steps)
    return found


def operations() -> dict[str, tuple[Callable[..., Any], Sequence[Any]]]:
    """Name -> function and inputs; shapes are those of the default studies' networks."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def conv(x: Any, w: Any) -> Any:
        letters = "DHW"[-(x.ndim - 2) :]
        dimensions = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        return jax.lax.conv_general_dilated(
            x, w, (1,) * len(letters), "SAME", dimension_numbers=dimensions
        )

    def gradient(number: int) -> Callable[..., Any]:
        return jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), number)

    def half(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *inputs: function(*(x.astype(jnp.bfloat16) for x in inputs))

    def batch_norm(x: Any) -> Any:
        mean, square = x.mean((0, 1, 2)), (x**2).mean((0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(square - mean**2 + 1e-5)

    def group_norm(x: Any) -> Any:
        groups = x.reshape(8, 64 * 48, 4, 4)
        mean, square = groups.mean((1, 3)), (groups**2).mean((1, 3))
        scale = jax.lax.rsqrt(square - mean**2 + 1e-5)
        return (groups - mean[:, None, :, None]) * scale[:, None, :, None]

    def adam(w: Any, g: Any) -> Any:
        rule = optax.adam(1e-3)
        updates, _ = rule.update(g, rule.init(w))
        return optax.apply_updates(w, updates)

    def key(draw: Callable[..., Any]) -> Callable[..., Any]:
        return lambda seed: draw(jax.random.key(seed), (1000,))

    def probabilities(x: Any) -> Any:
        return jax.nn.softmax(net.apply(weights, x, False))

    net, weights = network()
    image, kernel = normal(8, 64, 48, 16), normal(3, 3, 16, 16)
    volume, kernel3 = normal(4, 3, 16, 32, 8), normal(3, 3, 3, 8, 8)
    row, positive = normal(100_000), np.abs(normal(100_000)) + np.float32(0.1)
    a, b, seed = normal(64, 1000), normal(1000, 96), [np.uint32(0)]
    return {
        "a * b + c": (lambda x, y: x * y + 0.1, [row, positive]),
        "a / b": (lambda x, y: x / y, [row, positive]),
        "sqrt": (jnp.sqrt, [positive]),
        "rsqrt": (jax.lax.rsqrt, [positive]),
        "exp": (jnp.exp, [row]),
        "log": (jnp.log, [positive]),
        "tanh": (jnp.tanh, [row]),
        "sigmoid": (jax.nn.sigmoid, [row]),
        "erf": (jax.lax.erf, [row]),
        "power": (lambda x: x**0.7, [positive]),
        "sin": (jnp.sin, [row]),
        "float32 to bfloat16": (lambda x: x.astype(jnp.bfloat16), [row]),
        "random bits": (key(lambda k, s: jax.random.bits(k, s)), seed),
        "random uniform": (key(jax.random.uniform), seed),
        "random normal": (key(jax.random.normal), seed),
        "sum of all": (jnp.sum, [image]),
        "sum of last axis": (lambda x: x.sum(-1), [a]),
        "sum of leading axes": (lambda x: x.sum((0, 1, 2)), [image]),
        "cumulative sum": (lambda x: jnp.cumsum(x, 1), [a]),
        "max pool": (
            lambda x: jax.lax.reduce_window(
                x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
            ),
            [image],
        ),
        "scatter add": (
            lambda x: jax.ops.segment_sum(x, jnp.arange(x.shape[0]) % 7, 7),
            [row],
        ),
        "softmax": (jax.nn.softmax, [a]),
        "log softmax": (jax.nn.log_softmax, [a]),
        "batch norm": (batch_norm, [image]),
        "group norm": (group_norm, [image]),
        "linear resize": (
            lambda x: jax.image.resize(x, (8, 100, 70, 16), "linear", antialias=False),
            [image],
        ),
        "dot": (jnp.dot, [a, b]),
        "dot with a vector": (jnp.dot, [a, normal(1000)]),
        "dot of two columns": (jnp.dot, [normal(8, 48, 32, 8), normal(8, 2)]),
        "dot, bfloat16": (half(jnp.dot), [a, b]),
        "conv 2-D": (conv, [image, kernel]),
        "conv 2-D, by input": (gradient(0), [image, kernel]),
        "conv 2-D, by kernel": (gradient(1), [image, kernel]),
        "conv 2-D, bfloat16": (half(conv), [image, kernel]),
        "conv 2-D, one channel": (conv, [image[..., :1], kernel[:, :, :1]]),
        "conv 3-D": (conv, [volume, kernel3]),
        "conv 3-D, by kernel": (gradient(1), [volume, kernel3]),
        "Adam": (adam, [normal(1000), normal(1000)]),
        "U-Net, probabilities": (probabilities, [normal(8, 48, 32, 1)]),
    }


def network() -> tuple[Any, Any]:
    """A small U-Net, and weights that are drawn by NumPy: the same to the bit everywhere."""
    import jax
    import jax.numpy as jnp

    from mskjax.models.unet import UNet

    net = UNet(classes=2, widths=(8, 16), norm="group")
    like = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((8, 48, 32, 1)), False)
    rng = np.random.default_rng(2)

    def drawn(leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:  # scales and biases
            return np.full(leaf.shape, 0.5, np.float32)
        sd = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (sd * rng.normal(size=leaf.shape)).astype(np.float32)

    return net, jax.tree.map(drawn, like)


def losses(steps: int) -> np.ndarray:
    """(steps,) float32 losses of a small U-Net that learns where the sum above is positive."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(1)
    images = rng.normal(size=(64, 48, 32, 1)).astype(np.float32)
    labels = (np.cumsum(images, 1)[..., 0] > 0).astype(np.int32)
    (net, weights), rule = network(), optax.adam(3e-3)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logits = net.apply(weights, x, False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(weights: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(weights, x, y)
        updates, state = rule.update(grads, state)
        return optax.apply_updates(weights, updates), state, value

    weights = jax.tree.map(jnp.asarray, weights)
    state, found = rule.init(weights), []
    for number in range(steps):
        rows = slice(8 * (number % 8), 8 * (number % 8) + 8)
        weights, state, value = step(weights, state, images[rows], labels[rows])
        found.append(value)
    return np.array(found, np.float32)


if __name__ == "__main__":
    main()
