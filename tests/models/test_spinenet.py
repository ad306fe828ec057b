import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mskjax.models.spinenet import SpineNetGrader
from mskjax.models.summary import parameter_count

HEADS = (("pfirrmann", 5), ("stenosis", 4), ("spondylolisthesis", 2))
TINY = SpineNetGrader(HEADS, width=4, blocks=(1, 1), strides=(1, 2))


def crops(slices=3, rows=24, columns=33, channels=1):
    values = np.random.default_rng(0).normal(size=(2, slices, rows, columns, channels))
    return jnp.asarray(values, jnp.float32)


def init(model, x):
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


def logits_of(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


@pytest.mark.parametrize("slices", [1, 4])
def test_logits_per_head_for_any_number_of_slices(slices):
    with jax.numpy_dtype_promotion("strict"):
        logits = logits_of(TINY, init(TINY, crops(slices)), crops(slices))
    assert {k: v.shape for k, v in logits.items()} == {k: (2, n) for k, n in HEADS}
    assert all(v.dtype == jnp.float32 for v in logits.values())


def test_parameter_count_of_the_published_network():
    """3-D ResNet-34 by hand: stem, 16 basic blocks, three shortcuts and the heads."""
    model = SpineNetGrader(HEADS)
    x = jnp.zeros((1, 1, 32, 32, 1))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))["params"]
    count, inputs = 3 * 7 * 7 * 64 + 2 * 64, 64
    for blocks, width in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        for _ in range(blocks):
            count += 27 * inputs * width + 27 * width * width + 2 * 2 * width
            count += inputs * width + 2 * width if inputs != width else 0
            inputs = width
    count += sum(512 * n + n for _, n in HEADS)
    assert parameter_count(params) == count


