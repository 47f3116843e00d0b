"""Bundles: whatever was changed, lost or smuggled in is named before anything is loaded."""

import json
import os
import shutil

import pytest
import tiny
from bundle_edits import put

from correction import CheckFailed, FormatError, UsageError
from mobile_export.bundle import Bundle, file_sha256, publishing, write_manifest
from mobile_export.manifest import MAX_FILES, MAX_MANIFEST_BYTES, MAX_SIDE
from mobile_export.verify import verify_bundle

FILES = ("executorch/correction.safetensors", "executorch/unet.pte", "executorch/golden.safetensors")


@pytest.fixture
def folder(copied, w4a8):
    return copied(w4a8)


def files_of(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("which", ["w4a8", "w8a8"])
def test_a_fresh_bundle_holds_what_its_manifest_says_and_verifies(which, request):
    exported = request.getfixturevalue(which)
    bundle = exported.bundle
    assert tuple(sorted(files_of(bundle.path))) == (FILES[0], FILES[2], FILES[1], "manifest.json")
    assert {name: file_sha256(bundle.path / name) for name in FILES} == {
        name: entry["sha256"] for name, entry in bundle.manifest["files"].items()
    }
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in bundle.path.rglob("*"))  # others may read it
    assert bundle.correction_file("executorch").artifact_sha256 == file_sha256(bundle.artifact("executorch"))
    found = verify_bundle(bundle)["executorch"]
    assert found.outputs_equal and set(found.output_psnr_db) == {200} and found.sample_error == 0
    assert (found.files, found.delegates) == (3, 1)
    assert found.undelegated == ({"aten::embedding": 1} if which == "w4a8" else {})


def test_the_manifest_says_what_was_asked_and_achieved(w4a8):
    manifest, part = w4a8.bundle.manifest, w4a8.bundle.component("executorch")
    assert (manifest["precision"], manifest["sampler"], manifest["steps"]) == ("w4a8", "ddim", 6)
    assert manifest["model"]["classes"] == tiny.CLASSES and manifest["model"]["null_label"] == tiny.NULL_LABEL
    assert manifest["image"] == {"channels": 3, "height": 8, "width": 8, "range": [-1, 1]}
    assert manifest["sample"] == {"channels": 3, "height": 8, "width": 8}
    assert manifest["text"] is manifest["latents"] is None and manifest["guidance_calls"] == 1
    assert len(w4a8.bundle.part("executorch")["kept_steps"]) == 6
    assert part["recipe"] == {"precision": "w4a8", "format": "channel", "layers": {}, "activations": "dynamic"}
    assert part["refitted_layers"] == {} and part["weight_bits_achieved"] < part["stored_bits"]
    parameters = sum(p.numel() for p in w4a8.model.unet.parameters())
    assert (
        manifest["model"]["parameters"] == part["parameters"] == parameters and part["ideal_bytes"] == parameters // 2
    )
    assert part["weight_bits_asked"] == 4 < part["weight_bits_achieved"] < 8
    assert part["float_layers"] == ["conv_in", "conv_out"]
    assert manifest["model"]["digest"] == w4a8.model.digest


def test_parts_by_name(w4a8):
    assert w4a8.bundle.targets == ("executorch",)
    with pytest.raises(UsageError, match="has no coreml part; it has: executorch"):
        w4a8.bundle.part("coreml")


