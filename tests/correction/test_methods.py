"""Methods by name, with changes."""

import pytest

from correction import METHODS, Method, UsageError, find_method
from correction.solve import NoiseEstimate


def test_a_plain_name_is_the_method_itself():
    assert all(find_method(name) == method for name, method in METHODS.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d2-dpm/gated", {"gated": True, "paired": False, "less_noise": True}),
        ("tac/free", {"gated": False, "paired": False, "output": NoiseEstimate()}),
        ("tac/paired", {"gated": True, "paired": True}),
        ("tac-paired/same/free", {"gated": False, "paired": False}),
        ("tac/l1=0.8/l2=0", {"output": NoiseEstimate(0.8, 0.0)}),
    ],
)
def test_changes_follow_the_name(name, expected):
    found = find_method(name)
    assert found.name == name
    assert {key: getattr(found, key) for key in expected} == expected


def test_what_is_changed_is_another_calibration():
    names = ("tac", "tac/free", "tac/paired", "tac/tuned", "tac/l1=0.8", "tac/l2=0")
    assert len({find_method(name).describe() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tack", "unknown correction method 'tack'; there are none, ibc, tac"),
        ("tac/loose", "tac cannot be 'loose'; changes are gated, free, paired, same, tuned, l1=, l2= where NER"),
        ("ibc/l1=0.5", "ibc cannot be 'l1=0.5'"),
        ("ptqd/tuned", "ptqd: less_noise goes with what was solved, and cannot be tuned"),
        ("tac/l1=many", "l1 must be a number, got 'many'"),
        ("tac/l1=2", "l1 must be in 0..1, got 2"),
        ("tac/l2=-1", "l2 must be finite and >= 0, got -1"),
    ],
)
def test_what_does_not_exist_is_named(name, message):
    with pytest.raises(UsageError, match=message):
        find_method(name)


def test_a_method_of_your_own_says_what_it_is():
    assert "mean_bias" in Method("mine", METHODS["ibc"].input).describe()
