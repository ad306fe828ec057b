"""Eight forced CPU devices and the shared compilation cache, before jax is imported."""

import os
import sys
import tempfile
from pathlib import Path

flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()
cache = Path(tempfile.gettempdir()) / f"mskjax-test-cache-{os.getuid()}"
cache.mkdir(mode=0o700, exist_ok=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
sys.path.insert(0, str(Path(__file__).parent))
