"""Bundles with several targets: one export, one folder, one report; an artifact may be a folder of files."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
from folder_backend import LIMITS, FolderBackend
from hypothesis import given
from hypothesis import strategies as st
from test_bundle import files_of
from test_cli import figures, run, sentence  # noqa: F401  run is a fixture
from test_export import Recording

from correction import CheckFailed, FormatError, UsageError
from mobile_export.backends import BACKENDS, get_backend
from mobile_export.backends.backend import BackendOptions
from mobile_export.backends.executorch import backend as executorch
from mobile_export.backends.executorch.lockstep import TappedNetwork
from mobile_export.bundle import Bundle, artifact_digest, file_sha256, path_digest
from mobile_export.evaluate import trajectory
from mobile_export.evaluate.bundle_evaluation import evaluate, evaluate_all
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.inspection import inspect_path
from mobile_export.quantize.recipe import Recipe
from mobile_export.report import render_report
from mobile_export.simulate import simulate
from mobile_export.verify import verify_bundle

BOTH = ("executorch", "folder")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The two backends of these tests, and no other."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(BACKENDS) - {"executorch"}:
            patch.delitem(BACKENDS, name)
        patch.setitem(BACKENDS, "folder", FolderBackend)
        yield


@pytest.fixture(scope="module")
def settings(w8a8):
    return replace(w8a8.settings, targets=BOTH)


@pytest.fixture(scope="module", autouse=True)
def lowered_before(w8a8):
    """Lowering gives the programs that the shared export got; the table is the same."""
    calls = []

    def again(network, inputs):
        calls.append(type(network).__name__)
        return w8a8.pair.tapped if isinstance(network, TappedNetwork) else w8a8.pair.shipped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executorch, "lower", again)
        yield calls


@pytest.fixture(scope="module")
def bundle(plain_folder, settings, tmp_path_factory):
    return export(str(plain_folder), tmp_path_factory.mktemp("targets") / "b", settings)


@pytest.fixture
def folder(bundle, tmp_path):
    return shutil.copytree(bundle.path, tmp_path / "copy")


# export


def test_both_parts_are_complete_and_the_first_is_what_it_is_alone(bundle, w8a8):
    assert bundle.targets == BOTH
    for target in BOTH:
        part = bundle.part(target)
        for key in ("correction", "golden"):
            assert part[key] == f"{target}/{key}.safetensors" and (bundle.path / part[key]).is_file()
        assert len(part["kept_steps"]) == 5
        assert bundle.component(target)["conversion_parity"]["timesteps"][0] > 0
    alone, here = w8a8.bundle, files_of(bundle.path / "executorch")
    assert here == files_of(alone.path / "executorch")
    assert bundle.part("executorch") == alone.part("executorch")
    assert bundle.component("folder")["conversion_parity"]["limits"] == LIMITS
    assert bundle.component("executorch")["conversion_parity"]["limits"] == executorch.LIMITS
    versions = bundle.manifest["versions"]
    assert {"safetensors", "executorch"} <= set(versions) and "safetensors" not in alone.manifest["versions"]
    assert sorted(os.listdir(bundle.path)) == ["executorch", "folder", "manifest.json"]


def test_the_parts_are_calibrated_and_recorded_each_on_its_own_artifact(bundle):
    files = {target: bundle.correction_file(target) for target in BOTH}
    assert files["executorch"].artifact_sha256 == file_sha256(bundle.artifact("executorch"))
    assert files["folder"].artifact_sha256 == bundle.artifact_sha256("folder") == path_digest(bundle.artifact("folder"))
    assert files["executorch"].plan.digest() == files["folder"].plan.digest()
    assert not np.array_equal(files["executorch"].correction.input_gain, files["folder"].correction.input_gain) or not (
        np.array_equal(files["executorch"].correction.output_gain, files["folder"].correction.output_gain)
    )
    found = verify_bundle(bundle)
    assert tuple(found) == BOTH and all(each.outputs_equal for each in found.values())
    assert found["folder"].delegates is None and found["executorch"].delegates == 1
    assert tuple(verify_bundle(bundle, ["folder"])) == ("folder",)
    with pytest.raises(UsageError, match="has no coreml part; it has: executorch, folder"):
        verify_bundle(bundle, ["folder", "coreml"])


def test_the_digest_of_a_folder_does_not_depend_on_its_random_list(plain_folder, settings, bundle, tmp_path):
    again = export(str(plain_folder), tmp_path / "again", settings)
    one, other = files_of(bundle.path), files_of(again.path)
    listing = "folder/unet.folder/Manifest.json"
    assert one.pop(listing) != other.pop(listing)
    assert one.pop("manifest.json") != other.pop("manifest.json") and one == other
    assert again.artifact_sha256("folder") == bundle.artifact_sha256("folder")


@pytest.mark.parametrize("stage", ["calibrate tac/free on the ExecuTorch", "calibrate tac/free on the Folder"])
def test_an_interrupted_export_goes_on_in_the_target_where_it_was(stage, plain_folder, settings, bundle, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        export(str(plain_folder), tmp_path / "b", settings, Recording(stage, 3, KeyboardInterrupt()))
    assert os.listdir(tmp_path) == [".b.partial"]
    progress = Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executorch, "lower", None)  # whoever lowers again fails
        again = export(str(plain_folder), tmp_path / "b", settings, progress)
    titles = [title for title in progress.stages if title.startswith("calibrate")]
    expected = ["ExecuTorch", "Folder"][["ExecuTorch" in stage, "Folder" in stage].index(True) :]
    assert [title.split()[4] for title in titles] == expected
    counts = progress.counts[progress.stages.index(titles[0])]
    assert counts == [(4, 5), (5, 5)]
    one, other = files_of(bundle.path / "folder"), files_of(again.path / "folder")
    one.pop("unet.folder/Manifest.json"), other.pop("unet.folder/Manifest.json")
    assert one == other and files_of(again.path / "executorch") == files_of(bundle.path / "executorch")
    assert sorted(os.listdir(again.path)) == ["executorch", "folder", "manifest.json"]


def test_what_was_finished_is_made_again_when_it_was_changed_or_asked_otherwise(
    plain_folder, settings, lowered_before, tmp_path
):
    # The folder's own calibration goes on after its first step, but for another method.
    for change, method, step in (("nothing", "tac/free", 1), ("a byte", "tac/free", 2), ("the method", "ibc", 1)):
        if change == "a byte":
            path = tmp_path / ".b.partial" / "executorch" / "golden.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        progress = Recording(f"calibrate {method} on the Folder", step, KeyboardInterrupt())
        lowered_before.clear()
        with pytest.raises(KeyboardInterrupt):
            export(str(plain_folder), tmp_path / "b", replace(settings, method=method), progress)
        made = [title for title in progress.stages if title.startswith("calibrate") and "ExecuTorch" in title]
        assert len(made) == 1, change
        assert bool(lowered_before) == (change == "nothing"), change


def test_a_target_that_fails_fails_the_export(plain_folder, settings, tmp_path, monkeypatch):
    monkeypatch.setitem(LIMITS, "output_max_abs", -1.0)
    message = r"conversion parity: largest difference of the outputs is .*, at most -1 is allowed"
    with pytest.raises(CheckFailed, match=message):
        export(str(plain_folder), tmp_path / "b", settings)
    assert os.listdir(tmp_path) == []


def test_targets_by_default_are_all_that_can_have_the_recipe():
    assert ExportSettings(Recipe.of("w8a8")).targets == BOTH
    assert ExportSettings(Recipe.of("w4a16")).targets == BOTH
    assert ExportSettings(Recipe.of("w4a16", "block32")).targets == ("folder",)
    assert ExportSettings(Recipe.of("w8a8"), targets=("folder", "executorch", "folder")).targets == (
        "folder",
        "executorch",
    )
    with pytest.raises(UsageError, match=r"ExecuTorch has no w6a16: .*; Folder has no w6a16: choose another"):
        ExportSettings(Recipe.of("w6a16"))
    with pytest.raises(UsageError, match="ExecuTorch has no w3a16: choose one of w8a8, w4a8, w8a16, w4a16"):
        ExportSettings(Recipe.of("w3a16"), targets=("folder", "executorch"))
    with pytest.raises(UsageError, match="unknown target 'onnx': choose one of executorch, folder"):
        ExportSettings(Recipe.of("w8a8"), targets=("onnx",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers must be 1 to 64, got 0"),
        ({"workers": 65}, "workers must be 1 to 64, got 65"),
        ({"ios": "ios16"}, "unknown ios 'ios16': choose one of ios17, ios18"),
        ({"compute": "gpu"}, "unknown compute 'gpu': choose one of all, ane"),
    ],
)
def test_options_that_do_not_exist_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        BackendOptions(**changes)


def test_options_reach_the_backend():
    options = BackendOptions(3, "ios17", "ane")
    assert get_backend("folder", options).options is options and get_backend("executorch", options).options is options


# digests


NAMES = st.text("ab/. é", min_size=1, max_size=6).map(lambda name: name.strip("/")).filter(bool)
SHA = st.binary(min_size=1, max_size=3).map(lambda data: hashlib.sha256(data).hexdigest())


@given(st.dictionaries(NAMES, SHA, min_size=1, max_size=5))
def test_a_folders_digest_is_the_sha256_of_its_sorted_lines(digests):
    files = {f"x/u/{name}": {"bytes": 1, "sha256": digest} for name, digest in digests.items()}
    text = "".join(f"{digest}  {name}\n" for digest, name in sorted((d, n) for n, d in digests.items()))
    expected = hashlib.sha256(text.encode()).hexdigest()
    others = {"x/correction.safetensors": {"sha256": "1" * 64}, "x/u2/a": {"sha256": "2" * 64}}
    assert artifact_digest({**others, **files}, "x/u") == expected
    listed = {**files, "x/u/Manifest.json": {"bytes": 1, "sha256": "3" * 64}}
    assert artifact_digest(listed, "x/u") == expected
    assert artifact_digest({**files, "x/u/data/Manifest.json": {"sha256": "3" * 64}}, "x/u") != expected


def test_the_digest_of_a_file_is_its_sha256_and_of_nothing_an_error(tmp_path):
    (tmp_path / "unet.pte").write_bytes(b"x")
    expected = hashlib.sha256(b"x").hexdigest()
    assert path_digest(tmp_path / "unet.pte") == expected
    assert artifact_digest({"a/unet.pte": {"sha256": expected}}, "a/unet.pte") == expected
    with pytest.raises(CheckFailed, match="the manifest lists no file of the artifact 'a/unet'"):
        artifact_digest({"a/unet.pte": {"sha256": expected}}, "a/unet")
    with pytest.raises(CheckFailed, match="the manifest lists no file of the artifact 'u'"):
        artifact_digest({"u/Manifest.json": {"sha256": expected}}, "u")  # a folder of nothing but its list


def test_digest_on_disk_and_from_the_manifest_agree(tmp_path):
    for name in ("Manifest.json", "a", "b/c", "b/Manifest.json"):
        (tmp_path / "u" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "u" / name).write_text(name)
    sha = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b/c", "b/Manifest.json")}
    lines = sorted(f"{digest}  {name}\n" for name, digest in sha.items())
    assert path_digest(tmp_path / "u") == hashlib.sha256("".join(lines).encode()).hexdigest()


# damage


@pytest.mark.parametrize("name", ["weights/unet.safetensors", "config.json", "Manifest.json"])
def test_a_change_in_a_folder_artifact_is_named(folder, name):
    path = folder / "folder" / "unet.folder" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckFailed, match=f"folder/unet.folder/{name} was changed since the bundle was made"):
        Bundle.open(folder)
    path.unlink()
    with pytest.raises(CheckFailed, match=f"folder/unet.folder/{name} is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_else_may_lie_in_a_folder_artifact(folder, kind):
    path = folder / "folder" / "unet.folder" / "weights" / "more.bin"
    path.write_bytes(b"x") if kind == "file" else path.symlink_to("/")
    with pytest.raises(CheckFailed, match=r"folder/unet\.folder/weights/more\.bin is not in the list of files"):
        Bundle.open(folder)


def test_another_folder_under_the_correction_is_refused_by_the_binding(folder):
    name = "folder/unet.folder/config.json"
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**config, "flip_sin_to_cos": not config["flip_sin_to_cos"]}))
    tiny.renew_digest(folder, name)
    bundle = Bundle.open(folder)
    bundle.correction_file("executorch")
    for use in (lambda: bundle.correction_file("folder"), lambda: verify_bundle(bundle)):
        with pytest.raises(FormatError) as caught:
            use()
        assert caught.value.name == "other-artifact"


def test_the_list_in_a_folder_is_not_bound(folder):
    """Core ML writes other random names into it whenever it saves."""
    name = "folder/unet.folder/Manifest.json"
    (folder / name).write_text("{}")
    tiny.renew_digest(folder, name)
    assert verify_bundle(Bundle.open(folder))["folder"].outputs_equal


# use


def test_simulate_runs_the_target_that_is_asked_for(bundle):
    first, named, other = (simulate(bundle, 1, 3, target=target)[0] for target in (None, "executorch", "folder"))
    assert np.array_equal(first, named) and not np.array_equal(named, other)
    assert np.abs(named - other).max() < 1  # the same network, after all
    with pytest.raises(UsageError, match="has no coreml part; it has: executorch, folder"):
        simulate(bundle, 1, 3, target="coreml")


def test_evaluation_samples_the_reference_once_for_all(bundle, w8a8, plain_model, monkeypatch):
    seen = []
    original = trajectory.record

    def counting(plan, denoiser, batch, correction, chunk, progress):
        seen.append(chunk)
        return original(plan, denoiser, batch, correction, chunk, progress)

    monkeypatch.setattr(trajectory, "record", counting)
    monkeypatch.setattr("mobile_export.evaluate.bundle_evaluation.record", counting)
    found = evaluate_all([bundle, w8a8.bundle], 3, model=plain_model, benchmark=False)
    assert [(each.name, each.target, each.target_title) for each in found] == [
        ("plain-w8a8", "executorch", "ExecuTorch"),
        ("plain-w8a8", "folder", "Folder"),
        ("plain-w8a8", "executorch", "ExecuTorch"),
    ]
    assert seen == [16, 1, 1, 4, 4, 1, 1]  # the reference once; each artifact in batches that it takes well
    first, folder, alone = found
    assert np.array_equal(first.images["reference"], folder.images["reference"])
    assert not np.array_equal(first.images["quantized"], folder.images["quantized"])
    assert np.array_equal(first.images["corrected"], alone.images["corrected"])
    assert (
        folder.artifact["bytes"]
        == bundle.artifact_bytes("folder")
        == sum(file.stat().st_size for file in bundle.artifact("folder").rglob("*") if file.is_file())
    )
    assert folder.provenance["artifact sha256"] == path_digest(bundle.artifact("folder"))
    text = render_report([first, folder])
    assert "w8a8 · Folder" in text and "Folder quantized + correction" in text and "For tests alone." in text


def test_another_noise_is_another_reference(bundle, plain_model):
    one, other = (evaluate(bundle, 2, seed, model=plain_model, benchmark=False) for seed in (0, 1))
    assert not np.array_equal(one.images["reference"], other.images["reference"])


def test_an_emulators_time_is_never_a_phones(bundle, plain_model):
    timed = evaluate(bundle, 2, target="folder", model=plain_model)
    assert timed.artifact["step_time_ratio"] is timed.artifact["fp32_bytes"] is None
    assert timed.artifact["step_time_note"] == "not measured: an emulator's time is never a phone's"


def test_a_target_that_a_bundle_lacks_is_named_before_the_work(bundle, w8a8, monkeypatch):
    monkeypatch.setattr("mobile_export.evaluate.bundle_evaluation.evaluate", None)
    with pytest.raises(UsageError, match="has no folder part; it has: executorch"):
        evaluate_all([bundle, w8a8.bundle], 2, targets=["folder"])


def test_inspect_tells_of_a_folder_artifact_and_of_each_part(bundle, tmp_path):
    title, found = inspect_path(bundle.artifact("folder"))
    assert title == "Folder artifact unet.folder"
    assert found["bytes"] == bundle.artifact_bytes("folder") and found["operations"] == {"conv": 5}
    assert found["planned activation memory"] == found["placement"] == "decided on the device"
    assert found["notes"] == "For tests alone." and "delegates" not in found
    _, found = inspect_path(bundle.path)
    assert found["folder"]["artifact bytes"] == bundle.artifact_bytes("folder")
    assert found["executorch"]["delegates"] == 1 and found["targets"] == list(BOTH)
    (tmp_path / "x.folders").mkdir()
    with pytest.raises(UsageError, match="is not a bundle"):
        inspect_path(tmp_path / "x.folders")


def test_the_command_line_takes_targets(run, bundle, tmp_path):  # noqa: F811
    found = figures(run("verify", bundle.path, "--json"))
    assert set(found) == {"files, sizes and sha256 right", *BOTH} and found["files, sizes and sha256 right"] == 8
    found = figures(run("verify", bundle.path, "--target", "folder", "--json"))
    assert set(found) == {"files, sizes and sha256 right", "folder"}
    assert found["folder"]["placement"] == "decided on the device"
    picture = tmp_path / "p.png"
    assert figures(run("simulate", bundle.path, "-n", 1, "-o", picture, "--json"))["target"] == "executorch"
    first = picture.read_bytes()
    arguments = "-n", 1, "-o", picture, "--target", "folder", "--json"
    assert figures(run("simulate", bundle.path, *arguments))["target"] == "folder"
    assert picture.read_bytes() != first
    page = tmp_path / "r.html"
    found = figures(run("report", bundle.path, "-n", 2, "-o", page, "--no-benchmark", "--json"))
    assert set(found["plain-w8a8"]) == set(BOTH)
    for verb, *rest in (("verify",), ("simulate", "-n", 1, "-o", picture), ("report", "-n", 2, "-o", page)):
        text = sentence(run(verb, bundle.path, *rest, "--target", "coreml"), 2)
        assert "has no coreml part; it has: executorch, folder" in text
    code, out, _ = run("verify", bundle.path)
    assert code == 0 and "plain-w8a8: verified, folder" in out and "plain-w8a8: verified, executorch" in out


def test_export_on_the_command_line_prints_a_table_for_each_target(run, plain_folder, settings, tmp_path):  # noqa: F811
    options = "--sampler", "ddim-eta1", "--steps", 5, "--calibration-samples", 8, "--workers", 1
    options += "--activations", "static"
    code, out, err = run("export", plain_folder, "-o", tmp_path / "b", *options)
    assert code == 0, err
    for title in ("plain-w8a8", "plain-w8a8, executorch", "plain-w8a8, folder"):
        assert title in out
    assert out.count("artifact bytes") == 2
