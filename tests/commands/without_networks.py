"""Reads studies with an export in a process that has no network and none of what trains them.

``python -m tests.commands.without_networks FOLDER FOLD STUDIES RESULT``: a pickle of studies in, a
pickle of what is said of them out.
"""

import dataclasses
import pickle
import sys
from pathlib import Path

REFUSED = ("mskjax.models", "mskjax.evaluation", "flax", "optax", "orbax", "clu", "grain")


class Refuses:
    """An import hook that knows of no module in `REFUSED`."""

    def find_spec(self, name, path=None, target=None):
        if is_refused(name):
            raise ImportError(f"{name} is not to be had here")


def is_refused(module):
    return any(module == name or module.startswith(f"{name}.") for name in REFUSED)


def said(fold, studies):
    """All that a fold says of studies on its own regions, and on reference regions."""
    outputs = []

    def predict(name, examples, untrained=False):
        found = fold.predict(name, examples, untrained=untrained)
        outputs.append((name, found))
        return found

    watched = dataclasses.replace(fold, predict=predict)
    readings = watched.read(studies)
    pairs = list(zip(studies, readings, strict=True))
    return {
        "readings": readings,
        "oracle": watched.read(studies, "reference"),
        "outputs": outputs,
        "columns": [fold.system.columns(*pair) for pair in pairs],
        "pictures": [fold.system.picture(*pair, None, False) for pair in pairs],
    }


def main(folder, name, studies, result):
    sys.meta_path.insert(0, Refuses())
    from mskjax.portable import reading

    (fold,) = reading.load(Path(folder), [name])
    content = said(fold, pickle.loads(Path(studies).read_bytes()))
    assert not [module for module in sys.modules if is_refused(module)]
    Path(result).write_bytes(pickle.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
