"""Importing is free of work: no framework is loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "torchao", "diffusers", "executorch", "coremltools", "matplotlib", "scipy", "pandas")


def loaded_by(statement: str, root: Path) -> set[str]:
    """Top-level modules of a fresh interpreter after `statement`."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return set(run.stdout.split())


@pytest.mark.parametrize("package", ["correction", "mobile_export"])
def test_import_loads_no_framework(package: str, root: Path) -> None:
    assert loaded_by(f"import {package}", root).isdisjoint(HEAVY)


def test_correction_needs_only_numpy_and_safetensors(root: Path) -> None:
    before = loaded_by("import numpy, safetensors.numpy", root)
    added = loaded_by("import correction", root) - before - set(sys.stdlib_module_names)
    assert {name for name in added if not name.startswith("_")} <= {"correction", "safetensors"}


def test_correction_does_not_import_the_exporter(root: Path) -> None:
    statement = "import correction.schedulers"
    assert "mobile_export" not in loaded_by(statement, root)
