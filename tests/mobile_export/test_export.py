"""Export: the same bytes every time, nothing half finished, interrupted work goes on."""

import os
import shutil
from dataclasses import replace

import pytest
import tiny
from test_bundle import files_of

from correction import CheckFailed, UsageError
from mobile_export.backends.executorch import backend
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.backends.executorch.lockstep import TappedNetwork
from mobile_export.bundle import Bundle, path_digest
from mobile_export.export import _manifest, export
from mobile_export.export_settings import ExportSettings
from mobile_export.part import Job
from mobile_export.progress import Progress
from mobile_export.quantize.recipe import Recipe
from mobile_export.verify import verify_bundle

W8A8 = Recipe.of("w8a8")
LOADED = ["load", "load", "quantize", "quantize"]  # the model, its UNet, activation ranges, weights


@pytest.fixture
def lowered_before(w8a8, monkeypatch):
    """Lowering gives the programs that the shared export got: test_lowering shows that a second run gives the same."""
    calls = []

    def again(network, inputs):
        calls.append(type(network).__name__)
        return w8a8.pair.tapped if isinstance(network, TappedNetwork) else w8a8.pair.shipped

    monkeypatch.setattr(backend, "lower", again)
    return calls


class Recording(Progress):
    """Notes the stages; raises `error` when `done` parts of a stage that begins with `stage` are ready."""

    def __init__(self, stage="", done=0, error=None):
        self.stages, self.counts, self.at, self.error = [], [], (stage, done), error

    def stage(self, title):
        self.stages.append(title)
        self.counts.append([])

    def advance(self, done, total):
        assert 0 <= done <= total
        self.counts[-1].append((done, total))
        if self.error is not None and self.stages[-1].startswith(self.at[0]) and done == self.at[1]:
            raise self.error


def titles_of(progress):
    return [stage.split()[0] for stage in progress.stages]


def run(plain_folder, target, w8a8, progress=None):
    return export(str(plain_folder), target, w8a8.settings, progress)


def test_a_second_export_gives_the_same_bytes(plain_folder, w8a8, lowered_before, tmp_path):
    progress = Recording()
    bundle = run(plain_folder, tmp_path / "again", w8a8, progress)
    assert files_of(bundle.path) == files_of(w8a8.bundle.path)
    assert os.listdir(tmp_path) == ["again"]
    assert titles_of(progress) == [*LOADED, "lower", "conversion", "calibrate", "record", "verify"]
    assert progress.counts[2] == [(k, 5) for k in range(1, 6)] == progress.counts[6]
    assert progress.counts[4] == [(1, 2), (2, 2)]


def test_core_ml_stands_beside_executorch_by_default(plain_folder, w8a8, lowered_before, tmp_path):
    bundle = export(str(plain_folder), tmp_path / "b", replace(w8a8.settings, targets=()))
    assert bundle.targets == ("executorch", "coreml")
    assert files_of(bundle.path / "executorch") == files_of(w8a8.bundle.path / "executorch")
    package = bundle.artifact("coreml")
    assert package.name == "unet.mlpackage" and bundle.artifact_sha256("coreml") == path_digest(package)
    parity = bundle.component("coreml")["conversion_parity"]
    # Integer kernels have a grid at both ends of a layer, Core ML at its input alone.
    assert 2 * parity["quantizations"] == bundle.component("executorch")["conversion_parity"]["quantizations"]
    assert parity["declared_error"] <= parity["limits"]["declared_error"]
    assert bundle.component("coreml")["description"]["delegates"] is None
    assert {"coremltools", "executorch"} <= set(bundle.manifest["versions"])
    found = verify_bundle(bundle)
    assert found["executorch"].outputs_equal and found["coreml"].outputs_equal


