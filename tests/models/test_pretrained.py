"""The oracles are torchvision's networks written in PyTorch's layers under torchvision's names."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mskjax.errors import UserError
from mskjax.models import pretrained
from mskjax.models.alexnet import AlexNet
from mskjax.models.resnet import ResNet
from mskjax.models.vgg import VGG

HEADS = (("grade", 3), ("imagenet", 1000))
NARROW_VGG = VGG(HEADS, widths=(4, 6, 8, 10, 12), hidden=14)
NARROW_RESNET = ResNet(HEADS, width=8)
NARROW_ALEXNET = AlexNet(HEADS, width=4, hidden=14)
CAFFE_SCALE = 255 * np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the oracle is PyTorch")


@pytest.fixture
def files(monkeypatch):
    """Puts arrays by name in the place of a file."""
    contents = {}
    monkeypatch.setattr(pretrained.weight_files, "read_weights", lambda path: contents[str(path)])
    monkeypatch.setattr(pretrained.weight_files, "sha256", lambda path: "ab" * 32)
    return contents


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def initial(model, channels=3, size=64):
    """Random variables of the model's shapes, sooner than by compiling its initialisation."""
    x = jnp.zeros((1, size, size, channels))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    return jax.tree.map(lambda s: image(*s.shape, seed=7), shapes)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, variables, x):
    return model.apply(variables, x, train=False)


def assert_close(ours, theirs):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    assert np.ptp(theirs) > 0


