"""ImageNet weights for the classifiers, from torchvision's files or Keras Applications'.

Files are given by the user; nothing is downloaded.  They are taken whole or not at all.

Layouts.  torchvision stores kernels as (out, in, rows, columns) and matrices as (out, in), and
flattens maps channels first; Keras stores them as we do.  What Keras does otherwise is folded into
the weights, so that our network takes the same input whatever file it started from:

* Its networks take BGR in 0 to 255 less a mean colour, ours standardised RGB.  The channel order
  and torchvision's deviations (.229, .224, .225 of 255) go into the first kernel.  The mean colour
  is left to the input: Keras' and torchvision's differ by less than half a grey level, and a zero
  in the padding then means the mean colour to both.
* Its ResNet-50 adds a bias before each normalisation and has another epsilon, 1.001e-5 (first
  generation of the file, with layers named ``res2a_branch2a``: 1e-3, the layer's default).  With
  z the convolution, b its bias, m and v the running mean and variance,
  ``(z + b - m) / sqrt(v + e) = (z - (m - b)) / sqrt((v + e - e') + e')``, which is exact where
  running averages are used.  (For the same file, early releases of Keras did not pad the max
  pooling; later ones do, as the paper and we do.)
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from mskjax.errors import UserError
from mskjax.models import weight_files
from mskjax.models.alexnet import AlexNet
from mskjax.models.norms import EPSILON  # torchvision has the same
from mskjax.models.resnet import ResNet
from mskjax.models.vgg import VGG

Classifier = VGG | ResNet | AlexNet
Variable = tuple[str, ...]  # collection, modules, name: ("params", "stem", "kernel")
Arrays = dict[Variable, np.ndarray]

DEVIATIONS = 255 * np.array([0.229, 0.224, 0.225])  # of RGB on ImageNet, torchvision's
LISTED = 20


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What became of a file of weights.

    Attributes:
      variables: new collections, float32.
      sha256: of the file, hexadecimal.
      loaded: arrays of ours that were set.
      adapted: a sentence for each change beyond a change of layout.
      left: layers that keep their initialisation.
    """

    variables: dict[str, Any]
    sha256: str
    loaded: int
    adapted: list[str]
    left: list[str]

    def notes(self) -> list[str]:
        """All of it as sentences, for logs and reports."""
        first = f"{self.loaded} arrays were loaded from the file with SHA-256 {self.sha256}."
        last = [f"These layers keep their initialisation: {', '.join(self.left)}."]
        return [first, *self.adapted, *(last if self.left else [])]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or matrix with what follows it, in our names and in the file's.

    Attributes:
      ours: path of our module, joined by "/".
      theirs: name in the file.
      norm: ours and theirs of the batch normalisation that follows, or None.
      grid: rows and columns of the map that is flattened before the layer, or None.
      top: whether it is one of the fully connected layers, which some files lack.
    """

    ours: str
    theirs: str
    norm: tuple[str, str] | None = None
    grid: tuple[int, int] | None = None
    top: bool = False


def load(
    path: str | Path, model: Classifier, variables: dict[str, Any], classifier: str | None = None
) -> Loaded:
    """Variables of a model with the weights of a file in place of their initialisation.

    A first convolution of C channels other than 3 gets the mean of the file's RGB kernel times
    3 / C: a grey image gives what it gave as RGB, in one channel or repeated in all C.

    Args:
      path: torchvision's VGG-19, VGG-19-BN, ResNet-50 or AlexNet (.pth, .pt, .safetensors) or
        Keras Applications' VGG19 or ResNet50 (.h5, with or without its top).
      model: of the published width and depth; any heads and number of input channels.
      variables: its initialised collections.
      classifier: head that takes the file's 1000 classes; None leaves all heads.

    Raises:
      UserError: the file does not fit the model: every missing or unexpected name and every other
        shape in one message.
      ValueError: the model has no head `classifier`.
    """
    if classifier is not None and classifier not in dict(model.heads):
        raise ValueError(f"classifier is {classifier!r}; the model has heads {model.heads}")
    file = weight_files.read_weights(path)
    keras = any("/" in name for name in file)
    _check_design(path, model, keras)
    ours: Arrays = traverse_util.flatten_dict(variables)
    every_layer = _keras_layers(model, file) if keras else _torch_layers(model)
    layers, ignored = _choose_top(list(every_layer), file, classifier)
    names: dict[Variable, str] = {}
    for layer in layers:
        names |= _keras_names(layer) if keras else _torch_names(layer, ours)
    arrays = {variable: file[name] for variable, name in names.items() if name in file}
    if not keras:
        grids = {_kernel(layer): layer.grid for layer in layers}
        arrays = {v: _from_torch(array, grids.get(v)) for v, array in arrays.items()}
    stem = _kernel(layers[0])
    arrays, other_shapes = _fit(arrays, ours, names, stem)
    _refuse(path, model, _other_names(names, file, ignored) + other_shapes)
    adapted = _fold_keras(arrays, layers, _keras_epsilon(file)) if keras else []
    adapted += _adapt_stem(arrays, stem, ours[stem].shape[2])
    left = dict.fromkeys("/".join(v[1:-1]) for v in ours if v not in arrays)
    new = {v: jnp.asarray(arrays.get(v, array), jnp.float32) for v, array in ours.items()}
    return Loaded(
        variables=traverse_util.unflatten_dict(new),
        sha256=weight_files.sha256(path),
        loaded=len(arrays),
        adapted=adapted,
        left=list(left),
    )


def _check_design(path: str | Path, model: Classifier, keras: bool) -> None:
    """Refuses what shapes alone would not show."""
    if isinstance(model, AlexNet) and keras:
        raise UserError(f"{path}: Keras has no AlexNet; give torchvision's alexnet file.")
    if isinstance(model, VGG) and keras and model.norm != "none":
        raise UserError(
            f"{path}: Keras' VGG19 has no normalisation; set model.norm to 'none', or give"
            " torchvision's vgg19_bn file."
        )
    if isinstance(model, ResNet) and keras != model.stride_in_first:
        source, place = ("Keras", "first 1x1") if keras else ("torchvision", "3x3")
        raise UserError(
            f"{path}: {source} has ResNet-50's strides in the {place} convolutions; set"
            f" model.stride_in_first to {keras}."
        )
    if not isinstance(model, AlexNet) and model.norm not in ("none", "batch"):
        raise UserError(
            f"{path}: no published weights have {model.norm} normalisation; set model.norm to"
            " 'batch', or start without pretrained weights."
        )


def _torch_layers(model: Classifier) -> Iterator[Layer]:
    """The layers in torchvision's names, the 1000-class layer last."""
    if isinstance(model, ResNet):
        yield from _resnet_layers(model, ("conv1", "bn1"), _torch_block, "fc")
    elif isinstance(model, VGG):
        number = 0  # in torchvision's sequence, which counts ReLUs and poolings too
        for block, count in enumerate(model.convolutions):
            for conv in range(count):
                norm = None
                if model.norm != "none":
                    norm = (f"block_{block}_norm_{conv}", f"features.{number + 1}")
                yield Layer(f"block_{block}_conv_{conv}", f"features.{number}", norm)
                number += 3 if norm else 2
            number += 1
        yield from _top(("classifier.0", "classifier.3", "classifier.6"), model.pool)
    else:
        for conv, number in enumerate((0, 3, 6, 8, 10), start=1):
            yield Layer(f"conv_{conv}", f"features.{number}")
        yield from _top(("classifier.1", "classifier.4", "classifier.6"), (6, 6))


