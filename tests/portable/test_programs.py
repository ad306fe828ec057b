"""A program says what the network says, whatever the batch and the size, and names its needs."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from systems.test_disc_degeneration_discs import stage as grader
from training.toy import Toy, ToyOptions, toy_config

from mskjax.config import TrainConfig
from mskjax.errors import UserError
from mskjax.imaging.augment import CropAugmentation
from mskjax.portable import programs
from mskjax.stages.box_detection import BoxDetection, BoxDetectionOptions, DetectorOptions
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    UNetOptions,
)
from mskjax.training.program import prediction
from mskjax.training.stage import Input


def segmentation(norm, dtype):
    options = SliceSegmentationOptions(model=UNetOptions((8, 16, 16), norm, dtype))
    return SliceSegmentation("regions", options, ("bone",), (16, 24), ("t1", "t2"))


def random_weights(stage, **inputs):
    """Weights of `programs.flat`, all of them random: no bias is 0 and no mean is."""
    variables = jax.eval_shape(
        lambda key: stage.model().init(key, *inputs.values(), train=False), jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    return {
        name: np.abs(rng.normal(0.2, 0.1, own.shape)).astype(own.dtype)
        for name, own in programs.flat(variables).items()
    }


def call(made, weights, **inputs):
    """What a process that has only the program's bytes and the weights is told."""
    program = export.deserialize(bytearray(made.content))
    return jax.tree.map(np.asarray, jax.jit(program.call)(weights, inputs))


@pytest.mark.parametrize(("norm", "dtype"), [("batch", "float32"), ("group", "bfloat16")])
def test_a_program_of_any_batch_and_size_says_what_the_network_says(norm, dtype):
    stage = segmentation(norm, dtype)
    assert stage.signature()["image"].shape == "b, 4*h, 4*w, 2"
    weights = random_weights(stage, image=np.zeros((1, 16, 24, 2), np.float32))
    made = programs.make(stage, weights)
    for shape in [(3, 16, 24, 2), (1, 40, 8, 2)]:
        image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        theirs = call(made, weights, image=image)
        ours = jax.jit(lambda v, x: prediction(stage, v, {"image": x}))(
            programs.nested(weights), image
        )
        assert theirs.keys() == ours.keys() == {"probabilities"}
        assert theirs["probabilities"].dtype == np.float16
        assert np.std(theirs["probabilities"]) > 0
        np.testing.assert_array_equal(theirs["probabilities"], ours["probabilities"])
    assert made.facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert made.facts["custom_calls"] == []
    assert made.facts["inputs"]["image"]["layout"] == "batch, rows, columns, channels"
    assert made.facts["outputs"] == {
        "probabilities": {"shape": "b, 4*h, 4*w, 2", "dtype": "float16"}
    }


def test_a_detector_has_the_size_of_its_canvas_and_no_call_of_a_library():
    options = BoxDetectionOptions(
        train=TrainConfig(batch_size=2),
        model=DetectorOptions(widths=(8, 8, 8), channels=8, hidden=8),
        most_boxes=3,
    )
    stage = BoxDetection("boxes", options, (32, 24))
    inputs = {
        "image": np.random.default_rng(1).normal(size=(2, 32, 24, 1)).astype(np.float32),
        "boxes": np.zeros((2, 3, 4), np.float32),
        "labels": np.zeros((2, 3), np.int32),
    }
    shapes = {k: ", ".join(map(str, v.shape)) for k, v in inputs.items()}
    assert {k: own.shape for k, own in stage.signature().items()} == shapes
    weights = random_weights(stage, **inputs)
    made = programs.make(stage, weights)
    assert made.facts["custom_calls"] == []
    theirs = call(made, weights, **inputs)
    ours = jax.jit(lambda v, x: prediction(stage, v, x))(programs.nested(weights), inputs)
    assert theirs["valid"].any()
    for name, values in ours.items():
        np.testing.assert_array_equal(theirs[name], values, err_msg=name)


@pytest.mark.long
def test_a_program_of_a_grader_averages_its_views_itself():
    made = grader(views=3, augmentation=CropAugmentation(flip_slices=0.5))
    weights = random_weights(made, image=np.zeros((1, 3, 8, 16, 1), np.float32))
    program = programs.make(made, weights)
    image = np.random.default_rng(1).normal(size=(4, 3, 8, 16, 1)).astype(np.float32)
    theirs = call(program, weights, image=image)
    ours = jax.jit(lambda v, x: prediction(made, v, {"image": x}))(programs.nested(weights), image)
    np.testing.assert_allclose(theirs["pfirrmann"], ours["pfirrmann"], atol=2e-6)
    assert program.facts["outputs"]["pfirrmann"]["shape"] == "b, 5"
    single = call(programs.make(grader(), weights), weights, image=image)
    assert np.abs(single["pfirrmann"] - theirs["pfirrmann"]).max() > 1e-4


def test_names_of_weights_come_and_go():
    tree = {"params": {"a": {"kernel": np.ones(2)}, "b": np.zeros(3)}, "batch_stats": {"a": 1}}
    weights = programs.flat(tree)
    assert list(weights) == ["params.a.kernel", "params.b", "batch_stats.a"]
    assert programs.nested(weights) == tree


class Solver(nn.Module):
    """A network with an operation that each platform leaves to a library of its own, or lacks."""

    operation: str

    @nn.compact
    def __call__(self, image, train):
        square = jnp.einsum("bi,bj->bij", image, image) + jnp.eye(6)[None]
        if self.operation == "eig":
            return jnp.linalg.eigvals(square).real
        return jnp.linalg.svd(square, compute_uv=False)


@dataclasses.dataclass(frozen=True)
class Solving(Toy):
    operation: str = "svd"

    def model(self):
        return Solver(self.operation)

    def signature(self):
        return {"image": Input("b, 6", "float32", "batch, features", "numbers")}


def test_what_is_left_to_a_library_is_named():
    made = programs.make(Solving("toy", ToyOptions(toy_config()), operation="svd"), {})
    assert any("lapack" in name for name in made.facts["custom_calls"])


def test_an_operation_that_a_platform_lacks_is_a_sentence():
    with pytest.raises(UserError, match=r"stage toy cannot be exported for cpu, cuda, tpu: .*tpu"):
        programs.make(Solving("toy", ToyOptions(toy_config()), operation="eig"), {})


def test_a_stage_that_does_not_say_what_it_is_given_is_a_sentence():
    with pytest.raises(UserError, match=r"add signature\(\) to Toy"):
        programs.make(Toy("toy", ToyOptions(toy_config())), {})
