"""A study in a row: the default correction beside no correction and beside its rivals."""

from pathlib import Path

import pytest

from mobile_export.evaluate.bundle_study import BundleStudy
from mobile_export.evaluate.comparison import Comparison
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study_settings import Sampling
from mobile_export.evaluate.summary import summary_head, summary_row
from mobile_export.metrics import Interval

NETWORK, SAMPLING = "emoji32-w8a8, ExecuTorch", Sampling("dpmpp-2m", 20)


def comparison(method, psnr, gain=0.0, ahead=None, to_real=None, nearer=None):
    def interval(value):
        return None if value is None else Interval(value, value - 0.5, value + 0.5)

    return Comparison(
        OutcomeKey(NETWORK, SAMPLING.name, method),
        *(interval(psnr), interval(gain), interval(ahead), None, 0.9),
        *(interval(to_real), None if to_real is None else interval(to_real - 6.4).scaled(100 / 6.4)),
        *(None, interval(nearer), None),
        *(20.0, 20.0, 0.0, 1.0, 20, 1200),
    )


def study(real=True):
    def known(value):
        return value if real else None

    rows = [
        comparison("none", 30.0, ahead=2.0, to_real=known(6.6), nearer=known(0.1)),
        comparison("tac", 32.0, gain=2.0, to_real=known(6.5)),
        comparison("ptqd", 31.75, gain=1.75, ahead=0.25, to_real=known(7.5), nearer=known(1.0)),
        comparison("d2-dpm", 33.0, gain=3.0, ahead=-1.0, to_real=known(5.5), nearer=known(-1.0)),
    ]
    references = {SAMPLING.name: Interval(6.4, 5.0, 8.0)} if real else {}
    return BundleStudy({row.key: row for row in rows}, references, "", Path("comparison.md"))


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_column_says_what_its_head_says():
    head, rule = summary_head("tac", ("ptqd", "d2-dpm")).splitlines()
    row = summary_row(study(), NETWORK, SAMPLING, "tac", ("ptqd", "d2-dpm"))
    assert set(cells(rule)) == {"---"} and len(cells(head)) == len(cells(rule)) == len(cells(row))
    assert dict(zip(cells(head), cells(row), strict=True)) == {
        "network": NETWORK,
        "sampler, steps": "dpmpp-2m, 20",
        "none (dB)": "30.0",
        "tac (dB)": "32.0",
        "gain (dB)": "+2.00 (+1.50 to +2.50)",
        "ahead of ptqd (dB)": "+0.25 (-0.25 to +0.75) ≈",
        "ahead of d2-dpm (dB)": "-1.00 (-1.50 to -0.50) no",
        "Fréchet, reference": "6.400",
        "none": "6.600",
        "tac": "6.500",
        "over the reference": "+1.6 % (-6.3 to +9.4)",
        "nearer than none": "+0.100 (-0.400 to +0.600) ≈",
        "nearer than ptqd": "+1.000 (+0.500 to +1.500)",
        "nearer than d2-dpm": "-1.000 (-1.500 to -0.500) no",
    }


def test_without_real_pictures_there_are_no_distances():
    row = cells(summary_row(study(real=False), NETWORK, SAMPLING, "tac", ("ptqd",)))
    assert row[5] == "+0.25 (-0.25 to +0.75) ≈" and set(row[6:]) == {""}
    assert len(row) == len(cells(summary_head("tac", ("ptqd",)).splitlines()[0]))


def test_a_rival_that_was_not_compared():
    with pytest.raises(KeyError):
        summary_row(study(), NETWORK, SAMPLING, "tac", ("ibc",))