def _keras_layers(model: Classifier, file: dict[str, np.ndarray]) -> Iterator[Layer]:
    """The layers in Keras' names, the 1000-class layer last."""
    if isinstance(model, VGG):
        for block, count in enumerate(model.convolutions):
            for conv in range(count):
                yield Layer(f"block_{block}_conv_{conv}", f"block{block + 1}_conv{conv + 1}")
        yield from _top(("fc1", "fc2", "predictions"), model.pool)
    elif isinstance(model, ResNet) and _is_second_generation(file):
        # keras-applications called its top "probs", TensorFlow's Keras "predictions".
        top = "probs" if "probs/kernel" in file else "predictions"
        yield from _resnet_layers(model, ("conv1_conv", "conv1_bn"), _keras_block, top)
    elif isinstance(model, ResNet):
        yield from _resnet_layers(model, ("conv1", "bn_conv1"), _old_keras_block, "fc1000")


def _is_second_generation(file: dict[str, np.ndarray]) -> bool:
    """Whether a file of Keras' ResNet50 has the names of 2019 and later."""
    return "conv1_conv/kernel" in file


def _torch_block(group: int, block: int, part: int) -> tuple[str, str]:
    """Names in torchvision of convolution and norm; parts as in `_resnet_layers`."""
    prefix = f"layer{group + 1}.{block}"
    if part == 0:
        return f"{prefix}.downsample.0", f"{prefix}.downsample.1"
    return f"{prefix}.conv{part}", f"{prefix}.bn{part}"


