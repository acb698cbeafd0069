from __future__ import annotations

import pytest

from flybridge.bridge.local.feishu.faults import NAMES, Faults, apply


@pytest.fixture
def faults() -> Faults:
    return Faults(list, {"PingInterval": 120})


def test_a_fault_armed_twice_happens_twice(faults: Faults) -> None:
    faults.drop_acks(times=2)
    assert [faults.take("drop_acks") for _ in range(3)] == [True, True, None]


def test_a_fault_without_times_stands_until_it_is_cleared(faults: Faults) -> None:
    faults.delay(seconds=0.5)
    assert [faults.take("delay") for _ in range(3)] == [0.5, 0.5, 0.5]

    faults.clear()

    assert faults.take("delay") is None


def test_armed_faults_are_listed_with_the_times_left(faults: Faults) -> None:
    faults.drop_pongs()
    faults.refuse_discovery(times=3)
    faults.take("refuse_discovery")
    assert faults.armed() == {"drop_pongs": None, "refuse_discovery": 2}


def test_every_public_fault_can_be_asked_for_by_name(faults: Faults) -> None:
    public = {name for name in dir(faults) if not name.startswith("_")}
    assert public - {"take", "armed"} == set(NAMES)


def test_an_unknown_fault_is_answered_with_near_names(faults: Faults) -> None:
    with pytest.raises(ValueError, match="drop_acks"):
        apply(faults, "drop_ack", {})


def test_an_unknown_option_is_answered_with_the_known_ones(faults: Faults) -> None:
    with pytest.raises(ValueError, match="seconds"):
        apply(faults, "freeze", {"duration": 3})


@pytest.mark.parametrize("name", ["take", "armed", "_arm", "__class__"])
def test_nothing_but_faults_can_be_asked_for(faults: Faults, name: str) -> None:
    with pytest.raises(ValueError, match="no fault"):
        apply(faults, name, {})


def test_a_fault_cannot_be_armed_for_no_times(faults: Faults) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        faults.drop_acks(times=0)
