import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from mskjax.models.alexnet import AlexNet
from mskjax.models.attention import grad_cam
from mskjax.models.resnet import ResNet
from mskjax.models.spinenet import SpineNetGrader
from mskjax.models.vgg import VGG

HEADS = (("grade", 4), ("other", 2))
MODELS = {
    "vgg": VGG(HEADS, widths=(4, 8), convolutions=(1, 1), hidden=9, pool=(2, 2)),
    "resnet": ResNet(HEADS, width=4, blocks=(1, 1)),
    "alexnet": AlexNet(HEADS, width=4, stem=(3, 1, 1), hidden=9),
    "spinenet": SpineNetGrader(HEADS, width=4, blocks=(1, 1), strides=(1, 2)),
}


class Pooled(nn.Module):
    """Its input is its feature map; global average pooling and a linear head follow."""

    @nn.compact
    def __call__(self, x, train, tap=None):
        self.sow("intermediates", "features", x)
        x = x if tap is None else x + tap
        return {"grade": nn.Dense(3, name="head")(x.mean(tuple(range(1, x.ndim - 1))))}


def inputs(name):
    shape = (2, 3, 32, 40, 1) if name == "spinenet" else (2, 32, 40, 1)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


def by_hand(x, kernel, chosen):
    """Of a linear head on the mean, the weight of a map is its kernel over the number of pixels."""
    pixels = x[0, ..., 0].size
    weights = kernel[:, chosen].T / pixels
    return np.stack([np.maximum(image @ w, 0) for image, w in zip(x, weights, strict=True)])


@jax.jit
def explain_pooled(kernel, x, chosen=None):
    variables = {"params": {"head": {"kernel": kernel, "bias": jnp.zeros(3)}}}
    return grad_cam(Pooled(), variables, [x], "grade", chosen)


@pytest.mark.parametrize("shape", [(5, 4, 6, 7), (3, 2, 4, 5, 7)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("given_class", [False, True])
def test_linear_head_by_hand(shape, given_class):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    logits = x.mean(tuple(range(1, x.ndim - 1))) @ kernel
    chosen = np.arange(len(x)) % 3 if given_class else logits.argmax(-1)
    heat = explain_pooled(kernel, x, chosen if given_class else None)
    assert heat.dtype == jnp.float32
    np.testing.assert_allclose(heat, by_hand(x, kernel, chosen), atol=1e-5)


def test_a_map_that_speaks_against_the_class_stays_zero():
    x = np.ones((2, 3, 3, 1), np.float32)
    kernel = np.array([[1.0, -1.0, 0.0]], np.float32)
    heat = explain_pooled(kernel, x, np.array([0, 1]))
    expected = np.stack([np.full((3, 3), 1 / 9), np.zeros((3, 3))])
    np.testing.assert_allclose(heat, expected, rtol=1e-6)


positive = st.floats(0, 100, width=32)


@settings(max_examples=60)
@given(st.lists(positive, min_size=8, max_size=8), st.lists(positive, min_size=2, max_size=2))
def test_of_averaged_maps_the_places_add_up_to_the_logit(pixels, weights):
    x = np.array(pixels, np.float32).reshape(1, 2, 2, 2)
    kernel = np.array([weights, [0, 0], [0, 0]], np.float32).T
    heat = np.asarray(explain_pooled(kernel, x, np.array([0])))
    assert heat.min() >= 0
    np.testing.assert_allclose(heat.sum(), (x.mean((1, 2)) @ kernel)[0, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_shape_of_the_last_map_and_each_example_its_own(name):
    model, x = MODELS[name], inputs(name)
    variables = init(model, x)
    explain = jax.jit(lambda variables, x: grad_cam(model, variables, [x], "grade"))
    heat = explain(variables, x)
    shape = {
        "vgg": (2, 16, 20),
        "resnet": (2, 4, 5),
        "alexnet": (2, 7, 9),
        "spinenet": (2, 3, 4, 5),
    }
    assert heat.shape == shape[name]
    assert float(heat.min()) >= 0
    assert float(heat.max()) > 0
    alone = explain(variables, x[1:])
    np.testing.assert_allclose(heat[1:], alone, atol=1e-4)


def convolutions(jaxpr):
    """Number of convolutions in a jaxpr and all that it calls."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "conv_general_dilated"
        count += sum(convolutions(inner) for inner in jaxprs_in_params(equation.params))
    return count


@pytest.mark.parametrize("name", MODELS)
def test_the_trunk_is_run_once_and_not_differentiated(name):
    model, x = MODELS[name], inputs(name)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(1), x, train=False))
    forward = jax.make_jaxpr(lambda v: model.apply(v, x, train=False))(variables)
    explained = jax.make_jaxpr(lambda v: grad_cam(model, v, [x], "grade"))(variables)
    assert convolutions(explained.jaxpr) == convolutions(forward.jaxpr) > 0


def test_agrees_with_pytorch_through_hidden_layers():
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    model, x = MODELS["vgg"], inputs("vgg")[:, :, :32]
    variables = init(model, x)
    chosen = np.array([3, 1])
    heat = grad_cam(model, variables, [x], "grade", jnp.asarray(chosen))

    _, state = jax.jit(lambda: model.apply(variables, x, train=False, mutable=["intermediates"]))()
    features = np.array(state["intermediates"]["features"][0])
    maps = torch.from_numpy(np.moveaxis(features, -1, 1).copy()).requires_grad_()
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.nn.functional.max_pool2d(maps, 2), 2)
    y = pooled.permute(0, 2, 3, 1).flatten(1)
    for name in ("fc6", "fc7", "head_grade"):
        layer = variables["params"][name]
        y = y @ torch.from_numpy(np.array(layer["kernel"])) + torch.from_numpy(
            np.array(layer["bias"])
        )
        y = y if name == "head_grade" else torch.relu(y)
    y[[0, 1], chosen].sum().backward()
    weights = maps.grad.mean((2, 3), keepdim=True)
    expected = torch.relu((weights * maps).sum(1)).detach()
    assert float(expected.max()) > 0
    np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-6)


def test_an_unknown_head_is_named():
    with pytest.raises(
        ValueError, match=r"head is 'pfirrmann'; the model has \['grade', 'other'\]"
    ):
        grad_cam(MODELS["vgg"], init(MODELS["vgg"], inputs("vgg")), [inputs("vgg")], "pfirrmann")
