"""Sample packages, made once for all tests of the simulator's reader; tests that change one take a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_packages


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples")


@pytest.fixture(scope="session")
def elements(samples: Path) -> tuple[Path, dict[str, Any]]:
    """The package, and by name the arrays that it was made of."""
    path = samples / "elements.mlpackage"
    return path, sample_packages.elements(path)


@pytest.fixture(scope="session")
def palettes(samples: Path) -> tuple[Path, dict[str, Any]]:
    path = samples / "palettes.mlpackage"
    return path, sample_packages.palettes(path)


@pytest.fixture(scope="session")
def two_functions(samples: Path) -> Path:
    path = samples / "two_functions.mlpackage"
    sample_packages.two_functions(path)
    return path


@pytest.fixture(scope="session")
def stateful(samples: Path) -> Path:
    path = samples / "stateful.mlpackage"
    sample_packages.stateful(path)
    return path


@pytest.fixture(scope="session")
def branching(samples: Path) -> Path:
    path = samples / "branching.mlpackage"
    sample_packages.branching(path)
    return path


@pytest.fixture(scope="session")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """A copy of a package, of the same name, for a test to change."""

    def copy(package: Path) -> Path:
        return Path(shutil.copytree(package, tmp_path_factory.mktemp("edited") / package.name))

    return copy
