"""What is predicted of an example is the mean over its views, each computed alone by hand."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems.test_disc_degeneration_discs import STILL, stage
from training.toy import Toy, ToyOptions, toy, toy_config

from mskjax.errors import UserError
from mskjax.evaluation import predict
from mskjax.imaging import views
from mskjax.stages.crop_grading import CropGradingOptions
from mskjax.stages.image_grading import ImageGradingOptions
from mskjax.training.mesh import data_mesh
from mskjax.training.program import Program, prediction

FLIPPING = dataclasses.replace(STILL, flip_slices=0.5)


def crops(count=5):
    return np.random.default_rng(1).normal(size=(count, 3, 8, 16, 1)).astype(np.float32)


def weights(made, image):
    shapes = jax.eval_shape(
        lambda key: made.model().init(key, image, train=False), jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: np.abs(rng.normal(0.1, 0.2, s.shape)).astype(s.dtype), shapes)


def said(made, variables, image):
    """By the jitted function that evaluation runs and that is exported."""
    return jax.jit(lambda v, x: prediction(made.traced(), v, {"image": x}))(variables, image)


@pytest.mark.parametrize("strengths", [pytest.param(STILL, marks=pytest.mark.long), FLIPPING])
def test_probabilities_are_the_mean_over_the_views_and_maps_are_of_the_first(strengths):
    single = stage(augmentation=strengths)
    several = stage(augmentation=strengths, views=4)
    image = crops()
    variables = weights(single, image)
    found, alone = said(several, variables, image), said(single, variables, image)
    shown = [image]
    for k in (1, 2, 3):
        turned = image[:, ::-1] if strengths is FLIPPING and k in (1, 2) else image
        shown.append(np.asarray(views.moved(k, jnp.asarray(turned))))
    for head in ("pfirrmann", "narrowing"):
        by_hand = np.mean([said(single, variables, x)[head] for x in shown], 0)
        np.testing.assert_allclose(found[head], by_hand, atol=1e-6)
        assert np.abs(by_hand - alone[head]).max() > 1e-4
    np.testing.assert_array_equal(found["attention"], alone["attention"])


def test_one_view_is_the_network_itself_to_the_bit():
    made, image = stage(augmentation=FLIPPING), crops()
    variables = weights(made, image)
    assert made.views == 1
    plain = jax.jit(lambda v, x: made.activate(made.model().apply(v, x, train=False)))
    found = said(made, variables, image)
    for head, p in plain(variables, image).items():
        np.testing.assert_array_equal(found[head], p)


@pytest.mark.long
def test_evaluation_averages_views_whatever_the_batch():
    made, image = stage(views=4), crops(7)
    variables = weights(made, image)
    assert made.prediction_batch == 1  # of batches of 6
    found = predict(Program(made, data_mesh(1)), variables, {"image": image})
    expected = said(made, variables, image)
    np.testing.assert_allclose(found["pfirrmann"], expected["pfirrmann"], atol=1e-6)


def test_stages_share_a_program_unless_one_mirrors_its_views():
    weak = dataclasses.replace(FLIPPING, flip_slices=0.1)
    assert (
        stage(views=3, augmentation=FLIPPING).traced() == stage(views=3, augmentation=weak).traced()
    )
    assert stage(views=3, augmentation=FLIPPING).traced() != stage(views=3).traced()
    assert stage(augmentation=FLIPPING).traced() == stage().traced()  # without views
    traced = stage(views=3, augmentation=FLIPPING).traced()
    assert traced.traced() == traced
    assert stage(views=3).cutting() == stage().cutting()  # they are cut alike


@pytest.mark.parametrize("options", [CropGradingOptions, ImageGradingOptions])
def test_a_number_of_views_that_is_none_is_refused(options):
    with pytest.raises(UserError, match="views is 0; it must be at least 1"):
        options(views=0)


class Edges(nn.Module):
    """Says of each feature how much it is above the one before: not symmetric."""

    @nn.compact
    def __call__(self, image, train):
        return image - 0.5 * jnp.roll(image, 1, -1)


@dataclasses.dataclass(frozen=True)
class Mapping(Toy):
    """A stage whose outputs have places, which a view mirrors and `returned` puts back."""

    views = 2

    def model(self):
        return Edges()

    def view(self, number, inputs):
        return {"image": inputs["image"][:, ::-1]}

    def returned(self, number, outputs):
        return {"map": outputs["map"][:, ::-1]} if number else outputs

    def activate(self, outputs):
        return {"map": outputs}


def test_a_map_is_put_back_before_it_is_averaged():
    image = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    found = said(Mapping("toy", ToyOptions(toy_config())), {}, image)["map"]
    before, after = np.roll(image, 1, -1), np.roll(image, -1, -1)
    np.testing.assert_allclose(found, image - 0.25 * (before + after), atol=1e-6)


def test_a_stage_that_declares_views_says_them():
    silent = type("Silent", (Toy,), {"views": 2})("toy", ToyOptions(toy_config()))
    with pytest.raises(NotImplementedError, match="Silent declares views"):
        silent.view(1, {})
    assert toy().views == 1
