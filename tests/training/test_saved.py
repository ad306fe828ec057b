import json

from training.test_loop import run

from mskjax.training.saved import saved_record, saved_step


def test_what_a_training_has_saved_is_read_without_jax(tmp_path):
    assert saved_step(tmp_path) is None
    assert saved_record(tmp_path) == {}
    run(tmp_path)
    assert saved_step(tmp_path) == 12
    record, cost = saved_record(tmp_path), json.loads((tmp_path / "cost.json").read_text())
    assert record["wall_s"] == cost["wall_s"] > 0
    assert record["best_step"] in (4, 8, 12)


def test_what_is_half_written_counts_as_not_there(tmp_path):
    latest = tmp_path / "checkpoints" / "latest"
    (latest / "20.orbax-checkpoint-tmp").mkdir(parents=True)
    assert saved_step(tmp_path) is None
    record = latest / "10" / "record" / "metadata"
    record.parent.mkdir(parents=True)
    record.write_text('{"wall_s": 1')
    assert saved_step(tmp_path) == 10
    assert saved_record(tmp_path) == {}
