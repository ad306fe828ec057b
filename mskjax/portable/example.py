"""Runs each program of an exported model on zeros; needs jax, flatbuffers and safetensors alone.

A copy of this file lies in every export: ``python FOLDER/example.py``.
"""

import json
import math
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file


def run(folder: Path) -> None:
    """Prints what the programs of a folder give for zeros, with the weights of its first fold."""
    model = json.loads((folder / "model.json").read_text())
    fold = model["folds"][0]
    print(f"{model['title']}: {fold['name']} of {len(model['folds'])}")
    for stage in model["stages"]:
        program = export.deserialize(bytearray((folder / stage["program"]).read_bytes()))
        weights = load_file(folder / fold["weights"][stage["name"]])
        inputs = {}
        for name, own in stage["inputs"].items():
            # Of "b, 16*h, 16*w, 1" each letter stands for any length: here 4.
            sides = [side.split("*") for side in own["shape"].split(", ")]
            shape = [math.prod(int(n) if n.isdigit() else 4 for n in side) for side in sides]
            inputs[name] = np.zeros(shape, own["dtype"])
        for name, output in jax.jit(program.call)(weights, inputs).items():
            print(f"  {stage['name']}: {name} {output.dtype}{list(output.shape)}")


if __name__ == "__main__":
    run(Path(__file__).parent)