def _keras_block(group: int, block: int, part: int) -> tuple[str, str]:
    """Names in Keras, e.g. conv2_block1_0_conv."""
    prefix = f"conv{group + 2}_block{block + 1}_{part}"
    return f"{prefix}_conv", f"{prefix}_bn"


def _old_keras_block(group: int, block: int, part: int) -> tuple[str, str]:
    """Names in the first Keras files, e.g. res2a_branch2b; branch1 is the shortcut."""
    branch = "1" if part == 0 else "2" + "abc"[part - 1]
    suffix = f"{group + 2}{chr(ord('a') + block)}_branch{branch}"
    return f"res{suffix}", f"bn{suffix}"


def _resnet_layers(
    model: ResNet,
    stem: tuple[str, str],
    named: Callable[[int, int, int], tuple[str, str]],
    top: str,
) -> Iterator[Layer]:
    """Layers of a ResNet; `named` gives convolution and norm of (group, block, part).

    Parts 1 to 3 are the block's convolutions, 0 is its shortcut.
    """
    yield Layer("stem", stem[0], ("stem_norm", stem[1]))
    for group, count in enumerate(model.blocks):
        for block in range(count):
            prefix = f"group_{group}_block_{block}"
            for part in (0, 1, 2, 3) if block == 0 else (1, 2, 3):
                conv, norm = named(group, block, part)
                ours = f"{prefix}/conv_{part}" if part else f"{prefix}/shortcut"
                our_norm = f"{prefix}/norm_{part or 'shortcut'}"
                yield Layer(ours, conv, (our_norm, norm))
    yield Layer("head", top, top=True)


def _top(theirs: tuple[str, str, str], grid: tuple[int, int]) -> Iterator[Layer]:
    """The fully connected layers of VGG and AlexNet."""
    yield Layer("fc6", theirs[0], grid=grid, top=True)
    yield Layer("fc7", theirs[1], top=True)
    yield Layer("head", theirs[2], top=True)


def _choose_top(
    layers: list[Layer], file: dict[str, np.ndarray], classifier: str | None
) -> tuple[list[Layer], str]:
    """Layers to load, and the name in the file of a layer to ignore ("" for none).

    The file's classes go to the head `classifier` or nowhere.  Of a file without any fully
    connected layer ("notop") only the convolutions are taken, unless `classifier` asks for more.
    """
    *layers, head = layers
    if classifier is not None:
        return [*layers, dataclasses.replace(head, ours=f"head_{classifier}")], ""
    present = {_layer_of(name) for name in file}
    if not any(layer.theirs in present for layer in (*layers, head) if layer.top):
        layers = [layer for layer in layers if not layer.top]
    return layers, head.theirs


def _layer_of(name: str) -> str:
    """The layer's part of an array's name in a file."""
    return name.rsplit("/" if "/" in name else ".", 1)[0]


def _kernel(layer: Layer) -> Variable:
    return ("params", *layer.ours.split("/"), "kernel")


def _torch_names(layer: Layer, ours: Iterable[Variable]) -> dict[Variable, str]:
    """Our variables of a layer and the file's names of them."""
    names = {_kernel(layer): f"{layer.theirs}.weight"}
    bias = (*_kernel(layer)[:-1], "bias")
    if bias in ours:
        names[bias] = f"{layer.theirs}.bias"
    if layer.norm:
        names |= _norm_names(*layer.norm, TORCH_NORM)
    return names


def _keras_names(layer: Layer) -> dict[Variable, str]:
    """As `_torch_names`; a bias that is to be folded has the collection "fold"."""
    names = {
        _kernel(layer): f"{layer.theirs}/kernel",
        _bias(layer): f"{layer.theirs}/bias",
    }
    if layer.norm:
        names |= _norm_names(*layer.norm, KERAS_NORM)
    return names


def _bias(layer: Layer) -> Variable:
    return ("fold" if layer.norm else "params", *layer.ours.split("/"), "bias")


# In the order of scale, bias, mean and variance.
TORCH_NORM = (".weight", ".bias", ".running_mean", ".running_var")
KERAS_NORM = ("/gamma", "/beta", "/moving_mean", "/moving_variance")
OUR_NORM = (
    ("params", "scale"),
    ("params", "bias"),
    ("batch_stats", "mean"),
    ("batch_stats", "var"),
)


