"""The folder of a package: links, escapes and a manifest that lies are refused; what the digest covers."""

import hashlib
import json
import os

import pytest
from sample_packages import MODEL, WEIGHTS, edit_model

from mobile_export.coreml_simulator.errors import PackageError, UnsupportedError
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.package_files import MAX_FILES, MAX_MANIFEST


def refused(package, kind, message):
    """`message` is what read_package, or else decoding the default function, must say."""
    with pytest.raises(kind) as caught:
        read_package(package).program()
    assert type(caught.value) is kind and str(caught.value) == message


def edit_manifest(package, change):
    manifest = json.loads((package / "Manifest.json").read_text())
    change(manifest)
    (package / "Manifest.json").write_text(json.dumps(manifest))


def test_digest_is_of_all_files_but_the_manifest(elements, edited):
    package = edited(elements[0])
    lines = [f"{hashlib.sha256((package / name).read_bytes()).hexdigest()}  {name}\n" for name in (MODEL, WEIGHTS)]
    expected = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    assert read_package(package).digest == expected
    manifest = package / "Manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert read_package(package).digest == expected
    (package / "note.txt").write_text("")
    assert read_package(package).digest != expected


def test_no_folder(tmp_path):
    refused(tmp_path / "no", PackageError, f"a Core ML package is a folder, {tmp_path / 'no'} is none")
    (tmp_path / "file.mlpackage").write_bytes(b"")
    refused(
        tmp_path / "file.mlpackage",
        PackageError,
        f"a Core ML package is a folder, {tmp_path / 'file.mlpackage'} is none",
    )


@pytest.mark.parametrize("name", ["Manifest.json", MODEL, WEIGHTS, "Data", "Data/com.apple.CoreML/weights", "extra"])
def test_links_are_refused(elements, edited, tmp_path, name):
    """Even a link to the very same content, and also one that nothing refers to."""
    package = edited(elements[0])
    if (package / name).exists():
        (package / name).rename(tmp_path / "moved")
    else:
        (tmp_path / "moved").write_text("")
    (package / name).symlink_to(tmp_path / "moved")
    refused(package, PackageError, f"{name} must be a file, or a folder at most 8 deep; a link is neither")


@pytest.mark.parametrize("name", ["pipe", MODEL, WEIGHTS])
def test_a_pipe_does_not_hang(elements, edited, name):
    package = edited(elements[0])
    (package / name).unlink(missing_ok=True)
    os.mkfifo(package / name)
    refused(package, PackageError, f"{name} must be a file, or a folder at most 8 deep; a link is neither")


def test_folders_are_bounded(elements, edited):
    package = edited(elements[0])
    (package / "/".join("12345678")).mkdir(parents=True)
    read_package(package)
    (package / "/".join("123456789")).mkdir(parents=True)
    refused(package, PackageError, "1/2/3/4/5/6/7/8/9 must be a file, or a folder at most 8 deep; a link is neither")
    package = edited(elements[0])
    for i in range(MAX_FILES):
        (package / f"{i}").mkdir()
    refused(package, PackageError, f"a package may have {MAX_FILES} files and folders, this one has more")


@pytest.mark.parametrize("name", ["a\nb", "\udcff", "\u202e"])
def test_names_must_be_printable(elements, edited, name):
    package = edited(elements[0])
    (package / name).write_text("")
    refused(package, PackageError, f"file names must be printable, got {name!r}")


MANIFESTS = [
    (lambda m: m.pop("rootModelIdentifier"), "must list the model None among its itemInfoEntries"),
    (lambda m: m.update(rootModelIdentifier=["a"]), "must list the model ['a'] among its itemInfoEntries"),
    (lambda m: m.update(rootModelIdentifier="none"), "must list the model 'none' among its itemInfoEntries"),
    (lambda m: m.pop("itemInfoEntries"), None),
    (lambda m: m.update(itemInfoEntries=[]), None),
]


