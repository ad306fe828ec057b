"""What of a machine's processor decides on the last bits of a result (docs/reproducibility.md).

Kind, instruction sets, caches and the number of threads: of these XLA, and the libraries that it
calls, choose kernels and the order of sums.  Nothing here names a machine or a person.
"""

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
# Instruction sets that floating point is computed with.
_MATTER = re.compile(
    r"sse4_[12]|avx|avx2|fma|f16c|avx_vnni\w*|avx_ne_convert|avx10\w*|avx512\w*|amx_\w+"
    r"|asimd\w*|neon|fphp|bf16|ebf16|i8mm|sve\w*|sme(\d|_)\w*|sme|AdvSIMD\w*|FEAT_(BF16|I8MM|FP16|FHM|SME\w*)"
)
# Names in /proc/cpuinfo: of x86, and of ARM, which has no model name.
_KIND = {"vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part"}
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def processor() -> dict[str, Any]:
    """The processor that is here.

    Returns:
      ``model`` (name), ``kind`` (numbers of the maker), ``features`` (instruction sets that matter,
      sorted), ``caches`` (bytes of the levels, where known) and ``threads`` that XLA uses.
    """
    if CPUINFO.exists():
        found = of_cpuinfo(CPUINFO.read_text())
    elif platform.system() == "Darwin":
        found = of_sysctl(_sysctl())
    else:
        found = {"model": platform.processor(), "kind": {}, "features": []}
    return {**found, "caches": found.get("caches") or _caches(), "threads": threads()}


def threads() -> int:
    """Threads of XLA on the CPU: ``NPROC`` where it is set, else the cores of this process."""
    if (given := os.environ.get("NPROC", "")).isdigit():
        return int(given)
    with contextlib.suppress(AttributeError):  # Linux alone has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def of_cpuinfo(text: str) -> dict[str, Any]:
    """``model``, ``kind`` and ``features`` of the first core in /proc/cpuinfo."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    features = values.get("flags") or values.get("Features") or ""
    return {
        "model": values.get("model name") or platform.machine(),
        "kind": {name: values[name] for name in sorted(_KIND & values.keys())},
        "features": _that_matter(features.split()),
    }


def of_sysctl(values: Mapping[str, str]) -> dict[str, Any]:
    """As `of_cpuinfo`, with ``caches``, of names and values that sysctl prints on macOS."""
    have = [n.rpartition(".")[2] for n, v in values.items() if "optional" in n and v == "1"]
    have += values.get("machdep.cpu.features", "").lower().replace(".", "_").split()
    have += values.get("machdep.cpu.leaf7_features", "").lower().split()
    sizes = ("hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize")
    return {
        "model": values.get("machdep.cpu.brand_string", platform.machine()),
        "kind": {n: values[n] for n in ("hw.cpufamily", "hw.cpusubfamily") if n in values},
        "features": _that_matter(have),
        "caches": [int(values[name]) for name in sizes if name in values],
    }


def _sysctl() -> dict[str, str]:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["sysctl", "hw", "machdep.cpu"], capture_output=True, text=True, timeout=20, check=False
        )
        pairs = (line.partition(": ") for line in done.stdout.splitlines())
        return {name: value for name, _, value in pairs}
    return {}


def _that_matter(names: list[str]) -> list[str]:
    return sorted({name for name in names if _MATTER.fullmatch(name)})


def _caches() -> list[int]:
    """Bytes of the data caches of a core, first level first, where Linux says so."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for folder in CACHES.glob("index*"):
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
            if kind != "Instruction":
                found[int(level)] = int(size.rstrip("K")) * 1024
    return [found[level] for level in sorted(found)]