def _norm_names(ours: str, theirs: str, suffixes: tuple[str, ...]) -> dict[Variable, str]:
    path = tuple(ours.split("/"))
    return {
        (collection, *path, name): theirs + suffix
        for (collection, name), suffix in zip(OUR_NORM, suffixes, strict=True)
    }


def _other_names(
    names: dict[Variable, str], file: dict[str, np.ndarray], ignored: str
) -> list[str]:
    """What is missing in the file and what is there that the model has no place for."""
    expected = set(names.values())
    missing = [f"{name} is missing in the file" for name in names.values() if name not in file]
    extra = [
        f"{name} is unexpected"
        for name in file
        if name not in expected
        and not name.endswith(".num_batches_tracked")
        and _layer_of(name) != ignored
    ]
    return missing + extra


def _from_torch(array: np.ndarray, grid: tuple[int, int] | None) -> np.ndarray:
    """Our layout of PyTorch's; `grid` is of the map that was flattened channels first."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if grid and array.shape[1] % (grid[0] * grid[1]) == 0:
        array = array.reshape(len(array), -1, *grid).transpose(0, 2, 3, 1).reshape(array.shape)
    return array.T


def _fit(
    arrays: Arrays, ours: Arrays, names: dict[Variable, str], stem: Variable
) -> tuple[Arrays, list[str]]:
    """Arrays in the shapes of ours, and a sentence about each that has another shape."""
    fitted, problems = {}, []
    for variable, array in arrays.items():
        if variable[0] == "fold":
            shape = ours["params", *variable[1:-1], "kernel"].shape[-1:]
        else:
            shape = ours[variable].shape
        if variable == stem:
            shape = (*shape[:2], 3, shape[3])
        # 1x1 convolutions are matrices here.
        pointwise = array.ndim == 4 and array.shape[:2] == (1, 1) and len(shape) == 2
        array = array[0, 0] if pointwise else array
        if array.shape == shape:
            fitted[variable] = array.astype(np.float32)
        else:
            name = names[variable]
            problems.append(f"{name} has shape {array.shape} in our layout, the model {shape}")
    return fitted, problems


def _refuse(path: str | Path, model: Classifier, problems: list[str]) -> None:
    if not problems:
        return
    shown = problems[:LISTED]
    if len(problems) > LISTED:
        shown.append(f"and {len(problems) - LISTED} more")
    norm = "" if isinstance(model, AlexNet) else f" with norm '{model.norm}'"
    raise UserError(
        f"{path}: the weights do not fit this {type(model).__name__}{norm}; give the file of this"
        f" architecture and the model its published sizes: {'; '.join(shown)}."
    )


def _keras_epsilon(file: dict[str, np.ndarray]) -> float:
    return 1.001e-5 if _is_second_generation(file) else 1e-3


def _fold_keras(arrays: Arrays, layers: list[Layer], epsilon: float) -> list[str]:
    """Folds in place what Keras does otherwise (see above); says what."""
    stem = _kernel(layers[0])
    arrays[stem] = (arrays[stem][:, :, ::-1] * DEVIATIONS[:, None]).astype(np.float32)
    done = [
        "The first kernel was turned from BGR to RGB and multiplied by 255 times the deviations"
        " (0.229, 0.224, 0.225), so that the network takes standardised input; padding with zeros"
        " is exact where an input of zero is Keras' mean colour, which is within half a grey level"
        " of torchvision's."
    ]
    normalised = [(layer, layer.norm[0].split("/")) for layer in layers if layer.norm]
    for layer, path in normalised:
        arrays["batch_stats", *path, "mean"] -= arrays.pop(_bias(layer))
        arrays["batch_stats", *path, "var"] += np.float32(epsilon - EPSILON)
    if normalised:
        done.append(
            "The biases of the convolutions were folded into the running means, and Keras' epsilon"
            f" {epsilon:g} in place of {EPSILON:g} into the running variances."
        )
    return done


def _adapt_stem(arrays: Arrays, stem: Variable, channels: int) -> list[str]:
    """Spreads the first kernel over other than three channels, in place; says so."""
    if channels == 3:
        return []
    mean = arrays[stem].mean(2, keepdims=True, dtype=np.float64) * (3 / channels)
    arrays[stem] = np.repeat(mean, channels, axis=2).astype(np.float32)
    return [
        f"The first kernel was averaged over RGB and spread over {channels} channels, each with"
        f" 3 / {channels} of the mean, so that a grey image gives what it gave as RGB."
    ]