# damage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 1.0])
def test_a_changed_byte_anywhere_is_named(folder, name, where):
    data = bytearray((folder / name).read_bytes())
    data[round(where * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckFailed, match=rf"{name} was changed since .*\(sha256 differs\): copy or export it again"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing_files_are_named(folder, name):
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 1)
    with pytest.raises(CheckFailed, match=f"{name} has {size - 1} bytes, the manifest says otherwise"):
        Bundle.open(folder)
    (folder / name).unlink()
    with pytest.raises(CheckFailed, match=f"{name} is missing from the bundle: copy or export it again"):
        Bundle.open(folder)


def test_a_claim_without_a_file_is_named(folder):
    tiny.change_manifest(
        folder, lambda m: m["files"].update({"coreml/unet.mlpackage": {"bytes": 1, "sha256": "0" * 64}})
    )
    with pytest.raises(CheckFailed, match=r"coreml/unet\.mlpackage is missing"):
        Bundle.open(folder)


def test_paths_out_of_the_bundle_are_refused_before_they_are_read(folder, tmp_path):
    outside = tmp_path / "secret"
    outside.write_text("x")
    entry = {"bytes": 1, "sha256": file_sha256(outside)}
    for name in ("../secret", str(outside), "executorch/../../secret", "..\\secret", "", ".", "executorch/.."):
        tiny.change_manifest(folder, lambda m, name=name: m.update(files={**m["files"], name: entry}))
        with pytest.raises(CheckFailed, match="which is outside of the bundle or no plain path"):
            Bundle.open(folder)
        tiny.change_manifest(folder, lambda m, name=name: m["files"].pop(name))
    Bundle.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_links_are_refused_even_to_the_right_content(folder, tmp_path, name):
    kept = tmp_path / "kept"
    shutil.move(folder / name, kept)
    (folder / name).symlink_to(kept)
    with pytest.raises(CheckFailed, match=f"{name} is a link: a bundle holds its files itself"):
        Bundle.open(folder)


def test_linked_folders_are_refused(folder, tmp_path):
    shutil.move(folder / "executorch", tmp_path / "moved")
    (folder / "executorch").symlink_to(tmp_path / "moved")
    with pytest.raises(CheckFailed, match="is a link"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "name",
    ["a" * 300, "a\0b", "a\nb", "\ud800", "executorch"],
    ids=["long", "null", "line break", "surrogate", "folder"],
)
def test_names_that_no_file_can_have_are_refused(folder, name):
    tiny.change_manifest(folder, lambda m: m["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(
        CheckFailed,
        match=r"missing from the bundle|cannot be read|no file name here may have|lone surrogate|not allowed",
    ):
        Bundle.open(folder)


@pytest.mark.parametrize("entry", [None, 7, [], {}, {"bytes": "1"}, {"bytes": -1}])
def test_entries_that_are_none_are_refused(folder, entry):
    tiny.change_manifest(folder, lambda m: m["files"].update({FILES[1]: entry}))
    with pytest.raises(CheckFailed, match=f"{FILES[1]} has .* bytes, the manifest says otherwise"):
        Bundle.open(folder)


# the manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not readable JSON"),
        ("{", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ('{"files": ' + "9" * 5000 + "}", "is not readable JSON"),
        (b"\xff\xfe", "is not readable JSON"),
        ("[]", "its format is not 'mobile-export-bundle'"),
        ('{"format": "zip"}', "its format is not 'mobile-export-bundle'"),
        (" " * MAX_MANIFEST_BYTES + "{}", f"larger than {MAX_MANIFEST_BYTES} bytes"),
        ('{"format": "mobile-export-bundle"}', "format version None, this program reads 3"),
        ('{"format": "mobile-export-bundle", "format_version": "1.0"}', "format version 1.0, this program reads 3"),
        (
            '{"format": "mobile-export-bundle", "format_version": "3.7"}',
            "files and parts must be objects with at least one entry",
        ),
    ],
    ids=lambda value: None if isinstance(value, (str, bytes)) and len(value) > 70 else value,
)
def test_what_is_no_manifest_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckFailed, match=message):
        Bundle.open(tmp_path)


def test_another_minor_version_is_read(folder):
    tiny.change_manifest(folder, lambda m: m.update(format_version="3.9", something_new=1))
    assert Bundle.open(folder).name == "tiny-w4a8"


