"""The 3-D U-Net: its schedule through plane, its shapes, and PyTorch's figures for its weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.summary import parameter_count
from mskjax.models.unet import UNet
from mskjax.models.unet3d import Schedule, UNet3D, padding, schedule

THIN = Schedule((1, 3, 3), (1, 2))


def volume(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def init(net, x):
    return jax.jit(lambda x: net.init(jax.random.key(1), x, train=False))(x)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(net, variables, x):
    return net.apply(variables, x, train=False)


@pytest.mark.parametrize(
    ("pixel", "pitch", "slices", "kernels", "pools"),
    [
        # Thick slices: none are taken together before pixels are half as large as the pitch.
        (0.6, 4.4, 16, (1, 1, 3, 3, 3), (1, 1, 2, 2)),
        # A factor of two is too far apart; a little less is not.
        (1.0, 2.0, 64, (1, 3, 3, 3, 3), (1, 2, 2, 2)),
        (1.0, 1.9, 64, (3, 3, 3, 3, 3), (2, 2, 2, 2)),
        # Pooling leaves four slices of a patch, and kernels stay as they are.
        (1.0, 1.8, 9, (3, 3, 3, 3, 3), (2, 1, 1, 1)),
        (1.0, 4.0, 3, (1, 1, 3, 3, 3), (1, 1, 1, 1)),
        # The lowest level sees its neighbours, however far.
        (1.0, 99.0, 64, (1, 1, 1, 1, 3), (1, 1, 1, 1)),
    ],
)
def test_slices_are_taken_together_once_they_are_as_close_as_pixels(
    pixel, pitch, slices, kernels, pools
):
    assert schedule(5, pixel, pitch, slices) == Schedule(kernels, pools)


@pytest.mark.parametrize("stem", [1, 2])
def test_deep_supervision_leaves_the_two_lowest_levels_out(stem):
    net = UNet3D(3, schedule(5, 0.6, 4.4, 16), (8,) * 5, stem=stem)
    strides = ((1, 1), (1, 2), (1, 4), (2, 8), (4, 16))
    assert net.strides == tuple((d, stem * n, stem * n) for d, n in strides)
    assert net.supervised == ((1, 1, 1), *net.strides[1:3])
    assert UNet3D(3, schedule(2, 1.0, 1.0, 8), (8, 8)).supervised == ((1, 1, 1),)


def test_with_a_stem_blocks_of_pixels_are_channels():
    """What a 2-D U-Net with the same stem says of each slice, where no slice sees another."""
    flat = UNet3D(2, Schedule((1, 1), (1,)), (8, 8), stem=2)
    x = volume(1, 3, 6, 10, 1)
    variables = init(flat, x)
    params = jax.tree.map(lambda v: v, variables["params"])
    for name in ("down_0", "down_1", "up_0"):
        own = params[name]
        params[name] = {
            k.replace("Conv3D", "Conv"): {n: w[0] if n == "kernel" else w for n, w in v.items()}
            for k, v in own.items()
        }
    params["upsample_0"] = dict(params["upsample_0"], kernel=params["upsample_0"]["kernel"][0])
    slices = UNet(2, (8, 8), stem=2)
    expected = logits_of(slices, {**variables, "params": params}, x[0])
    np.testing.assert_allclose(logits_of(flat, variables, x)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "blocks"), [((5, 13, 8), (1, 1, 2, 1)), ((1, 4, 3), ())])
def test_logits_have_the_size_of_the_volume_and_in_training_of_lower_levels(shape, blocks):
    through = Schedule((1, 3, 3, 3), (1, 2, 1))
    net = UNet3D(3, through, (4, 8, 8, 8), residual_blocks=blocks, deep_supervision=True)
    x = volume(2, *shape, 2)
    with jax.numpy_dtype_promotion("strict"):
        variables = init(net, x)
        logits = logits_of(net, variables, x)
    assert logits.shape == (2, *shape, 3)
    assert logits.dtype == jnp.float32
    outputs, _ = jax.eval_shape(
        lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]), variables, x
    )
    padded = [n + sum(p) for n, p in zip(shape, padding(shape, (2, 8, 8)), strict=True)]
    assert [o.shape for o in outputs] == [
        (2, *shape, 3),
        (2, padded[0], padded[1] // 2, padded[2] // 2, 3),
    ]


def test_padding_is_cropped_in_place():
    """Zeros added by hand where the network adds them give the same logits in the middle."""
    net, x = UNet3D(3, THIN, (4, 8, 8)), volume(1, 3, 9, 6, 1)
    variables = init(net, x)
    by_hand = jnp.pad(x, ((0, 0), (0, 1), (1, 2), (1, 1), (0, 0)))
    np.testing.assert_allclose(
        logits_of(net, variables, by_hand)[:, :3, 1:10, 1:7],
        logits_of(net, variables, x),
        atol=1e-5,
    )


def test_thin_levels_do_not_mix_slices():
    flat = UNet3D(2, Schedule((1, 1), (1,)), (4, 4), norm="batch")
    x = volume(1, 5, 8, 8, 1)
    variables = init(flat, x)
    touched = x.at[0, 2, 4, 4].add(1.0)
    changed = logits_of(flat, variables, touched) - logits_of(flat, variables, x)
    assert set(np.nonzero(np.abs(np.asarray(changed)).max((0, 2, 3, 4)))[0]) == {2}
    net = flat.clone(through=Schedule((1, 3), (1,)))
    variables = init(net, x)
    changed = logits_of(net, variables, touched) - logits_of(net, variables, x)
    assert set(np.nonzero(np.abs(np.asarray(changed)).max((0, 2, 3, 4)))[0]) == {0, 1, 2, 3, 4}


def test_bfloat16_computes_low_and_keeps_float32():
    x = volume(1, 3, 8, 8, 1)
    low = UNet3D(3, THIN, (8, 8, 16), "group", dtype="bfloat16")
    variables = init(low, x)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(variables))
    logits = logits_of(low, variables, x)
    exact = logits_of(low.clone(dtype="float32"), variables, x)
    assert logits.dtype == jnp.float32
    assert 0 < float(jnp.abs(logits - exact).max()) < 0.1 * float(jnp.abs(exact).max())


def test_parameter_count_is_the_hand_computation():
    x = volume(1, 4, 8, 8, 2)
    net = UNet3D(3, THIN, (4, 8, 16))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))

    def block(kernel, inputs, width):
        return 9 * kernel * (inputs * width + width * width) + 4 * width

    down = block(1, 2, 4) + block(3, 4, 8) + block(3, 8, 16)
    up = (8 * 16 * 8 + 8) + block(3, 16, 8) + (4 * 8 * 4 + 4) + block(1, 8, 4)
    assert parameter_count(variables["params"]) == down + up + (4 * 3 + 3)


def random_variables(net, x):
    """No bias is 0 and no mean is."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
    rng = np.random.default_rng(3)
    return jax.tree_util.tree_map_with_path(
        lambda path, v: (
            np.abs(rng.normal(1, 0.2, v.shape)).astype(np.float32)
            if path[-1].key in ("var", "scale")
            else rng.normal(0, 0.15, v.shape).astype(np.float32)
        ),
        shapes,
    )