def torch_vgg(torch, model):
    nn, layers, inputs = torch.nn, [], 3
    for width, count in zip(model.widths, model.convolutions, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(inputs, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if model.norm == "batch" else []
            layers.append(nn.ReLU())
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return torch_sequences(
        torch,
        [*layers],
        nn.AdaptiveAvgPool2d(7),
        [
            *(nn.Linear(49 * inputs, model.hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(model.hidden, model.hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(model.hidden, 1000),
        ],
    )


def torch_alexnet(torch, model):
    nn, w = torch.nn, model.width
    return torch_sequences(
        torch,
        [
            *(nn.Conv2d(3, w, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(w, 3 * w, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(3 * w, 6 * w, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(6 * w, 4 * w, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(4 * w, 4 * w, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        ],
        nn.AdaptiveAvgPool2d(6),
        [
            *(nn.Dropout(), nn.Linear(36 * 4 * w, model.hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(model.hidden, model.hidden), nn.ReLU()),
            nn.Linear(model.hidden, 1000),
        ],
    )


def torch_sequences(torch, features, pool, classifier):
    nn = torch.nn

    class Net(nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.features, self.pool = nn.Sequential(*features), pool
            self.classifier = nn.Sequential(*classifier)

        def forward(self, x):
            return self.classifier(torch.flatten(self.pool(self.features(x)), 1))

    return randomised(torch, Net())


def torch_resnet(torch, model, bias=False, epsilon=1e-5):
    nn = torch.nn

    def norm(width):
        return nn.BatchNorm2d(width, eps=epsilon)

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, inputs, width, stride):
            super().__init__()
            first = stride if model.stride_in_first else 1
            self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, first, bias=bias), norm(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride // first, 1, bias=bias)
            self.bn2 = norm(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=bias), norm(4 * width)
            self.downsample = None
            if inputs != 4 * width:
                conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=bias)
                self.downsample = nn.Sequential(conv, norm(4 * width))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Net(nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, model.width, 7, 2, 3, bias=bias)
            self.bn1, self.maxpool = norm(model.width), nn.MaxPool2d(3, 2, 1)
            inputs = model.width
            for group, count in enumerate(model.blocks):
                width, blocks = model.width * 2**group, []
                for block in range(count):
                    blocks.append(Block(inputs, width, 2 if group and not block else 1))
                    inputs = 4 * width
                setattr(self, f"layer{group + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(inputs, 1000)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            for group in range(len(model.blocks)):
                x = getattr(self, f"layer{group + 1}")(x)
            return self.fc(x.mean((2, 3)))

    return randomised(torch, Net(), small=epsilon != 1e-5)


def randomised(torch, net, small=False):
    """Random weights and running statistics; `small` variances, to which epsilon matters."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                deviation = (2 / module.weight[0].numel()) ** 0.5 * (0.1 if small else 1)
                module.weight.normal_(0, deviation, generator=random)
                if module.bias is not None:
                    module.bias.normal_(0, 0.03 if small else 0.3, generator=random)
            if isinstance(module, torch.nn.BatchNorm2d):
                scale = 0.01 if small else 1.0
                module.running_var.uniform_(0.5 * scale, 2 * scale, generator=random)
                module.running_mean.normal_(0, 0.3 * scale**0.5, generator=random)
                module.weight.uniform_(0.3, 0.8, generator=random)
                module.bias.normal_(0, 0.3, generator=random)
    return net.eval()


def torch_logits(torch, net, x):
    with torch.no_grad():
        return net(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()


def torch_file(net):
    return {name: array.numpy() for name, array in net.state_dict().items()}


@pytest.mark.parametrize(
    ("model", "oracle", "size"),
    [
        (NARROW_VGG, torch_vgg, (224, 224)),
        (NARROW_VGG.clone(norm="batch"), torch_vgg, (96, 170)),
        (NARROW_ALEXNET, torch_alexnet, (224, 224)),
        (NARROW_ALEXNET, torch_alexnet, (150, 101)),
        (NARROW_RESNET, torch_resnet, (97, 64)),
    ],
    ids=["vgg19", "vgg19_bn", "alexnet", "alexnet-odd", "resnet50"],
)
def test_torchvision_files_give_the_same_logits(torch, files, model, oracle, size):
    net, x = oracle(torch, model), image(2, *size, 3)
    files["weights.pth"] = torch_file(net)
    start = initial(model)
    loaded = pretrained.load("weights.pth", model, start, classifier="imagenet")
    ours = predict(model, loaded.variables, x)
    assert_close(ours["imagenet"], torch_logits(torch, net, x))
    assert loaded.adapted == []
    assert loaded.left == ["head_grade"]
    np.testing.assert_array_equal(
        loaded.variables["params"]["head_grade"]["kernel"],
        start["params"]["head_grade"]["kernel"],
    )
    tracked = sum(name.endswith("num_batches_tracked") for name in files["weights.pth"])
    assert loaded.loaded == len(files["weights.pth"]) - tracked


@pytest.mark.parametrize(
    ("model", "oracle"),
    [(ResNet(HEADS), torch_resnet), (AlexNet(HEADS), torch_alexnet)],
    ids=["resnet50", "alexnet"],
)
def test_published_sizes_from_a_file_on_disk(torch, tmp_path, model, oracle):
    net, x = oracle(torch, model), image(1, 96, 96, 3)
    path = tmp_path / "weights.pth"
    torch.save(net.state_dict(), path)
    loaded = pretrained.load(path, model, initial(model), classifier="imagenet")
    logits = predict(model, loaded.variables, x)["imagenet"]
    assert_close(logits, torch_logits(torch, net, x))
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(loaded.variables))


@pytest.mark.parametrize("channels", [1, 6])
def test_grey_in_any_number_of_channels_gives_what_it_gave_as_rgb(torch, files, channels):
    net, grey = torch_resnet(torch, NARROW_RESNET), image(2, 64, 64, 1)
    files["weights.pth"] = torch_file(net)
    start = initial(NARROW_RESNET, channels)
    loaded = pretrained.load("weights.pth", NARROW_RESNET, start, "imagenet")
    logits = predict(NARROW_RESNET, loaded.variables, np.repeat(grey, channels, -1))["imagenet"]
    assert_close(logits, torch_logits(torch, net, np.repeat(grey, 3, -1)))
    (sentence,) = loaded.adapted
    assert f"spread over {channels} channels" in sentence
    assert loaded.notes() == [
        f"{loaded.loaded} arrays were loaded from the file with SHA-256 {'ab' * 32}.",
        sentence,
        "These layers keep their initialisation: head_grade.",
    ]


def test_mixed_channels_leave_the_file_as_it_is(torch, files):
    model = NARROW_ALEXNET.clone(mix=True)
    net, x = torch_alexnet(torch, model), image(2, 96, 96, 6)
    files["weights.pth"] = torch_file(net)
    loaded = pretrained.load("weights.pth", model, initial(model, channels=6), "imagenet")
    assert loaded.adapted == []
    assert set(loaded.left) == {"mix", "head_grade"}
    mix = loaded.variables["params"]["mix"]
    assert_close(
        predict(model, loaded.variables, x)["imagenet"],
        torch_logits(torch, net, x @ np.asarray(mix["kernel"]) + np.asarray(mix["bias"])),
    )


def keras_array(array):
    """Keras' layout of one of PyTorch's arrays."""
    array = array.numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def keras_resnet_file(state, generation, top):
    """A PyTorch ResNet-50 in Keras' names: every name is spelled out by its own rule."""
    old = generation == "old"
    pairs = [("conv1", "bn1", *(("conv1", "bn_conv1") if old else ("conv1_conv", "conv1_bn")))]
    for group, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            theirs = f"layer{group + 1}.{block}"
            a, b = f"{group + 2}{'abcdef'[block]}_branch", f"conv{group + 2}_block{block + 1}"
            for i, letter in ((1, "a"), (2, "b"), (3, "c")):
                names = (f"res{a}2{letter}", f"bn{a}2{letter}")
                names = names if old else (f"{b}_{i}_conv", f"{b}_{i}_bn")
                pairs.append((f"{theirs}.conv{i}", f"{theirs}.bn{i}", *names))
            if block == 0:
                names = (f"res{a}1", f"bn{a}1") if old else (f"{b}_0_conv", f"{b}_0_bn")
                pairs.append((f"{theirs}.downsample.0", f"{theirs}.downsample.1", *names))
    file = {}
    for conv, norm, keras_conv, keras_norm in pairs:
        file[f"{keras_conv}/kernel"] = keras_array(state[f"{conv}.weight"])
        file[f"{keras_conv}/bias"] = state[f"{conv}.bias"].numpy()
        file[f"{keras_norm}/gamma"] = state[f"{norm}.weight"].numpy()
        file[f"{keras_norm}/beta"] = state[f"{norm}.bias"].numpy()
        file[f"{keras_norm}/moving_mean"] = state[f"{norm}.running_mean"].numpy()
        file[f"{keras_norm}/moving_variance"] = state[f"{norm}.running_var"].numpy()
    if top:
        file[f"{top}/kernel"] = keras_array(state["fc.weight"])
        file[f"{top}/bias"] = state["fc.bias"].numpy()
    return file


def caffe_mode(rgb):
    """BGR in 0 to 255 less Keras' mean colour, of images with that mean and unit deviation."""
    return (rgb * CAFFE_SCALE)[..., ::-1]


@pytest.mark.parametrize(
    ("generation", "top", "epsilon"),
    [("old", "fc1000", 1e-3), ("new", "predictions", 1.001e-5), ("new", "probs", 1.001e-5)],
)
def test_keras_resnet50_gives_the_same_logits(torch, files, generation, top, epsilon):
    model = NARROW_RESNET.clone(stride_in_first=True)
    net, x = torch_resnet(torch, model, bias=True, epsilon=epsilon), image(2, 64, 90, 3)
    files["weights.h5"] = keras_resnet_file(net.state_dict(), generation, top)
    loaded = pretrained.load("weights.h5", model, initial(model), "imagenet")
    theirs = torch_logits(torch, net, caffe_mode(x))
    assert_close(predict(model, loaded.variables, x)["imagenet"], theirs)
    assert f"epsilon {epsilon:g} in place of 1e-05" in loaded.adapted[1]
    assert "BGR to RGB" in loaded.adapted[0]


def test_the_epsilon_of_the_keras_file_matters_to_the_test_above(torch, files):
    model = NARROW_RESNET.clone(stride_in_first=True)
    net, x = torch_resnet(torch, model, bias=True, epsilon=2e-3), image(2, 64, 90, 3)
    files["weights.h5"] = keras_resnet_file(net.state_dict(), "old", "fc1000")
    loaded = pretrained.load("weights.h5", model, initial(model), "imagenet")
    theirs = torch_logits(torch, net, caffe_mode(x))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(predict(model, loaded.variables, x)["imagenet"], theirs)


def test_keras_resnet50_without_its_top_in_one_channel(torch, files):
    model = NARROW_RESNET.clone(stride_in_first=True)
    net, grey = torch_resnet(torch, model, bias=True, epsilon=1e-3), image(2, 64, 64, 1)
    files["notop.h5"] = keras_resnet_file(net.state_dict(), "old", None)
    loaded = pretrained.load("notop.h5", model, initial(model, channels=1))
    assert loaded.left == ["head_grade", "head_imagenet"]
    assert len(loaded.adapted) == 3
    head = loaded.variables["params"]["head_imagenet"]
    with torch.no_grad():
        net.fc.weight.copy_(torch.from_numpy(np.array(head["kernel"].T)))
        net.fc.bias.copy_(torch.from_numpy(np.array(head["bias"])))
    logits = predict(model, loaded.variables, grey)["imagenet"]
    assert_close(logits, torch_logits(torch, net, caffe_mode(np.repeat(grey, 3, -1))))


def keras_vgg_file(net, model):
    """As Keras stores it; the first matrix takes the map flattened channels last."""
    state, file, number = net.state_dict(), {}, 0
    for block, count in enumerate(model.convolutions):
        for conv in range(count):
            name = f"block{block + 1}_conv{conv + 1}"
            file[f"{name}/kernel"] = keras_array(state[f"features.{number}.weight"])
            file[f"{name}/bias"] = state[f"features.{number}.bias"].numpy()
            number += 2
        number += 1
    for name, number in (("fc1", 0), ("fc2", 3), ("predictions", 6)):
        kernel = keras_array(state[f"classifier.{number}.weight"])
        if name == "fc1":
            units = kernel.shape[1]
            kernel = kernel.reshape(-1, 7, 7, units).transpose(1, 2, 0, 3).reshape(-1, units)
        file[f"{name}/kernel"] = kernel
        file[f"{name}/bias"] = state[f"classifier.{number}.bias"].numpy()
    return file


def test_keras_vgg19_gives_the_same_logits(torch, files):
    net, x = torch_vgg(torch, NARROW_VGG), image(1, 224, 224, 3)
    files["weights.h5"] = keras_vgg_file(net, NARROW_VGG)
    loaded = pretrained.load("weights.h5", NARROW_VGG, initial(NARROW_VGG), "imagenet")
    logits = predict(NARROW_VGG, loaded.variables, x)["imagenet"]
    assert_close(logits, torch_logits(torch, net, caffe_mode(x)))
    assert len(loaded.adapted) == 1


def test_keras_vgg19_from_a_file_on_disk(torch, tmp_path):
    h5py = pytest.importorskip("h5py", reason="Keras files are HDF5")
    net, x = torch_vgg(torch, NARROW_VGG), image(1, 224, 224, 3)
    path = tmp_path / "vgg19_weights_tf_dim_ordering_tf_kernels.h5"
    with h5py.File(path, "w") as file:
        for name, array in keras_vgg_file(net, NARROW_VGG).items():
            layer, weight = name.split("/")
            # The published file has the names of Keras 1.
            old = f"{layer}_{'W' if weight == 'kernel' else 'b'}_1:0"
            file.require_group(layer)[old] = array
        file.attrs["layer_names"] = [layer.encode() for layer in file]
        for layer in file:
            file[layer].attrs["weight_names"] = [name.encode() for name in file[layer]]
    loaded = pretrained.load(path, NARROW_VGG, initial(NARROW_VGG), "imagenet")
    logits = predict(NARROW_VGG, loaded.variables, x)["imagenet"]
    assert_close(logits, torch_logits(torch, net, caffe_mode(x)))


def test_keras_vgg19_without_its_top_leaves_the_hidden_layers(torch, files):
    file = keras_vgg_file(torch_vgg(torch, NARROW_VGG), NARROW_VGG)
    file = {name: array for name, array in file.items() if name.startswith("block")}
    files["notop.h5"] = file
    model = NARROW_VGG.clone(hidden=9, pool=(2, 3))
    loaded = pretrained.load("notop.h5", model, initial(model))
    assert set(loaded.left) == {"fc6", "fc7", "head_grade", "head_imagenet"}
    assert loaded.loaded == 32
    with pytest.raises(UserError, match="fc1/kernel is missing in the file"):
        pretrained.load("notop.h5", NARROW_VGG, initial(NARROW_VGG), "imagenet")


def torch_alexnet_file(model, seed=0):
    """Random arrays under torchvision's names, without PyTorch."""
    w, hidden = model.width, model.hidden
    shapes = {
        "features.0": (w, 3, 11, 11),
        "features.3": (3 * w, w, 5, 5),
        "features.6": (6 * w, 3 * w, 3, 3),
        "features.8": (4 * w, 6 * w, 3, 3),
        "features.10": (4 * w, 4 * w, 3, 3),
        "classifier.1": (hidden, 36 * 4 * w),
        "classifier.4": (hidden, hidden),
        "classifier.6": (1000, hidden),
    }
    file = {f"{name}.weight": image(*shape, seed=seed) for name, shape in shapes.items()}
    return file | {f"{name}.bias": image(shape[0], seed=seed) for name, shape in shapes.items()}


def test_without_a_classifier_all_heads_keep_their_initialisation(files):
    files["weights.pth"] = torch_alexnet_file(NARROW_ALEXNET)
    start = initial(NARROW_ALEXNET)
    loaded = pretrained.load("weights.pth", NARROW_ALEXNET, start)
    assert loaded.left == ["head_grade", "head_imagenet"]
    assert loaded.loaded == 14
    changed = {
        "/".join(name)
        for name, array in traverse_util.flatten_dict(loaded.variables).items()
        if not np.array_equal(array, traverse_util.flatten_dict(start)[name])
    }
    assert changed == {
        f"params/{layer}/{name}"
        for layer in ("conv_1", "conv_2", "conv_3", "conv_4", "conv_5", "fc6", "fc7")
        for name in ("kernel", "bias")
    }


def test_half_precision_files_load_as_float32(files):
    file = torch_alexnet_file(NARROW_ALEXNET)
    files["weights.pth"] = {name: array.astype(np.float16) for name, array in file.items()}
    loaded = pretrained.load("weights.pth", NARROW_ALEXNET, initial(NARROW_ALEXNET))
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(loaded.variables))
    kernel = loaded.variables["params"]["conv_3"]["kernel"]
    expected = files["weights.pth"]["features.6.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected.astype(np.float32))


def test_all_mismatches_are_in_one_message(files):
    file = torch_alexnet_file(NARROW_ALEXNET)
    file.pop("features.3.bias")
    file["features.99.weight"] = image(2, 2)
    file["features.8.weight"] = image(16, 24, 5, 5)
    file["classifier.1.weight"] = image(10, 36 * 16)
    files["odd.pth"] = file
    with pytest.raises(UserError) as error:
        pretrained.load("odd.pth", NARROW_ALEXNET, initial(NARROW_ALEXNET))
    message = str(error.value)
    assert message.startswith("odd.pth: the weights do not fit this AlexNet")
    assert message.split("sizes: ")[1] == (
        "features.3.bias is missing in the file; features.99.weight is unexpected;"
        " features.8.weight has shape (5, 5, 24, 16) in our layout, the model (3, 3, 24, 16);"
        " classifier.1.weight has shape (576, 10) in our layout, the model (576, 14)."
    )


def test_many_mismatches_are_counted(files):
    files["alexnet.pth"] = torch_alexnet_file(NARROW_ALEXNET)
    model = NARROW_RESNET
    with pytest.raises(UserError, match=r"conv1.weight is missing.*; and \d+ more\.$") as error:
        pretrained.load("alexnet.pth", model, initial(model))
    assert str(error.value).count(";") == 21


@pytest.mark.parametrize(
    "changes", [{"hidden": 10}, {"width": 8}], ids=["hidden layers", "convolutions"]
)
def test_changed_sizes_are_mismatches(files, changes):
    files["weights.pth"] = torch_alexnet_file(NARROW_ALEXNET)
    model = NARROW_ALEXNET.clone(**changes)
    with pytest.raises(UserError, match="classifier.1.weight has shape"):
        pretrained.load("weights.pth", model, initial(model))


def test_the_classifier_needs_1000_classes(files):
    files["weights.pth"] = torch_alexnet_file(NARROW_ALEXNET)
    start = initial(NARROW_ALEXNET)
    with pytest.raises(UserError, match=r"classifier.6.weight has shape \(14, 1000\).* \(14, 3\)"):
        pretrained.load("weights.pth", NARROW_ALEXNET, start, "grade")
    with pytest.raises(ValueError, match="classifier is 'goutallier'; the model has heads"):
        pretrained.load("weights.pth", NARROW_ALEXNET, start, "goutallier")


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (NARROW_RESNET, "conv1/kernel", "set model.stride_in_first to True"),
        (NARROW_RESNET.clone(stride_in_first=True), "conv1.weight", "stride_in_first to False"),
        (NARROW_RESNET.clone(norm="group"), "conv1.weight", "set model.norm to 'batch'"),
        (NARROW_VGG.clone(norm="group"), "features.0.weight", "set model.norm to 'batch'"),
        (NARROW_VGG.clone(norm="batch"), "block1_conv1/kernel", "set model.norm to 'none'"),
        (NARROW_ALEXNET, "conv1/kernel", "Keras has no AlexNet"),
    ],
)
def test_designs_that_shapes_would_not_tell_apart(files, model, name, message):
    files["weights"] = {name: image(2)}
    with pytest.raises(UserError, match=f"^weights: .*{message}"):
        pretrained.load("weights", model, {"params": {}})
