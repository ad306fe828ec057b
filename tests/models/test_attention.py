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
    heat = np.stack([np.maximum(image @ w, 0) for image, w in zip(x, weights, strict=True)])
    highest = heat.max(tuple(range(1, heat.ndim)), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


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
    np.testing.assert_array_equal(heat, np.stack([np.ones((3, 3)), np.zeros((3, 3))]))


finite = st.floats(-(2.0**60), 2.0**60, width=32)


@settings(max_examples=60)
@given(st.lists(finite, min_size=8, max_size=8), st.lists(finite, min_size=6, max_size=6))
def test_values_lie_between_0_and_1(pixels, weights):
    x = np.array(pixels, np.float32).reshape(1, 2, 2, 2)
    heat = np.asarray(explain_pooled(np.array(weights, np.float32).reshape(2, 3), x))
    assert 0 <= heat.min() <= heat.max() <= 1
    assert heat.max() in (0, pytest.approx(1, abs=1e-6))


@pytest.mark.parametrize("name", MODELS)
def test_shape_of_the_last_map_and_one_highest_point(name):
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
    highest = np.asarray(heat).reshape(2, -1).max(1)
    np.testing.assert_allclose(highest, np.round(highest), atol=1e-6)
    assert highest.max() > 0
    # Each example's map is its own.
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
    expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-30)
    assert float(expected.max()) == 1
    np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_an_unknown_head_is_named():
    with pytest.raises(
        ValueError, match=r"head is 'pfirrmann'; the model has \['grade', 'other'\]"
    ):
        grad_cam(MODELS["vgg"], init(MODELS["vgg"], inputs("vgg")), [inputs("vgg")], "pfirrmann")
