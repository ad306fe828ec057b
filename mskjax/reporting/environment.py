"""What a run ran on: versions, processor, devices, commit; no machine's and no person's name."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import jax

from mskjax.reporting.processor import processor

PACKAGES = (
    "mskjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "grain",
    "clu",
    "ml-collections",
    "nibabel",
    "SimpleITK",
    "pydicom",
    "numpy",
    "scipy",
    "matplotlib",
)
# Beside XLA_FLAGS, what decides on threads and on the precision of products.
VARIABLES = (
    "JAX_DEFAULT_MATMUL_PRECISION",
    "LIBTPU_INIT_ARGS",
    "NPROC",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
)


def environment() -> dict[str, Any]:
    """Versions, processor, devices, flags and the git commit (``None`` outside a checkout)."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "cpu": processor(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [d.device_kind for d in devices],
        "backend": devices[0].platform,
        "processes": jax.process_count(),
        "xla_flags": _without_paths(os.environ.get("XLA_FLAGS", "")),
        "variables": {
            name: _without_paths(os.environ[name]) for name in VARIABLES if name in os.environ
        },
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _without_paths(flags: str) -> str:
    """Flags without the values that are paths: they say who works where, and change no result."""
    return re.sub(r"=\S*/\S*", "=PATH", flags)


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