@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupted_export_goes_on_where_it_was(step, plain_folder, w8a8, lowered_before, tmp_path, monkeypatch):
    target = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        run(plain_folder, target, w8a8, Recording("calibrate", step, KeyboardInterrupt()))
    assert not target.exists() and os.listdir(tmp_path) == [".b.partial"]
    assert not (tmp_path / ".b.partial" / "manifest.json").exists()
    with pytest.raises(UsageError, match="is not a bundle"):
        Bundle.open(tmp_path / ".b.partial")

    monkeypatch.setattr(ExecuTorchBackend, "export", None)  # whoever lowers again fails
    progress = Recording()
    bundle = run(plain_folder, target, w8a8, progress)
    assert files_of(bundle.path) == files_of(w8a8.bundle.path)
    assert os.listdir(tmp_path) == ["b"]
    assert titles_of(progress) == [*LOADED, "calibrate", "record", "verify"]
    assert [done for done, _ in progress.counts[4]] == list(range(step + 1, 6))


def test_what_an_interrupted_run_left_behind_is_no_part_of_the_bundle(plain_folder, w8a8, lowered_before, tmp_path):
    work = tmp_path / ".b.partial"
    (work / "executorch").mkdir(parents=True)
    resume = work / ".resume" / "executorch"
    resume.mkdir(parents=True)
    (work / "other").mkdir()
    names = ("executorch/correction.safetensorsxyz.tmp", "manifest.json", "other/unet.bin", ".resume/old")
    for name in (*names, ".resume/executorch/calibration.stateabc.tmp"):
        (work / name).write_text("half")
    for name in ("lowered-unet.json", "finished.json"):
        (resume / name).write_text('{"key": ')  # killed while it was written
    (work / "executorch" / "unet.pte").write_bytes(b"half")
    bundle = run(plain_folder, tmp_path / "b", w8a8)
    assert files_of(bundle.path) == files_of(w8a8.bundle.path)
    assert sorted(os.listdir(bundle.path)) == ["executorch", "manifest.json"]


