import collections
import hashlib
import io
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mskjax.errors import UserError
from mskjax.models.weight_files import read_weights, sha256

ZIP, LEGACY = True, False


def need_torch():
    return pytest.importorskip("torch", reason="PyTorch writes the files that are read here")


def need_h5py():
    return pytest.importorskip("h5py", reason="Keras weights are HDF5: pip install h5py")


def need_safetensors():
    return pytest.importorskip("safetensors.numpy", reason="pip install safetensors")


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].dtype.isnative
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def random_state():
    torch = need_torch()
    make = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, 4, generator=make)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=make),
        "conv.bias": torch.nn.Parameter(torch.randn(4, generator=make)),
        "double": torch.randn(3, generator=make, dtype=torch.float64),
        "half": torch.randn(2, 5, generator=make).half(),
        "low": torch.randn(7, 2, generator=make).bfloat16(),
        "low.scalar": torch.tensor(-1.5, dtype=torch.bfloat16),
        "int64": torch.arange(-3, 3),
        "int32": torch.tensor([2**31 - 1, -(2**31)], dtype=torch.int32),
        "int16": torch.tensor([-7], dtype=torch.int16),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([[255, 0]], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "num_batches_tracked": torch.tensor(12345678901),
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "empty": torch.zeros(0, 3),
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[2:5, ::2, 1],
        "same": base,
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3),
    }


def as_numpy(state):
    torch = need_torch()
    low = {torch.bfloat16: torch.float32}
    return {k: v.detach().to(low.get(v.dtype, v.dtype)).numpy() for k, v in state.items()}


def save(path, value, container=ZIP, **options):
    need_torch().save(value, path, _use_new_zipfile_serialization=container, **options)
    return path


# ---- torch


@pytest.mark.parametrize("container", [ZIP, LEGACY])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_state_dict_is_what_torch_saved(tmp_path, container, protocol):
    state = random_state()
    path = save(tmp_path / "weights", state, container, pickle_protocol=protocol)
    assert_same(read_weights(path), as_numpy(state))


@pytest.mark.parametrize("container", [ZIP, LEGACY])
def test_the_state_dict_of_a_module_has_the_names_of_its_parameters(tmp_path, container):
    torch = need_torch()
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    found = read_weights(str(save(tmp_path / "net.pth", net.state_dict(), container)))
    assert_same(found, as_numpy(net.state_dict()))


@pytest.mark.parametrize("container", [ZIP, LEGACY])
def test_arrays_are_writable_and_share_nothing(tmp_path, container):
    found = read_weights(save(tmp_path / "weights", random_state(), container))
    kept = found["same"].copy()
    found["base"][:] = 0
    np.testing.assert_array_equal(found["same"], kept)
    assert all(array.flags.c_contiguous for array in found.values())


@pytest.mark.parametrize("key", ["state_dict", "model"])
@pytest.mark.parametrize("container", [ZIP, LEGACY])
def test_a_training_checkpoint_is_unwrapped(tmp_path, key, container):
    torch = need_torch()
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(1, 3)).sum().backward()
    adam.step()
    whole = {"epoch": 3, "best": 0.5, "optimizer": adam.state_dict(), key: net.state_dict()}
    found = read_weights(save(tmp_path / "checkpoint.pth", whole, container))
    assert_same(found, as_numpy(net.state_dict()))


def test_the_prefix_of_data_parallel_is_dropped_only_from_all_names(tmp_path):
    torch = need_torch()
    one, two = torch.ones(1), torch.zeros(2)
    all_of_them = save(tmp_path / "a", {"module.a": one, "module.b.module.c": two})
    some = save(tmp_path / "b", {"module.a": one, "b": two})
    assert list(read_weights(all_of_them)) == ["a", "b.module.c"]
    assert list(read_weights(some)) == ["module.a", "b"]


