"""The Xcode project, as far as it can be checked without Xcode: nothing dangles, and what it names exists."""

import plistlib
import re
from pathlib import Path

import pytest
from pbxproj import XcodeProject

IOS = Path(__file__).parents[2] / "ios_demo"
FILE = IOS / "SamplerDemo.xcodeproj" / "project.pbxproj"


@pytest.fixture(scope="module")
def project():
    return XcodeProject.load(str(FILE))


def objects(project):
    return project.objects.get_objects_in_section(*project.objects.get_sections())


def of_kind(project, kind):
    found = project.objects.get_objects_in_section(kind)
    assert found, kind
    return found


def test_every_reference_leads_to_an_object_and_every_object_is_reached(project):
    ids = [entry.get_id() for entry in objects(project)]
    assert len(ids) == len(set(ids)) == 20
    text = FILE.read_text(encoding="utf-8")
    mentioned = re.findall(r"\b[0-9A-F]{24}\b", text)
    assert set(mentioned) == set(ids)
    assert [name for name in ids if mentioned.count(name) < 2] == []  # its definition, and a reference to it


def test_folders_are_synchronized_so_that_no_file_is_listed(project):
    assert str(project.objectVersion) == "77"
    (group,) = of_kind(project, "PBXFileSystemSynchronizedRootGroup")
    (target,) = of_kind(project, "PBXNativeTarget")
    assert list(target.fileSystemSynchronizedGroups) == [group.get_id()]
    assert list((IOS / group.path).glob("*.swift"))
    for kind in ("PBXSourcesBuildPhase", "PBXResourcesBuildPhase"):
        (phase,) = of_kind(project, kind)
        assert list(phase.files) == []


def test_the_package_and_the_files_that_it_names_exist(project):
    (package,) = of_kind(project, "XCLocalSwiftPackageReference")
    text = (IOS / package.relativePath / "Package.swift").read_text(encoding="utf-8")
    (product,) = of_kind(project, "XCSwiftPackageProductDependency")
    assert f'.library(name: "{product.productName}"' in text
    for file in of_kind(project, "PBXFileReference"):
        assert file.sourceTree == "BUILT_PRODUCTS_DIR" or (IOS / file.path).is_file()


def test_the_app_asks_for_the_systems_that_the_package_needs(project):
    text = (IOS / "SamplerCore" / "Package.swift").read_text(encoding="utf-8")
    (needed,) = re.findall(r"\.iOS\(\.v(\d+)\)", text)
    settings = [entry.buildSettings for entry in of_kind(project, "XCBuildConfiguration")]
    targets = {str(each["IPHONEOS_DEPLOYMENT_TARGET"]) for each in settings if "IPHONEOS_DEPLOYMENT_TARGET" in each}
    assert targets == {f"{needed}.0"}
    plists = {str(each["INFOPLIST_FILE"]) for each in settings if "INFOPLIST_FILE" in each}
    assert plists == {"Info.plist"}


def test_bundles_can_be_copied_to_the_app():
    info = plistlib.loads((IOS / "Info.plist").read_bytes())
    assert info["UIFileSharingEnabled"] is True
    assert info["LSSupportsOpeningDocumentsInPlace"] is True
    assert "UILaunchScreen" in info  # else iOS shows the app in the corner of a small screen