@pytest.mark.parametrize(("change", "message"), MANIFESTS)
def test_the_manifest_must_list_the_model(elements, edited, change, message):
    package = edited(elements[0])
    edit_manifest(package, change)
    root = json.loads((package / "Manifest.json").read_text()).get("rootModelIdentifier")
    message = message or f"must list the model {root!r} among its itemInfoEntries"
    refused(package, PackageError, f"Manifest.json {message}")


@pytest.mark.parametrize(
    "path",
    [
        "../Manifest.json",
        "com.apple.CoreML/../../Manifest.json",
        "com.apple.CoreML/./model.mlmodel",
        "com.apple.CoreML//model.mlmodel",
        "/etc/passwd",
        "",
        None,
        3,
        ["com.apple.CoreML/model.mlmodel"],
    ],
)
def test_paths_of_the_manifest_stay_inside(elements, edited, path):
    package = edited(elements[0])
    edit_manifest(
        package, lambda manifest: manifest["itemInfoEntries"][manifest["rootModelIdentifier"]].update(path=path)
    )
    refused(package, PackageError, f"Manifest.json: an item needs a path inside of Data/, got {path!r}")


def test_listed_things_must_be_there(elements, edited):
    package = edited(elements[0])
    (package / MODEL).unlink()
    refused(package, PackageError, f"Manifest.json lists {MODEL!r}, which is not there")
    (package / MODEL).mkdir()
    refused(package, PackageError, f"Manifest.json: the model must be a file, {MODEL} is a folder")


def test_unlisted_weights_are_not_read(elements, edited):
    package = edited(elements[0])
    edit_manifest(
        package,
        lambda manifest: manifest.update(
            itemInfoEntries={
                key: entry for key, entry in manifest["itemInfoEntries"].items() if entry["name"] != "weights"
            }
        ),
    )
    refused(
        package,
        PackageError,
        "elements.mlpackage: function 'main': operation 0 (constexpr_lut_to_dense 'palette1'), value "
        "'palette1.indices': weights lie in no file, got '@model_path/weights/weight.bin'",
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"[", b"\xff", b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b'{"a": "\\ud800'],
)
def test_manifests_that_are_not_json(elements, edited, text):
    package = edited(elements[0])
    (package / "Manifest.json").write_bytes(text)
    with pytest.raises(PackageError, match=r"^Manifest.json is not JSON: "):
        read_package(package)


def test_other_manifests(elements, edited):
    package = edited(elements[0])
    manifest = package / "Manifest.json"
    manifest.write_bytes(b"[]")
    refused(package, PackageError, "Manifest.json must be an object, got list")
    manifest.write_bytes(b'{"fileFormatVersion": "2.0.0"}')
    refused(package, UnsupportedError, "Manifest.json is of version '2.0.0', only 1.* is known")
    message = f"elements.mlpackage must have a Manifest.json of at most {MAX_MANIFEST} bytes"
    manifest.write_bytes(b" " * (MAX_MANIFEST + 1))
    refused(package, PackageError, message)
    manifest.unlink()
    refused(package, PackageError, message)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "@model_path/../Manifest.json",
        "@model_path/weights/../weights/weight.bin",
        "@model_path/weights/none.bin",
        "@model_path/model.mlmodel",
        "weights/weight.bin",
        "",
    ],
)
def test_weights_lie_inside(elements, edited, name):
    package = edited(elements[0])

    def change(model):
        operation = model.mlProgram.functions["main"].block_specializations["CoreML8"].operations[0]
        operation.inputs["indices"].arguments[0].value.blobFileValue.fileName = name

    edit_model(package, change)
    refused(
        package,
        PackageError,
        "elements.mlpackage: function 'main': operation 0 (constexpr_lut_to_dense 'palette1'), value "
        f"'palette1.indices': weights lie in {WEIGHTS}, got {name!r}",
    )
