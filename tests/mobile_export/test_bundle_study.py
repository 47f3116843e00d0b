"""`mobile-export evaluate` on a real artifact: tables, pictures, what is refused."""

import json
import re
import shutil

import numpy as np
import pytest
import tiny
from test_cli import figures, run, sentence  # noqa: F401  run is a fixture

from correction import CheckFailed, UsageError
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_study import STATISTICS, bundle_study
from mobile_export.evaluate.frechet import FeatureStatistics
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study_settings import Sampling, StudySettings

SETTINGS = StudySettings((Sampling("ddim", 3),), ("tac", "oracle"), 4, 8)


def test_the_command_writes_tables_and_pictures_and_says_where(run, w4a8, tmp_path):  # noqa: F811
    page, folder = tmp_path / "page.md", tmp_path / "out"
    page.write_text("<!-- begin tiny -->\n<!-- end tiny -->\n")
    options = ("--sampler", "ddim:3", "--method", "tac", "--method", "oracle", "-n", 4, "--calibration-samples", 8)
    found = figures(
        run("evaluate", w4a8.bundle.path, "-o", folder, *options, "--into", page, "--name", "tiny", "--json")
    )
    assert [row["key"]["method"] for row in found["rows"]] == ["none", "tac", "oracle"]
    assert {row["key"]["network"] for row in found["rows"]} == {"tiny-w4a8, ExecuTorch"}
    text = (folder / "comparison.md").read_text()
    assert text.strip() in page.read_text() and "oracle (fitted on these very seeds)" in text
    assert "4 held-out seeds, 8 calibration trajectories, seed 0" in text
    assert re.search(r"add to a step's time, .*: tiny-w4a8, ExecuTorch -?\d+\.\d\d % of \d\.\d{3} s\.", text)
    assert len(list(folder.glob("grid-*.png"))) == len(list(folder.glob("curves-*.png"))) == 1
    assert json.dumps(found)  # no NaN: images of 8 x 8 have no SSIM


def test_a_terminal_of_80_columns_shows_whole_words_and_numbers(run, w4a8, tmp_path):  # noqa: F811
    options = ("--sampler", "ddim:2", "--method", "tac", "-n", 2, "--calibration-samples", 4)
    code, out, err = run("evaluate", w4a8.bundle.path, "-o", tmp_path, *options)
    assert code == 0, err
    assert "…" not in out and "PSNR (dB)" in out and "tiny-w4a8, ExecuTorch, ddim:2" in out
    assert any(re.search(r"tac .* [+-]\d+\.\d\d \([+-]\d+\.\d\d to [+-]\d+\.\d\d\)", line) for line in out.splitlines())


def test_rows_are_those_of_the_artifact_and_not_of_its_own_correction(w4a8, tmp_path):
    """A bundle's own correction plays no part: one that is absurd changes nothing."""
    folder = shutil.copytree(w4a8.bundle.path, tmp_path / "w4a8")
    absurd = tiny.with_correction(folder, tiny.some_correction(w4a8.settings.steps))
    key = OutcomeKey("tiny-w4a8, ExecuTorch", "ddim:3", "tac")
    rows = [bundle_study([b], (), SETTINGS, tmp_path / str(k)).rows for k, b in enumerate((w4a8.bundle, absurd))]
    assert rows[0][key].psnr == rows[1][key].psnr


def test_a_baseline_has_the_name_of_its_folder(w4a8, tmp_path):
    """Its own name may be that of the bundle that is measured against it."""
    baseline = Bundle.open(shutil.copytree(w4a8.bundle.path, tmp_path / "plain"))
    found = bundle_study([w4a8.bundle], (), SETTINGS, tmp_path / "s", baseline=baseline)
    assert "**tiny-w4a8, ExecuTorch, ddim, 3 steps**" in found.text
    assert OutcomeKey("plain, ExecuTorch", "ddim:3", "none") in found.rows
    assert "| *plain, ExecuTorch, none* |" in found.text
    none = found.rows[OutcomeKey("tiny-w4a8, ExecuTorch", "ddim:3", "none")]
    assert none.over_baseline is not None and none.over_baseline.mean == 0  # it is the same network


def test_two_bundles_of_one_name_are_told_apart_by_their_folders(w4a8, tmp_path):
    other = Bundle.open(shutil.copytree(w4a8.bundle.path, tmp_path / "other"))
    found = bundle_study([w4a8.bundle, other], (), SETTINGS, tmp_path / "s")
    names = {f"{bundle.path.name}, ExecuTorch" for bundle in (w4a8.bundle, other)}
    assert {key.network for key in found.rows} == names and "other, ExecuTorch" in names


def test_statistics_of_the_models_own_folder_are_found(w4a8, tmp_path, model_folder):
    settings = StudySettings((Sampling("ddim", 2),), ("tac",), 128, 4)
    FeatureStatistics.of(np.random.default_rng(0).standard_normal((200, 64))).save(tmp_path / STATISTICS)
    found = bundle_study([w4a8.bundle], (), settings, tmp_path / "s", real=tmp_path / STATISTICS)
    assert all(row.to_real is not None and row.to_reference is not None for row in found.rows.values())
    assert "the reference's own Fréchet distance to real pictures" in found.text
    assert not (model_folder / STATISTICS).exists()
    without = bundle_study([w4a8.bundle], (), settings, tmp_path / "s")
    assert all(row.to_real is None for row in without.rows.values())


def test_bundles_of_another_model_and_defaults_that_are_not_there_are_refused(w4a8, plain_folder, tmp_path):
    with pytest.raises(UsageError, match="the default 'ibc' is not among the methods: none, tac, oracle"):
        bundle_study([w4a8.bundle], (), SETTINGS, tmp_path, default="ibc")
    with pytest.raises(CheckFailed, match="is not the model that tiny-w4a8 was made from"):
        bundle_study([w4a8.bundle], (), SETTINGS, tmp_path, source=str(plain_folder))
    with pytest.raises(UsageError, match="coreml"):
        bundle_study([Bundle.open(w4a8.bundle.path)], ("coreml",), SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "x"), "--into and --name go together"),
        (("--name", "x", "--into", __file__), "must have one line '<!-- begin x -->'"),
        (("--sampler", "ddim"), "as in ddim:50, got 'ddim'"),
        (("--method", "x"), "unknown correction method"),
    ],
)
def test_wrong_options_are_one_sentence(options, message, run, w4a8, tmp_path):  # noqa: F811
    assert message in sentence(run("evaluate", w4a8.bundle.path, "-o", tmp_path, *options), 2)
