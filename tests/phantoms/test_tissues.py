import numpy as np
import pytest

from tfds_builders.phantoms.tissues import TISSUES, Tissue, nucleus


@pytest.mark.parametrize("name", sorted(TISSUES))
def test_relaxation_is_physical(name):
    tissue = TISSUES[name]
    assert 0 <= tissue.pd <= 1.1
    for field in (1.5, 3.0):
        t1, t2 = tissue.relaxation(field)
        assert t1 > t2 > 0  # T2 <= 2 T1 by theory, and below T1 in all tissue
    assert tissue.relaxation(3.0)[0] >= tissue.relaxation(1.5)[0]


def test_unmeasured_3t_lengthens_t1_only():
    assert Tissue(1.0, 1000.0, 50.0).relaxation(3.0) == (pytest.approx(1210.0), 50.0)
    assert TISSUES["muscle"].relaxation(3.0) == (1420.0, 32.0)


def test_field_strength_outside_the_table_is_refused():
    with pytest.raises(ValueError, match=r"1\.5 and 3 tesla, not 7"):
        TISSUES["fat"].relaxation(7.0)


def test_nucleus_loses_t2_and_water_with_degeneration():
    t2 = [nucleus(d).t2_ms for d in np.linspace(1, 5, 9)]
    pd = [nucleus(d).pd for d in np.linspace(1, 5, 9)]
    assert (np.diff(t2) < 0).all()
    assert (np.diff(pd) < 0).all()
    # Marinelli 2010: 108 ms in grade II, 53 ms in grade IV.
    assert nucleus(2).t2_ms == pytest.approx(108)
    assert nucleus(4).t2_ms == pytest.approx(53)
    assert nucleus(0.2) == nucleus(1.0)