def test_an_artifact_that_was_changed_meanwhile_is_lowered_again(plain_folder, w8a8, lowered_before, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(plain_folder, tmp_path / "b", w8a8, Recording("calibrate", 2, KeyboardInterrupt()))
    path = tmp_path / ".b.partial" / "executorch" / "unet.pte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    lowered_before.clear()
    assert files_of(run(plain_folder, tmp_path / "b", w8a8).path) == files_of(w8a8.bundle.path)
    assert lowered_before == ["ChannelsLastUNet", "TappedNetwork"]


def test_an_artifact_of_other_settings_is_lowered_again(model_folder, plain_folder, w8a8, lowered_before, tmp_path):
    """The same target, after another seed was interrupted: other ranges, so another table."""
    with pytest.raises(CheckFailed):  # lowered for the shared table, which is not that of this seed
        export(str(plain_folder), tmp_path / "b", replace(w8a8.settings, seed=1))
    with pytest.raises(KeyboardInterrupt):
        run(plain_folder, tmp_path / "b", w8a8, Recording("calibrate", 2, KeyboardInterrupt()))
    lowered_before.clear()
    with pytest.raises(CheckFailed, match="does not hold the quantized model's constants"):
        export(str(plain_folder), tmp_path / "b", replace(w8a8.settings, seed=1))
    assert lowered_before == ["ChannelsLastUNet", "TappedNetwork"]


@pytest.mark.parametrize("stage", ["quantize", "lower", "calibrate"])
def test_an_export_that_fails_leaves_nothing_not_even_hidden(stage, plain_folder, w8a8, lowered_before, tmp_path):
    with pytest.raises(OSError, match="no space left"):
        run(plain_folder, tmp_path / "b", w8a8, Recording(stage, 1, OSError("no space left")))
    assert os.listdir(tmp_path) == []


def test_an_artifact_that_fails_its_parity_is_not_published(plain_folder, w8a8, lowered_before, tmp_path, monkeypatch):
    monkeypatch.setitem(backend.LIMITS, "lockstep_output_error", -1.0)
    with pytest.raises(CheckFailed, match=r"conversion parity: error of the output is .*, at most -1 is allowed"):
        run(plain_folder, tmp_path / "b", w8a8)
    assert os.listdir(tmp_path) == []


def test_a_failed_export_keeps_the_bundle_that_was_there(plain_folder, w8a8, lowered_before, tmp_path):
    shutil.copytree(w8a8.bundle.path, tmp_path / "b")
    with pytest.raises(OSError, match="no space left"):
        run(plain_folder, tmp_path / "b", w8a8, Recording("calibrate", 1, OSError("no space left")))
    assert files_of(tmp_path / "b") == files_of(w8a8.bundle.path) and os.listdir(tmp_path) == ["b"]


def test_a_bundle_that_was_there_is_replaced(plain_folder, w4a8, w8a8, lowered_before, tmp_path):
    shutil.copytree(w4a8.bundle.path, tmp_path / "b")
    assert run(plain_folder, tmp_path / "b", w8a8).name == "plain-w8a8"
    assert files_of(tmp_path / "b") == files_of(w8a8.bundle.path) and os.listdir(tmp_path) == ["b"]


def test_a_folder_that_is_no_bundle_is_refused_before_any_work(plain_folder, w8a8, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("x")
    progress = Recording()
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        run(plain_folder, tmp_path / "b", w8a8, progress)
    assert len(progress.stages) == 1  # loaded, no more
    assert files_of(tmp_path) == {"b/mine": b"x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be 1 to 4096, got 0"),
        ({"steps": 4097}, "steps must be 1 to 4096, got 4097"),
        ({"steps": -1}, "steps must be 1 to 4096, got -1"),
        ({"calibration_samples": 3}, "calibration samples must be 4 to 4096, got 3"),
        ({"range_samples": 0}, "range samples must be 1 to 4096, got 0"),
        ({"guidance": 0.0}, "guidance must be above 0 and at most 100, got 0"),
        ({"guidance": float("nan")}, "guidance must be above 0 and at most 100, got nan"),
        ({"method": "tack"}, "unknown correction method 'tack'; there are none, ibc, tac"),
        ({"targets": ("executorch", "onnx")}, "unknown target 'onnx': choose one of executorch"),
    ],
)
def test_settings_out_of_range_are_refused_when_they_are_made(changes, message):
    with pytest.raises(UsageError, match=message):
        ExportSettings(W8A8, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "rk45"}, "unknown sampler 'rk45'; there are ddim, ddim-eta1, ddpm"),
        ({"steps": 1001}, "steps"),
        ({"sampler": "ddim-eta1", "method": "ptqd"}, "ptqd changes the noise that ddim-eta1 adds"),
        ({"guidance": 2.0}, "guidance 2 needs a null class, which this model does not have: use guidance 1"),
        ({"seed": -1}, r"seed must be in 0 \.\. 2\^63 - 1, got -1"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(changes, message, plain_folder, tmp_path):
    with pytest.raises(UsageError, match=message):
        export(str(plain_folder), tmp_path / "b", ExportSettings(W8A8, **changes))
    assert os.listdir(tmp_path) == []


def test_guidance_of_a_model_without_null_class_is_refused(tmp_path):
    folder = tiny.save_model(tmp_path / "m", tiny.make_unet(), {"classes": tiny.CLASSES})
    with pytest.raises(UsageError, match=r"guidance 1\.5 needs a null class"):
        export(str(folder), tmp_path / "b", ExportSettings(W8A8, guidance=1.5))
    assert os.listdir(tmp_path) == ["m"]


def test_the_manifest_has_the_steps_as_asked_where_a_plan_has_more_rows(plain_model):
    """`simulate` makes the plan anew from them when it leaves the correction out."""
    job = Job.of(plain_model, ExportSettings(W8A8, "pndm", steps=4, targets=("executorch",)))
    assert job.plan.steps == 5 and _manifest(job, (), {}, 0)["steps"] == 4
