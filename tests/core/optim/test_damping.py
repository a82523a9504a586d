"""Steps that are tried with more and more damping."""

from types import SimpleNamespace

import pytest

from skpou.core.optim.damping import TRIES, DampingControl, TenfoldDamping, first_decrease


# A model that promises nothing is neither trusted more nor less by Nielsen's rule.
@pytest.mark.parametrize(
    ("damping", "after"), [(DampingControl(1e-3), 1.0), (TenfoldDamping(1e-3), 0.1)]
)
def test_the_first_step_that_lowers_the_value_is_taken(damping, after):
    tried = []

    def propose(mu):
        tried.append(mu)
        return SimpleNamespace(value=1 / mu), 0.0

    found = first_decrease(propose, 100.0, damping)
    assert found.value < 100 <= 1 / tried[-2] and tried == sorted(tried)
    assert damping.value == pytest.approx(after * tried[-1])


@pytest.mark.parametrize("damping", [DampingControl(1.0), TenfoldDamping(1.0)])
def test_none_is_taken_where_none_lowers_the_value(damping):
    tried = []

    def propose(mu):
        tried.append(mu)
        return SimpleNamespace(value=2.0), 1.0

    assert first_decrease(propose, 2.0, damping) is None
    assert len(tried) == TRIES and damping.value > tried[-1]
    assert first_decrease(lambda _: (None, 0.0), 2.0, damping) is None


def test_tenfold_damping_moves_by_ten_and_stays_positive():
    damping = TenfoldDamping(1e-9)
    damping.fail()
    assert damping.value == pytest.approx(1e-8)
    for _ in range(20):
        damping.succeed()
    assert 0 < damping.value <= 1e-16
    damping.fail()
    assert damping.value == pytest.approx(1e-15)
