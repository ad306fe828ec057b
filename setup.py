"""What pyproject.toml cannot say: `experiments/` is installed inside the package.

At the top level of site-packages its name would be anybody's.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["mskjax*", "tfds_builders*"]),
        *(f"mskjax.{name}" for name in find_namespace_packages(include=["experiments*"])),
    ],
    package_dir={"mskjax.experiments": "experiments"},
)
