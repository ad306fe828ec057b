"""Prepared examples: found again for what they depend on, shared for what they do not."""

import dataclasses
import errno
import sys
import types

import numpy as np
import pytest
from data.cutting import STUDIES, examples_of
from training.toy import Toy, ToyOptions, toy, toy_config

from mskjax.data import examples, shards
from mskjax.data.examples import Rows, code_of, key_of, prepare, rows_of
from mskjax.data.pipeline import balanced_order, evaluation_batches, take
from mskjax.imaging.augment import SliceAugmentation
from mskjax.stages.slice_segmentation import (
    SliceSegmentation,
    SliceSegmentationOptions,
    UNetOptions,
)

PATIENTS = [f"p{n // 2}" for n in range(STUDIES)]


def counting(calls):
    def cut(number):
        calls.append(number)
        return examples_of(number)

    return cut


def test_examples_are_cut_once_and_shared(tmp_path):
    calls, folders = [], [tmp_path / "package", tmp_path / "run"]
    first = prepare("toy", {"a": 1}, counting(calls), PATIENTS, folders)
    again = prepare("toy", {"a": 1}, counting(calls), PATIENTS, folders)
    assert calls == list(range(STUDIES))
    for name, values in first.examples.items():
        np.testing.assert_array_equal(again.examples[name], values)
    owners = [p for n, p in enumerate(PATIENTS) for _ in range(n % 4)]
    assert first.patients.tolist() == again.patients.tolist() == owners
    assert [c.partition("/")[0] for c in first.cases] == [str(int(v[0, 0])) for v in
                                                          first.examples["image"]]  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_what_is_cut_with_other_options_lies_beside(tmp_path):
    calls = []
    for key in ({"a": 1}, {"a": 2}, {"a": 1}):
        prepare("toy", key, counting(calls), PATIENTS, [tmp_path])
    assert len(calls) == 2 * STUDIES
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_package_that_cannot_be_written_is_read_and_the_run_keeps_what_is_new(
    tmp_path, monkeypatch, capsys, number
):
    package, run = tmp_path / "package", tmp_path / "run"
    prepare("toy", {"a": 1}, counting([]), PATIENTS, [package])
    made = shards.make

    def forbidden(folder, *rest):
        if folder.parent == package:
            raise OSError(number, "forbidden", str(folder))
        return made(folder, *rest)

    monkeypatch.setattr(shards, "make", forbidden)
    calls = []
    prepare("toy", {"a": 1}, counting(calls), PATIENTS, [package, run])
    assert not calls
    capsys.readouterr()
    prepare("toy", {"a": 2}, counting(calls), PATIENTS, [package, run])
    said = capsys.readouterr().out.splitlines()
    assert said.count(f"{package} cannot be written; examples are kept in {run}") == 1
    prepare("toy", {"a": 2}, counting(calls), PATIENTS, [package, run])
    assert calls == list(range(STUDIES))
    with pytest.raises(OSError, match="forbidden"):
        prepare("toy", {"a": 3}, counting(calls), PATIENTS, [package])


def test_rows_are_read_when_they_are_asked_for():
    array = np.arange(24, dtype=np.float32).reshape(8, 3)
    rows = Rows(array, np.array([5, 1, 6]))
    assert (len(rows), rows.shape, rows.dtype, rows.nbytes) == (3, (3, 3), np.float32, 36)
    np.testing.assert_array_equal(np.asarray(rows), array[[5, 1, 6]])
    np.testing.assert_array_equal(rows[1], array[1])
    np.testing.assert_array_equal(rows[1:], array[[1, 6]])
    np.testing.assert_array_equal(np.array(list(rows)), array[[5, 1, 6]])
    np.testing.assert_array_equal((rows > 4) * 2 + 1, (array[[5, 1, 6]] > 4) * 2 + 1)
    array[1] = 0
    assert not rows[1].any()
    whole = {"image": array, "label": np.arange(8) % 2}
    chosen = np.array([7, 0, 2])
    pairs = zip(
        evaluation_batches(rows_of(whole, chosen), 2),
        evaluation_batches(take(whole, chosen), 2),
        strict=True,
    )
    for ours, copied in pairs:
        for name, values in copied.items():
            np.testing.assert_array_equal(ours[name], values)


UNET = SliceSegmentation("regions", SliceSegmentationOptions(), ("disc",), (64, 48))


def changed(**fields):
    options = dataclasses.replace(UNET.options, **fields)
    return dataclasses.replace(UNET, options=options).cutting()


def test_trials_that_cut_alike_share_their_examples():
    for fields in (
        {"train": toy_config(learning_rate=1.0)},
        {"model": UNetOptions(widths=(3, 4, 5))},
        {"augmentation": SliceAugmentation(flip=0.1)},
        {"patch": (8, 8)},
    ):
        assert changed(**fields) == UNET.cutting(), fields
    assert changed(spacing_mm=2.0) != UNET.cutting()
    assert dataclasses.replace(UNET, canvas=(80, 48)).cutting() != UNET.cutting()


def test_a_stage_that_cuts_by_an_option_it_calls_unread_fails():
    class Cutting(Toy):
        def training_examples(self, study):
            return {"image": np.zeros((self.options.train.steps, 2))}

    stage = Cutting("toy", ToyOptions(toy_config()))
    with pytest.raises(AttributeError):
        stage.cutting().training_examples({})

    class Declared(Cutting):
        unread = ("model",)

    stage = Declared("toy", ToyOptions(toy_config()))
    assert len(stage.cutting().training_examples({})["image"]) == 12


def test_balanced_sampling_reads_the_classes_of_the_chosen_alone():
    label = np.array([0, 1, 1, 1, 0, 1], np.int32)
    classes = toy().classes(rows_of({"label": label}, np.array([0, 1, 2])))
    assert balanced_order(np.asarray(classes)).tolist() == [0, 0, 1, 2]


def test_the_key_holds_cohort_options_code_and_versions(tmp_path, monkeypatch):
    module = types.ModuleType("own_stage")
    module.__file__ = str(tmp_path / "own_stage.py")
    (tmp_path / "own_stage.py").write_text("SIZE = 1\n")
    monkeypatch.setitem(sys.modules, "own_stage", module)
    own = type("Own", (Toy,), {"__module__": "own_stage"})

    def key(fingerprint="f", options=(("a", 1),), classes=(own,), **more):
        examples._digest.cache_clear()
        return key_of(fingerprint, dict(options), classes, **more)

    first = key()
    assert key() == first
    assert first["versions"]["numpy"] == np.__version__
    others = [key("g"), key(options=(("a", 2),)), key(classes=(Toy,)), key(shuffled=3)]
    (tmp_path / "helper.py").write_text("def cut(): pass\n")  # beside the stage
    others.append(key())
    (tmp_path / "own_stage.py").write_text("SIZE = 2\n")
    others.append(key())
    assert all(a != b for i, a in enumerate([first, *others]) for b in others[i:])
    assert code_of((own, object)) == code_of((own,))