def torch_resnet(torch, blocks, width, strides, heads):
    """The same network in PyTorch's own layers."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs, width, stride):
            super().__init__()
            s = (1, stride, stride)
            self.conv_1 = nn.Conv3d(inputs, width, 3, s, 1, bias=False)
            self.norm_1 = nn.BatchNorm3d(width)
            self.conv_2 = nn.Conv3d(width, width, 3, 1, 1, bias=False)
            self.norm_2 = nn.BatchNorm3d(width)
            self.shortcut = None
            if stride != 1 or inputs != width:
                self.shortcut = nn.Conv3d(inputs, width, 1, s, bias=False)
                self.norm_shortcut = nn.BatchNorm3d(width)

        def forward(self, x):
            y = torch.relu(self.norm_1(self.conv_1(x)))
            y = self.norm_2(self.conv_2(y))
            x = x if self.shortcut is None else self.norm_shortcut(self.shortcut(x))
            return torch.relu(x + y)

    class Net(nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv3d(1, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
            self.stem_norm = nn.BatchNorm3d(width)
            self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
            self.names, inputs = [], width
            for group, (count, stride) in enumerate(zip(blocks, strides, strict=True)):
                for block in range(count):
                    name = f"group_{group}_block_{block}"
                    features = width * 2**group
                    self.names.append(name)
                    setattr(self, name, Block(inputs, features, stride if block == 0 else 1))
                    inputs = features
            for name, n in heads:
                setattr(self, f"head_{name}", nn.Linear(inputs, n))

        def forward(self, x):
            x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
            for name in self.names:
                x = getattr(self, name)(x)
            x = x.mean((2, 3, 4))
            return {name: getattr(self, f"head_{name}")(x) for name, _ in heads}

    return Net()


def test_agrees_with_pytorch():
    """Evaluation, training and the running averages, with every kind of block."""
    torch = pytest.importorskip("torch")
    blocks, strides = (2, 1), (1, 2)
    model = SpineNetGrader(HEADS, width=4, blocks=blocks, strides=strides)
    x = crops(slices=4)
    variables = init(model, x)
    stats = jax.tree.map(lambda s: s + 0.1, variables["batch_stats"])
    net = torch_resnet(torch, blocks, 4, strides, HEADS)
    assert parameter_count(variables["params"]) == sum(p.numel() for p in net.parameters())

    def tensor(array):
        return torch.from_numpy(np.array(array))

    with torch.no_grad():
        for name, module in net.named_modules():
            if not name or list(module.children()):
                continue
            params, averages = variables["params"], stats
            if name == "pool":
                continue
            for part in name.split("."):
                params, averages = params[part], averages.get(part, {})
            if averages:
                module.running_mean.copy_(tensor(averages["mean"]))
                module.running_var.copy_(tensor(averages["var"]))
            elif params["kernel"].ndim == 5:
                module.weight.copy_(tensor(params["kernel"].transpose(4, 3, 0, 1, 2)))
            else:
                module.weight.copy_(tensor(params["kernel"].T).reshape(module.weight.shape))
    inputs = tensor(jnp.moveaxis(x, -1, 1))
    variables = {**variables, "batch_stats": stats}
    ours = logits_of(model, variables, x)
    trained, updates = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, x
    )
    with torch.no_grad():
        # The oracle's head biases start at random; only their difference from ours is removed.
        for name, _ in HEADS:
            getattr(net, f"head_{name}").bias.zero_()
        expected, expected_trained = net.eval()(inputs), net.train()(inputs)
    for name, _ in HEADS:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(trained[name], expected_trained[name], rtol=1e-3, atol=1e-3)
    # PyTorch's momentum .1 is Flax's .9.
    np.testing.assert_allclose(
        updates["batch_stats"]["stem_norm"]["mean"], net.stem_norm.running_mean, atol=1e-5
    )


def test_no_stride_through_slices():
    """Every layer keeps the slices; the grid shrinks by 4, 4, 8 and 16 in plane."""
    model = SpineNetGrader(HEADS, width=4, blocks=(1, 1, 1, 1))
    x = crops(slices=5, rows=64, columns=32)

    def layers(x):
        _, state = model.init_with_output(
            jax.random.key(0), x, train=False, capture_intermediates=True
        )
        return state["intermediates"]

    shapes = {
        name: calls["__call__"][0].shape
        for name, calls in jax.eval_shape(layers, x).items()
        if re.fullmatch(r"group_\d_block_0", name)
    }
    assert shapes == {
        "group_0_block_0": (2, 5, 16, 8, 4),
        "group_1_block_0": (2, 5, 16, 8, 8),
        "group_2_block_0": (2, 5, 8, 4, 16),
        "group_3_block_0": (2, 5, 4, 2, 32),
    }


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bfloat16_keeps_float32_parameters_and_logits(norm):
    model = SpineNetGrader(HEADS, 8, (1,), (2,), norm, jnp.bfloat16)
    variables = init(model, crops())
    logits = logits_of(model, variables, crops())
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves((logits, variables)))
    exact = logits_of(model.clone(dtype=jnp.float32), variables, crops())
    for name in exact:
        np.testing.assert_allclose(logits[name], exact[name], atol=0.05)


def test_dropout_acts_in_training_only():
    model = SpineNetGrader(HEADS, 4, (1,), (1,), "instance", dropout=0.5)
    variables = init(model, crops())

    @functools.partial(jax.jit, static_argnums=2)
    def apply(variables, x, train, rngs):
        return model.apply(variables, x, train=train, rngs=rngs)

    def graded(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return apply(variables, crops(), train, rngs)["pfirrmann"]

    np.testing.assert_array_equal(graded(False, 0), graded(False, 1))
    np.testing.assert_array_equal(graded(True, 0), graded(True, 0))
    assert float(jnp.abs(graded(True, 0) - graded(True, 1)).max()) > 0


def test_the_last_map_is_sown_and_tapped():
    x = crops()
    variables = init(TINY, x)
    assert set(variables) == {"params", "batch_stats"}

    @jax.jit
    def run(variables, x, tap):
        return TINY.apply(variables, x, train=False, tap=tap, mutable=["intermediates"])

    logits, state = run(variables, x, None)
    (features,) = state["intermediates"]["features"]
    assert features.shape == (2, 3, 3, 5, 8)
    tapped, _ = run(variables, x, jnp.ones_like(features))
    for name, _ in HEADS:
        # A head is linear in the mean of the map, to which the tap adds one in each channel.
        gained = variables["params"][f"head_{name}"]["kernel"].sum(0, keepdims=True)
        np.testing.assert_allclose(tapped[name] - logits[name], gained.repeat(2, 0), atol=1e-5)


def test_is_hashable():
    assert hash(SpineNetGrader(HEADS)) == hash(SpineNetGrader(HEADS))
    assert SpineNetGrader(HEADS) != TINY


def test_groups_and_strides_must_match():
    model = SpineNetGrader(HEADS, width=4, blocks=(1, 1), strides=(1,))
    with pytest.raises(ValueError, match=r"blocks \(1, 1\) and strides \(1,\)"):
        model.init(jax.random.key(0), crops(), train=False)