def test_too_many_files_are_refused(folder):
    tiny.change_manifest(folder, lambda m: m["files"].update({f"f{k}": {} for k in range(MAX_FILES)}))
    with pytest.raises(CheckFailed, match=f"a bundle has at most {MAX_FILES} files"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("name", None, "name is missing, expected str"),
        ("model", None, "model.name is missing"),
        ("model", [], "model.name is missing"),
        ("model.classes", "cat", "model.classes is str, expected list"),
        ("model.classes", [1], "model.classes must be names"),
        ("model.null_label", "3", "model.null_label a number or null"),
        ("guidance", "1", "guidance is str, expected float"),
        ("steps", True, "steps is bool, expected int"),
        ("image.height", 0, f"image.height must be 1 to {MAX_SIDE}, got 0"),
        ("image.width", 10**9, f"image.width must be 1 to {MAX_SIDE}, got 1000000000"),
        ("image.channels", 3.0, "image.channels is float, expected int"),
        ("parts.executorch", [], r"parts.executorch.components is missing"),
        ("parts.executorch.components.unet.artifact", [], r"components.unet.artifact is list, expected str"),
        ("parts.executorch.components", {}, "parts.executorch.components has no unet"),
        ("parts.executorch.components.unet", 3, "components.unet.artifact is missing"),
        ("parts.executorch.components.vocoder", {}, "components.vocoder is none of unet, text_encoder"),
        ("parts.executorch.components.unet.signature.inputs", [{"name": "x"}], "components.unet.signature is none"),
        ("parts.executorch.components.unet.signature.output.shape", [1, 2**40], "sizes must be 1 to 2147483647"),
        ("sample.width", 0, f"sample.width must be 1 to {MAX_SIDE}, got 0"),
        ("text", {"max_length": 7}, "text.width is missing"),
        ("latents", {"kind": "kl"}, "latents.channels is missing"),
        ("parts.executorch.components.unet.artifact", "executorch/other.pte", "which is not in the list of files"),
        ("parts.executorch.correction", "manifest.json", "which is not in the list of files"),
        ("parts.executorch.components.unet.description", None, "components.unet.description is missing"),
        ("parts.executorch.golden", None, "parts.executorch.golden is missing"),
        ("parts.executorch.golden", "executorch", "which is not in the list of files"),
        ("parts.executorch.components.unet.artifact", "", "which is not in the list of files"),
        ("parts.executorch.components.unet.artifact", "executorch/", "which is not in the list of files"),
        ("parts.executorch.kept_steps", 5, "parts.executorch.kept_steps is int, expected list"),
        ("parts.executorch.components.unet.conversion_parity.limits", None, "conversion_parity.limits is missing"),
        (
            "parts.executorch.components.unet.conversion_parity.limits.flip_rate",
            "1",
            "limits.flip_rate is str, expected a number",
        ),
        (
            "parts.executorch.components.unet.conversion_parity.flip_rate",
            "1",
            "conversion_parity.flip_rate is str, expected a number",
        ),
        (
            "parts.executorch.components.unet.description.size_parts",
            {"x": "y"},
            "size_parts.x is str, expected a number",
        ),
        ("parts", {}, "files and parts must be objects with at least one entry"),
        ("parts.executorch.components.unet.recipe", "w4a8", "unet.recipe is str, expected dict"),
        ("versions", None, "versions is missing"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused_when_it_is_opened(folder, where, value, message):
    tiny.change_manifest(folder, put(where.replace(".", "/"), value))
    with pytest.raises(CheckFailed, match=message):
        Bundle.open(folder)


def test_what_is_no_bundle_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"no bundle at .*nowhere.*: it is not a folder"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(
        UsageError, match=r"is not a bundle: it has no manifest\.json; make one with mobile-export export"
    ):
        Bundle.open(tmp_path)


def test_a_manifest_has_the_same_bytes_for_the_same_content(tmp_path):
    texts = []
    for order in ("ab", "ba"):
        folder = tmp_path / order
        folder.mkdir()
        for letter in order:
            (folder / letter).write_text(letter)
        write_manifest(folder, {"x": 1, "é": 2} if order == "ab" else {"é": 2, "x": 1})
        texts.append((folder / "manifest.json").read_bytes())
    assert texts[0] == texts[1]
    assert set(json.loads(texts[0])["files"]) == {"a", "b"}  # not itself
    with pytest.raises(ValueError, match="JSON compliant"):
        write_manifest(tmp_path / "ab", {"x": float("nan")})


# bindings


def test_another_artifact_under_the_correction_is_refused_by_the_binding(folder, w8a8):
    """Someone swaps the artifact and makes the digests agree: the correction knows what it was solved for."""
    shutil.copy(w8a8.bundle.artifact("executorch"), folder / FILES[1])
    tiny.renew_digest(folder, FILES[1])
    bundle = Bundle.open(folder)
    for use in (lambda: bundle.correction_file("executorch"), lambda: verify_bundle(bundle)):
        with pytest.raises(FormatError) as caught:
            use()
        assert caught.value.name == "other-artifact"


# publishing


def test_publishing_renames_at_the_end_and_replaces_a_bundle(tmp_path):
    target = tmp_path / "b"
    for content in ("one", "two"):
        with publishing(target) as work:
            assert work.parent == tmp_path and work.name.startswith(".")
            (work / "manifest.json").write_text(content)
            assert not target.exists() or (target / "manifest.json").read_text() == "one"
        assert (target / "manifest.json").read_text() == content
        assert os.listdir(tmp_path) == ["b"]


def test_an_error_leaves_nothing_and_an_interruption_what_it_has(tmp_path):
    target = tmp_path / "b"
    with pytest.raises(RuntimeError), publishing(target) as work:
        (work / "file").write_text("x")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), publishing(target) as work:
        (work / "file").write_text("x")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [".b.partial"]
    with publishing(target) as work:
        assert (work / "file").read_text() == "x"


def test_an_error_keeps_the_bundle_that_was_there(tmp_path):
    target = tmp_path / "b"
    with publishing(target) as work:
        (work / "manifest.json").write_text("one")
    with pytest.raises(RuntimeError), publishing(target):
        raise RuntimeError
    assert (target / "manifest.json").read_text() == "one" and os.listdir(tmp_path) == ["b"]


def test_what_is_there_and_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(UsageError, match="exists and is not a bundle: choose another output or remove it"):
            publishing(tmp_path / name).__enter__()
    with pytest.raises(UsageError, match=r"the folder .*nowhere.* of the output does not exist"):
        publishing(tmp_path / "nowhere" / "b").__enter__()
    assert sorted(os.listdir(tmp_path)) == ["file", "thesis"]