@pytest.mark.parametrize("blocks", [(), (1, 2, 1)])
def test_weights_in_pytorch_give_the_same_logits(blocks):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    net = UNet3D(3, THIN, (4, 8, 8), residual_blocks=blocks)
    x = volume(2, 4, 8, 12, 2)
    variables = random_variables(net, x)
    params, stats = variables["params"], variables["batch_stats"]

    def tensor(value):
        return torch.from_numpy(np.array(value))

    def conv(x, w):
        kernel = tensor(w["kernel"]).permute(4, 3, 0, 1, 2)
        return f.conv3d(x, kernel, padding=[n // 2 for n in kernel.shape[2:]])

    def norm(x, w, s):
        mean, var, scale, bias = map(tensor, (s["mean"], s["var"], w["scale"], w["bias"]))
        return f.batch_norm(x, mean, var, scale, bias, eps=1e-5)

    def block(x, name, repeats):
        w, s = params[name], stats[name]
        for i in range(repeats):
            x = conv(x, w[f"Conv3D_{i}"])
            x = f.relu(norm(x, w[f"BatchNorm_{i}"], s[f"BatchNorm_{i}"]))
        return x

    def residual(x, name):
        w, s = params[name], stats[name]
        y = f.relu(norm(conv(x, w["conv_1"]), w["norm_1"], s["norm_1"]))
        y = norm(conv(y, w["conv_2"]), w["norm_2"], s["norm_2"])
        if "shortcut" in w:
            kernel = tensor(w["shortcut"]["kernel"]).T[:, :, None, None, None]
            x = norm(f.conv3d(x, kernel), w["norm_shortcut"], s["norm_shortcut"])
        return f.relu(x + y)

    def encode(x, level):
        if not blocks:
            return block(x, f"down_{level}", 2)
        for i in range(blocks[level]):
            x = residual(x, f"down_{level}_{i}")
        return x

    def up(x, name):
        kernel = tensor(params[name]["kernel"]).permute(3, 4, 0, 1, 2)
        return f.conv_transpose3d(
            x, kernel, tensor(params[name]["bias"]), stride=tuple(kernel.shape[2:])
        )

    with torch.no_grad():
        y = tensor(x).permute(0, 4, 1, 2, 3)
        y = block(y, "stem", 1) if blocks else y
        skips = []
        for level, pool in enumerate(THIN.pools):
            skips.append(encode(y, level))
            y = f.max_pool3d(skips[-1], (pool, 2, 2))
        y = encode(y, 2)
        for level in (1, 0):
            y = torch.cat([skips[level], up(y, f"upsample_{level}")], 1)
            y = block(y, f"up_{level}", 1 if blocks else 2)
        kernel = tensor(params["logits"]["kernel"]).T[:, :, None, None, None]
        expected = f.conv3d(y, kernel, tensor(params["logits"]["bias"])).permute(0, 2, 3, 4, 1)
    np.testing.assert_allclose(logits_of(net, variables, x), expected, rtol=1e-3, atol=1e-3)


def test_is_hashable_so_that_equal_networks_share_a_program():
    assert hash(UNet3D(3, THIN, (4, 8, 8))) == hash(UNet3D(3, THIN, (4, 8, 8)))
    assert UNet3D(3, THIN, (4, 8, 8)) != UNet3D(3, THIN, (4, 8, 8), deep_supervision=True)