@settings(max_examples=40)
@given(st.data())
def test_any_view_of_any_storage_is_that_view(tmp_path_factory, data):
    torch = need_torch()
    count = data.draw(st.integers(1, 24))
    bits = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    flat = torch.from_numpy(np.array(bits, np.uint32).view(np.float32).copy())
    offset = data.draw(st.integers(0, count - 1))
    left, shape, strides = count - 1 - offset, [], []
    for _ in range(data.draw(st.integers(0, 4))):
        stride = data.draw(st.integers(0, 5))
        size = data.draw(st.integers(0, 3 if stride == 0 else min(3, left // stride + 1)))
        left -= max(size - 1, 0) * stride
        shape.append(size)
        strides.append(stride)
    view = torch.as_strided(flat, shape, strides, offset)
    container = data.draw(st.booleans())
    path = save(tmp_path_factory.mktemp("view") / "w", {"view": view}, container)
    found = read_weights(path)["view"]
    # Bits, so that a NaN must keep its payload.
    np.testing.assert_array_equal(
        found.view(np.uint32), np.ascontiguousarray(view.numpy()).reshape(shape).view(np.uint32)
    )
    assert found.shape == tuple(shape)


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("order", ["little", "big", None])
def test_the_byte_order_record_is_obeyed(tmp_path, order):
    torch = need_torch()
    state = {"x": torch.arange(5.0), "low": torch.ones(2).bfloat16(), "n": torch.arange(3)}
    members = members_of(save(tmp_path / "native", state))
    if order == "big":
        for key, dtype in (("0", "f4"), ("1", "u2"), ("2", "i8")):
            name = f"native/data/{key}"
            members[name] = np.frombuffer(members[name], "<" + dtype).astype(">" + dtype).tobytes()
    members["native/byteorder"] = str(order).encode()
    if order is None:
        del members["native/byteorder"]
    assert_same(read_weights(zipped(tmp_path / "file", members)), as_numpy(state))


# A pickle written opcode by opcode, for what today's torch does not write.
TWO_FLOATS = struct.pack("<q2f", 2, 1.0, 2.0)


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()  # SHORT_BINSTRING, Python 2's str


def legacy(body):
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, b"\x80\x02", body, b".", pickle.dumps(["k"], 2), TWO_FLOATS])


def storage(size=b"K\x02", kind=b"FloatStorage", key="k"):
    return b"((" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + size


def tensor(offset=b"K\x00", shape=b"K\x02\x85", stride=b"K\x01\x85", of=None):
    rebuild = b"ctorch._utils\n_rebuild_tensor\n"
    return rebuild + (of or storage()) + b"NtQ" + offset + shape + stride + b"tR"


def test_a_file_of_python_2_is_read(tmp_path):
    # An OrderedDict of Python 2 is a call with a list of pairs; so old torchvision files may be.
    pairs = b"]](" + text("w") + tensor() + b"ea"
    path = tmp_path / "old.pth"
    path.write_bytes(legacy(b"ccollections\nOrderedDict\n" + pairs + b"\x85R"))
    assert_same(read_weights(path), {"w": np.array([1, 2], np.float32)})


HUGE = b"\x8a\x09" + (2**64).to_bytes(9, "little")
NEGATIVE = b"J" + struct.pack("<i", -1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (tensor(offset=b"K\x01"), "reaches beyond its storage"),
        (tensor(stride=b"K\x02\x85"), "reaches beyond its storage"),
        (tensor(shape=HUGE + b"\x85"), "reaches beyond its storage"),
        (tensor(shape=HUGE + b"\x85", stride=b"K\x00\x85"), "bytes in memory"),
        (tensor(shape=HUGE + b"K\x00\x86", stride=b"K\x00K\x00\x86"), "damaged"),
        (tensor(offset=NEGATIVE), "negative"),
        (tensor(stride=NEGATIVE + b"\x85"), "negative"),
        (tensor(shape=b"K\x02K\x01\x86"), "2 sizes and 1 strides"),
        (tensor(shape=text("x") + b"\x85"), "fractional"),
        (tensor(of=storage(size=b"K\x03")), "reaches|has 2 elements, not 3"),
        (tensor(of=storage(kind=b"DoubleStorage")), "ends within storage k"),
        (tensor(of=storage(key="other")), "k is missing"),
        (tensor(of=storage(size=HUGE)), "has 2 elements"),
        (tensor(of=storage(size=NEGATIVE)), "something other than the storage"),
        (tensor(of=storage(kind=b"Size")), "refers to torch.Size"),
        (b"h\x07", "7 is missing"),
        (b"t", "unmatched mark"),
        (b"\x87", "empty stack"),
        (b"K\x01K\x02b", "fills an object of type int"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, body, why):
    path = tmp_path / "odd.pth"
    path.write_bytes(legacy(b"}" + text("w") + body + b"s"))
    with pytest.raises(UserError, match=why) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_a_bomb_of_nested_tuples_is_refused_at_once(tmp_path):
    doubled = b"K\x01\x85" + b"".join(
        b"q" + bytes([i]) + b"h" + bytes([i, 0x86]) for i in range(99)
    )
    for body in (b"}" + doubled + b"K\x01s", b"}" + text("w") + doubled + b"s"):
        path = tmp_path / "bomb.pth"
        path.write_bytes(legacy(body))
        with pytest.raises(UserError, match="tuple"):
            read_weights(path)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path, container, protocol):
    marker = tmp_path / "was_run"
    poison = pickle.dumps({"weight": Evil(marker)}, protocol)
    path = tmp_path / "evil.pth"
    if container == "zip":
        zipped(path, {"archive/data.pkl": poison, "archive/version": b"3\n"})
    elif container == "legacy":
        path.write_bytes(legacy(poison[:-1].removeprefix(b"\x80\x02")))
    else:
        path.write_bytes(poison)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert not marker.exists()
    if protocol > 0:  # 0 has no mark at its beginning and other opcodes
        assert "refers to posix.system" in str(caught.value)
        assert "save model.state_dict()" in str(caught.value)
    # The test can fail: unpickled by Python, the same bytes do run.
    pickle.loads(poison)
    assert marker.exists()


@pytest.mark.parametrize("container", [ZIP, LEGACY])
def test_a_whole_module_names_its_class_and_the_fix(tmp_path, container):
    torch = need_torch()
    path = save(tmp_path / "whole.pth", torch.nn.Linear(2, 2), container)
    with pytest.raises(UserError, match="torch.nn.modules.linear.Linear.*not a plain state dict"):
        read_weights(path)
    with pytest.raises(UserError, match=r"save\s+model.state_dict\(\)"):
        read_weights(path)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1, 2], "holds an object of type list and no dict"),
        ({"a": 1}, "holds a of type int, not a tensor"),
        ({"state_dict": {"a": {"b": 1}}}, "holds a of type dict, not a tensor"),
        ({}, "holds no weights"),
        ({"a": {1, 2}}, "refers to __builtin__.set|opcode EMPTY_SET"),
        ({(1, 2): 3}, "key of type tuple"),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path, value, why):
    path = save(tmp_path / "other.pth", value)
    with pytest.raises(UserError, match=why):
        read_weights(path)


