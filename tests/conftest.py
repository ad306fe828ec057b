"""Settings of jax for all tests: what our code promotes or broadcasts, it says.

Eight CPU devices, quick compilation and the shared cache of programs are asked for before jax is
imported.  Ranks are never promoted, in the commands that tests start either.  Types are never
promoted implicitly in this process; the commands of a process of their own have no such setting,
because of `LENIENT`.
Warnings are errors (pyproject.toml).
"""

import functools
import os
import sys
import tempfile
from pathlib import Path

flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    flags += " --xla_force_host_platform_device_count=8"
if "xla_backend_optimization_level" not in flags:
    # Of 3, the default, a random draw takes 1.5 s to compile, of 2 a tenth; most tests compile more
    # than they compute.
    flags += " --xla_backend_optimization_level=2"
os.environ["XLA_FLAGS"] = flags.strip()
cache = Path(tempfile.gettempdir()) / f"mskjax-test-cache-{os.getuid()}"
cache.mkdir(mode=0o700, exist_ok=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Small cohorts are packaged sooner than workers start, and tests replace readers in this process.
os.environ.setdefault("MSKJAX_WORKERS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import flax.linen.normalization  # noqa: E402
import hypothesis  # noqa: E402
import jax  # noqa: E402
import optax  # noqa: E402
import pytest  # noqa: E402

# Functions of libraries that promote types implicitly, every time that we call them.
LENIENT = (
    # Adam: decay ** count is a float by an int32 (optax/tree_utils/_tree_math.py).
    (optax.tree, "bias_correction"),
    # Norms of bfloat16: their statistics are float32 (flax/linen/normalization.py).
    (flax.linen.normalization, "_compute_stats"),
    (flax.linen.normalization, "_normalize"),
)


def _leniently(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return call


# A first example compiles, and two workers share two cores: time says nothing about an example.
hypothesis.settings.register_profile("mskjax", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("mskjax")

jax.config.update("jax_numpy_dtype_promotion", "strict")
for library, name in LENIENT:
    setattr(library, name, _leniently(getattr(library, name)))


def pytest_collection_modifyitems(items):
    """Whole systems have minutes: a machine may be several times slower than ours."""
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))
