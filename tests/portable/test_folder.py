"""What leaves this machine with a config, and a folder that is whole or absent."""

import pytest

from mskjax import applied
from mskjax.config import DataConfig, StudyConfig, parse
from mskjax.errors import UserError
from mskjax.portable.folder import shared, whole


def test_a_shared_config_has_no_folder_of_this_machine_and_is_a_config():
    data = DataConfig("c", "p", "/home/doe/data", "/home/doe/raw", splits="/home/doe/s.json")
    stages = {"grades": {"model": {"pretrained": "/home/doe/vgg.pth"}, "crop": (3, 4)}}
    config = StudyConfig("s", "v", data, stages, options={"files": ["/home/doe/a.csv", "b"]})
    found = shared(config)
    assert "doe" not in str(found)
    assert found["stages"]["grades"] == {"model": {"pretrained": "vgg.pth"}, "crop": [3, 4]}
    assert found["options"] == {"files": ["a.csv", "b"]}
    assert parse(StudyConfig, found).data.cohort == "c"


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_has_its_name_once_it_is_whole(tmp_path, there):
    output = tmp_path / "deep" / "export"
    if there:
        output.mkdir(parents=True)
    with whole(output) as place:
        (place / "file").write_text("1")
        assert output.exists() == there
        assert not there or not any(output.iterdir())
    assert [p.name for p in output.parent.iterdir()] == ["export"]
    assert (output / "file").read_text() == "1"


def begin(output, error):
    with whole(output) as place:
        (place / "file").write_text("1")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_ends_early_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        begin(tmp_path / "deep" / "export", error)
    assert not list(tmp_path.iterdir())


def test_folds_of_every_seed_are_found(tmp_path):
    for seed in (0, 1):
        for fold in (0, 1, 10):
            (tmp_path / f"seed_{seed}" / f"fold_{fold}").mkdir(parents=True)
    found = [p.relative_to(tmp_path).as_posix() for p in applied.folders(tmp_path, [10, 0])]
    assert found == ["seed_0/fold_10", "seed_0/fold_0", "seed_1/fold_10", "seed_1/fold_0"]
    assert len(applied.folders(tmp_path)) == 6
    with pytest.raises(UserError, match=r"seed_0 has folds 0, 1, 10, not 2"):
        applied.folders(tmp_path, [2])