def test_numpy_arrays_in_a_checkpoint_are_refused_by_name(tmp_path):
    path = save(tmp_path / "other.pth", {"a": np.float64(1)})
    with pytest.raises(UserError, match=r"numpy\.\S*multiarray.scalar"):
        read_weights(path)


def test_a_tensor_type_without_a_numpy_type_is_refused(tmp_path):
    torch = need_torch()
    path = save(tmp_path / "c.pth", {"a": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(UserError, match="torch.ComplexFloatStorage"):
        read_weights(path)


def test_an_archive_that_does_not_fit_its_pickle_is_refused(tmp_path):
    torch = need_torch()
    good = members_of(save(tmp_path / "good", {"a": torch.ones(3)}))

    def refused(why, **changes):
        members = good | {f"good/{k.replace('_', '/')}": v for k, v in changes.items()}
        path = zipped(tmp_path / "bad", {k: v for k, v in members.items() if v is not None})
        with pytest.raises(UserError, match=why):
            read_weights(path)

    refused("data/0 has 11 bytes, not 12", data_0=b"x" * 11)
    refused("data/0 is missing", data_0=None)
    refused("byte order", byteorder=b"middle")
    refused("is no weight file", **{"data.pkl": None})
    refused("damaged", **{"data.pkl": b""})
    long = b"X" + struct.pack("<i", 2**22) + b" " * 2**22
    refused("4 MiB", **{"data.pkl": b"\x80\x02" + long + b"]."})
    squeezed = tmp_path / "squeezed"
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in good.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="compressed"):
        read_weights(squeezed)


# ---- safetensors


def test_safetensors(tmp_path):
    numpy = need_safetensors()
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "half": rng.normal(size=3).astype(np.float16),
        "double": rng.normal(size=2),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 2), np.float32),
        "uint8": np.arange(4, dtype=np.uint8),
        "int16": np.arange(4, dtype=np.int16),
        "bool": np.array([True, False]),
    }
    numpy.save_file(arrays, tmp_path / "weights.bin", metadata={"format": "np"})
    found = read_weights(tmp_path / "weights.bin")
    assert_same(dict(sorted(found.items())), dict(sorted(arrays.items())))
    found["w"][:] = 0  # the arrays can be written to


