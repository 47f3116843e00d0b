"""Models and bundles that many tests share. Lowering is the slow part: each artifact is lowered once a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

from mobile_export.backends.executorch.backend import ExecuTorchBackend, ExportedPair
from mobile_export.bundle import Bundle
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.models.diffusion_model import DiffusionModel, load_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import QuantizationTable


@dataclass(frozen=True)
class Exported:
    """A bundle with what its export made on the way. The folder is shared: copy it before changing it."""

    bundle: Bundle
    model: DiffusionModel
    settings: ExportSettings
    table: QuantizationTable
    pair: ExportedPair


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class-conditional, with class names and a null class."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return tiny.save_model(folder, tiny.make_unet(1), {"classes": tiny.CLASSES, "null": tiny.NULL_LABEL})


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unconditional, without labels.json."""
    return tiny.save_model(tmp_path_factory.mktemp("models") / "plain", tiny.make_unet(2, **tiny.UNCONDITIONAL))


@pytest.fixture(scope="session")
def model(model_folder: Path) -> DiffusionModel:
    return load_model(str(model_folder))


@pytest.fixture(scope="session")
def plain_model(plain_folder: Path) -> DiffusionModel:
    return load_model(str(plain_folder))


W4A8 = ExportSettings(Recipe.of("w4a8"), steps=6, calibration_samples=8, range_samples=3, targets=("executorch",))
PLAIN_W8A8 = ExportSettings(
    Recipe.of("w8a8", activations="static"),
    "ddim-eta1",
    steps=5,
    method="tac/free",  # gated it would be none: 8 bits leave nothing to correct in a network of random weights
    calibration_samples=8,
    targets=("executorch",),
)


@pytest.fixture(scope="session")
def w4a8(model_folder: Path, model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Conditional, deterministic sampler, activations with ranges found at run time."""
    return _exported(model_folder, model, W4A8, tmp_path_factory.mktemp("bundles") / "w4a8")


@pytest.fixture(scope="session")
def w8a8(plain_folder: Path, plain_model: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Unconditional, a sampler with fresh noise at its steps, activations on static grids."""
    return _exported(plain_folder, plain_model, PLAIN_W8A8, tmp_path_factory.mktemp("bundles") / "w8a8")


def _exported(folder: Path, model: DiffusionModel, settings: ExportSettings, target: Path) -> Exported:
    seen = []
    original = ExecuTorchBackend.export

    def spy(self, component, table, path, progress):
        seen.append((table, original(self, component, table, path, progress)))
        return seen[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExecuTorchBackend, "export", spy)
        bundle = export(str(folder), target, settings)
    ((table, pair),) = seen
    return Exported(bundle, model, settings, table, pair)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Exported], Path]:
    """copied(exported): the folder of a private copy of a bundle."""
    return lambda exported: Path(shutil.copytree(exported.bundle.path, tmp_path / "copy"))
