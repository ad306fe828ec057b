import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.resnet import Bottleneck, ResNet
from mskjax.models.summary import parameter_count

HEADS = (("malignant", 2), ("kind", 3))
TINY = ResNet(HEADS, width=8, blocks=(1, 2))


def images(channels=1, rows=32, columns=41):
    values = np.random.default_rng(0).normal(size=(2, rows, columns, channels))
    return jnp.asarray(values, jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(model, variables, x, train=False):
    return model.apply(variables, x, train=train, mutable=["batch_stats", "intermediates"])


def test_parameter_count_of_the_published_network():
    model = ResNet((("imagenet", 1000),))
    x = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    assert parameter_count(variables["params"]) == 25_557_032


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_head_per_grading(norm):
    model = TINY.clone(norm=norm)
    with jax.numpy_dtype_promotion("strict"):
        logits, _ = apply(model, init(model, images()), images())
    assert {name: (v.shape, v.dtype) for name, v in logits.items()} == {
        "malignant": ((2, 2), jnp.float32),
        "kind": ((2, 3), jnp.float32),
    }


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bfloat16_keeps_float32_parameters_and_logits(norm):
    model = TINY.clone(norm=norm, dtype=jnp.bfloat16)
    variables = init(model, images())
    logits, _ = apply(model, variables, images())
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves((logits, variables)))
    exact, _ = apply(model.clone(dtype=jnp.float32), variables, images())
    for name in exact:
        np.testing.assert_allclose(logits[name], exact[name], atol=0.1)


def test_mixing_takes_the_channels_to_three():
    model = TINY.clone(mix=True)
    x = images(channels=6)
    variables = init(model, x)
    params = variables["params"]
    assert params["mix"]["kernel"].shape == (6, 3)
    assert params["stem"]["kernel"].shape == (7, 7, 3, 8)
    mixed = x @ params["mix"]["kernel"] + params["mix"]["bias"][None, None, None]
    ours, plain = apply(model, variables, x)[0], apply(TINY, variables, mixed)[0]
    np.testing.assert_allclose(ours["kind"], plain["kind"], atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("stride_in_first", [False, True])
def test_the_bottleneck_agrees_with_pytorch(stride_in_first, train):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    nn = torch.nn
    block = Bottleneck(4, 2, stride_in_first)
    x = np.random.default_rng(0).normal(size=(2, 9, 12, 6)).astype(np.float32)
    variables = init(block, jnp.asarray(x))
    params = variables["params"]
    strides = (2, 1) if stride_in_first else (1, 2)

    def conv(name, **options):
        kernel = np.array(params[name]["kernel"])
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], bias=False, **options)
        layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        return nn.Sequential(layer, nn.BatchNorm2d(kernel.shape[3]))

    body = nn.Sequential(
        *(conv("conv_1", stride=strides[0]), nn.ReLU()),
        *(conv("conv_2", stride=strides[1], padding=1), nn.ReLU()),
        conv("conv_3"),
    ).train(train)
    shortcut = conv("shortcut", stride=2).train(train)
    with torch.no_grad():
        image = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
        expected = torch.relu(body(image) + shortcut(image))
    ours, _ = apply(block, variables, jnp.asarray(x), train)
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), expected, atol=1e-4)


def test_kernels_start_with_fan_out_scaling():
    params = init(ResNet(HEADS, width=32, blocks=(1,)), images())["params"]
    block = params["group_0_block_0"]
    for kernel, fan_out in (
        (params["stem"]["kernel"], 49 * 32),
        (block["conv_2"]["kernel"], 9 * 32),
        (block["conv_3"]["kernel"], 128),
    ):
        assert float(kernel.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert float(block["norm_3"]["scale"].min()) == 1


def test_the_last_map_is_sown_and_tapped():
    variables = init(TINY, images())
    assert set(variables) == {"params", "batch_stats"}
    _, state = apply(TINY, variables, images())
    (features,) = state["intermediates"]["features"]
    assert features.shape == (2, 4, 6, 64)
    tapped = jax.jit(lambda tap: TINY.apply(variables, images(), train=False, tap=tap))(-features)
    for name, classes in HEADS:
        # Only the bias is left, which starts at zero.
        np.testing.assert_allclose(tapped[name], np.zeros((2, classes)), atol=1e-5)