def test_bfloat16_of_safetensors_is_float32(tmp_path):
    need_safetensors()
    torch = need_torch()
    from safetensors.torch import save_file

    low = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_file({"low": low, "one": torch.tensor(-1.5).bfloat16()}, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert_same(dict(sorted(found.items())), as_numpy({"low": low, "one": torch.tensor(-1.5)}))


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle(tmp_path):
    numpy = need_safetensors()
    array = np.ones(2, np.float32)
    for filler in range(400, 640):
        numpy.save_file({"w": array}, tmp_path / "w", metadata={"note": "x" * filler})
        if (tmp_path / "w").read_bytes()[:2] == b"\x80\x02":
            break
    assert (tmp_path / "w").read_bytes()[:2] == b"\x80\x02"
    assert_same(read_weights(tmp_path / "w"), {"w": array})


def test_a_type_without_a_numpy_type_is_named(tmp_path):
    need_safetensors()
    header = b'{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "w").write_bytes(struct.pack("<q", len(header)) + header + b"ab")
    with pytest.raises(UserError, match="w is of type F8_E4M3; convert it to float32"):
        read_weights(tmp_path / "w")


# ---- Keras


def keras_file(path, layers, under=None, names=("layer_names", "weight_names")):
    with need_h5py().File(path, "w") as file:
        root = file.create_group(under) if under else file
        root.attrs[names[0]] = np.array([layer.encode() for layer in layers])
        for layer, weights in layers.items():
            group = root.create_group(layer)
            group.attrs[names[1]] = np.array([name.encode() for name in weights], dtype="S")
            for name, array in weights.items():
                group.create_dataset(name, data=array)
    return path


def arrays(count):
    return list(np.random.default_rng(1).normal(size=(count, 3, 2)).astype(np.float32))


KERAS_2 = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
KERAS_1 = ("W", "b", "gamma", "beta", "running_mean", "running_std")


@pytest.mark.parametrize("under", [None, "model_weights"])
@pytest.mark.parametrize(
    ("pattern", "weights"),
    [
        ("{0}/{1}:0", KERAS_2),
        ("{0}_2/{1}:0", KERAS_2),  # the second model of a session
        ("{0}/{0}/{1}:0", KERAS_2),
        ("net/{0}/{1}", KERAS_2),  # Keras 3 writing its legacy format
        ("{1}", KERAS_2),
        ("{0}_{1}:0", KERAS_1),  # ResNet-50 of 2016
        ("{0}_{1}_1:0", KERAS_1),  # VGG-16 and VGG-19 of 2016
    ],
)
@pytest.mark.parametrize(("conv", "bn"), [("conv1", "bn_conv1"), ("res2a_b", "bn2a_branch2a")])
def test_weights_of_keras_have_one_name_whichever_version_wrote_them(
    tmp_path, under, pattern, weights, conv, bn
):
    values = arrays(6)
    owners = [conv, conv, bn, bn, bn, bn]
    layers = {"input_1": {}, conv: {}, bn: {}}
    for layer, weight, value in zip(owners, weights, values, strict=True):
        layers[layer][pattern.format(layer, weight)] = value
    found = read_weights(keras_file(tmp_path / "weights.h5", layers, under))
    names = [f"{layer}/{weight}" for layer, weight in zip(owners, KERAS_2, strict=True)]
    assert_same(found, dict(zip(names, values, strict=True)))


def test_layers_of_a_model_within_a_model_keep_both_names(tmp_path):
    kernel, old, own = arrays(3)
    layers = {
        "vgg19": {"block1_conv1/kernel:0": kernel, "block1_conv2_W_1:0": old},
        "predictions": {"predictions/kernel:0": own},
    }
    found = read_weights(keras_file(tmp_path / "w.h5", layers))
    names = ("vgg19/block1_conv1/kernel", "vgg19/block1_conv2/kernel", "predictions/kernel")
    assert_same(found, dict(zip(names, (kernel, old, own), strict=True)))


def test_names_that_keras_divides_over_attributes_are_joined(tmp_path):
    (kernel,) = arrays(1)
    layers = {"conv1": {"conv1/kernel:0": kernel}}
    path = keras_file(tmp_path / "w.h5", layers, names=("layer_names0", "weight_names0"))
    assert_same(read_weights(path), {"conv1/kernel": kernel})


def test_half_precision_and_big_endian_weights_of_keras(tmp_path):
    half, big = np.arange(4, dtype=np.float16), np.arange(4, dtype=">f4")
    layers = {"a": {"a/kernel:0": half, "a/bias:0": big}}
    found = read_weights(keras_file(tmp_path / "w.h5", layers))
    assert_same(found, {"a/kernel": half, "a/bias": big.astype(np.float32)})


def test_hdf5_that_keras_did_not_write_or_that_lies(tmp_path):
    h5py = need_h5py()
    path = tmp_path / "w.h5"
    layer = {"a": {"a/kernel:0": np.zeros(3, np.float32)}}

    def refused(why, change):
        keras_file(path, layer)
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(UserError, match=why):
            read_weights(path)

    def replaced(make):
        def change(file):
            del file["a/a/kernel:0"]
            make(file)

        return change

    def huge(file):
        file.create_dataset("a/a/kernel:0", (2**40,), "f4", chunks=(2**20,))

    def outside(file):
        file["a/a/kernel:0"] = h5py.ExternalLink("other.h5", "/a/a/kernel:0")

    keras_file(tmp_path / "other.h5", layer)
    refused("names no Keras layers", lambda f: f.attrs.pop("layer_names"))
    refused("a/kernel:0 is missing", lambda f: f.pop("a/a/kernel:0"))
    refused("a is missing", lambda f: f.pop("a"))
    refused("two weights are called a/kernel", _twice)
    refused("not stored in full", replaced(huge))
    refused("in another file", replaced(outside))
    refused("no array of numbers", replaced(lambda f: f.create_group("a/a/kernel:0")))
    refused("no array of numbers", replaced(lambda f: f.create_dataset("a/a/kernel:0", data="x")))


def _twice(file):
    file["a"].attrs["weight_names"] = np.array([b"a/kernel:0", b"a/kernel:0"])


# ---- all formats


def whole_files():
    torch = need_torch()
    numpy = need_safetensors()
    state = {"a.weight": torch.arange(12.0).reshape(3, 4).T, "b": torch.arange(3)}
    files = {}
    for name, container in (("zip", ZIP), ("legacy", LEGACY)):
        buffer = io.BytesIO()
        save(buffer, collections.OrderedDict(state), container)
        files[name] = buffer.getvalue()
    files["safetensors"] = bytes(numpy.save({"a": np.arange(5.0), "b": np.ones(2, np.float32)}))
    return files


def keras_bytes(tmp_path):
    layers = {"a": {"a/kernel:0": np.ones((3, 2), np.float32), "a/bias:0": np.zeros(2, np.float32)}}
    return keras_file(tmp_path / "whole.h5", layers).read_bytes()


def assert_refused_or_read(path):
    """Returns whether the file was read; anything but a UserError that names the file fails."""
    try:
        found = read_weights(path)
    except UserError as error:
        message = str(error)
        assert str(path) in message
        assert "Error" not in message.replace(str(path), "")
        return False
    assert all(isinstance(array, np.ndarray) for array in found.values())
    return True


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "keras"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, kind):
    if kind == "keras":
        need_h5py()
    content = keras_bytes(tmp_path) if kind == "keras" else whole_files()[kind]
    path = tmp_path / "cut"
    path.write_bytes(content)
    assert assert_refused_or_read(path)
    ends = sorted({*range(0, len(content), max(1, len(content) // 300)), len(content) - 1})
    for end in ends:
        path.write_bytes(content[:end])
        assert not assert_refused_or_read(path), end


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    found = whole_files()
    path = tmp_path_factory.mktemp("files") / "zip"
    path.write_bytes(found["zip"])
    found["pickle"] = members_of(path)["archive/data.pkl"]
    found["members"] = members_of(path)
    return found


@pytest.mark.parametrize("kind", ["zip", "pickle", "legacy", "safetensors"])
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_give_a_user_error_or_other_weights(tmp_path_factory, files, kind, data):
    content = bytearray(files[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged_{kind}"
    if kind == "pickle":  # with a checksum that fits
        zipped(path, files["members"] | {"archive/data.pkl": bytes(content)})
    else:
        path.write_bytes(content)
    assert_refused_or_read(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\3\4", b"hello, world", b"\x89HDF\r\n\x1a\n"]
)
def test_what_is_no_weight_file_is_a_user_error(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert not assert_refused_or_read(path)


def test_missing_files_and_folders(tmp_path):
    for call in (read_weights, sha256):
        with pytest.raises(UserError, match="nowhere.pth: cannot be opened .*check the path"):
            call(tmp_path / "nowhere.pth")
        with pytest.raises(UserError, match="cannot be opened"):
            call(tmp_path)


@pytest.mark.parametrize(
    ("package", "head"),
    [("h5py", b"\x89HDF\r\n\x1a\n"), ("safetensors", struct.pack("<q", 2) + b"{}")],
)
def test_a_missing_package_is_named_with_its_installation(tmp_path, monkeypatch, package, head):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "weights"
    path.write_bytes(head)
    with pytest.raises(UserError, match=rf"{package}; pip install 'mskjax\[pretrained\]'"):
        read_weights(path)


def test_sha256(tmp_path):
    content = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
