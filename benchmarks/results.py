"""The tables of docs/results.md that compare corrections, and their pictures, from nothing: `make results`.

    python benchmarks/results.py build/results --only emoji32-w4a8

For both bundled models at w8a8 and w4a8, on the exported `.pte`: the corrections side by side at DDIM in 50 steps, with
the oracle, and then on the other samplers; then variants of our own. Everything is
beside the same network with weights rounded plainly to nearest, without a correction. What was measured before is taken
over, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_study import bundle_study
from mobile_export.evaluate.comparison_table import require_place, write_into
from mobile_export.evaluate.study_settings import ORACLE, Sampling, StudySettings
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.quantize.recipe import Recipe
from mobile_export.quiet import quiet_third_parties
from mobile_export.terminal import TerminalProgress

DOCUMENT, PICTURES = Path("docs/results.md"), Path("docs/pictures")
MODELS, PRECISIONS = ("emoji32", "digits28"), ("w8a8", "w4a8")
BASELINE = "nearest-w4a8"
SEEDS = 128
MAIN = (("ddim", 50),)
OTHERS = (("ddim", 20), ("ddim", 100), ("ddim-eta1", 50), ("dpmpp-2m", 20))
RIVALS = ("ptqd", "ptqd/gated", "d2-dpm", "d2-dpm/gated")
METHODS = ("tac", "ibc", "affine", *RIVALS, ORACLE)
FEWER = ("tac", "affine", "ptqd", "d2-dpm")
VARIANTS = (
    *("tac", "tac/tuned", "tac/free", "tac-paired", "tac-lsq", "tac-std", "ner", "ibc", "ibc-affine"),
    *("input-gain", "input-affine", "input-affine-ner", "affine", "affine/tuned", "affine/free", "affine/paired"),
)
VARIED = (("emoji32", "w8a8"), ("emoji32", "w4a8"), ("digits28", "w8a8"))


@dataclass(frozen=True)
class Table:
    """One study: its place in the document is called `name`."""

    name: str
    model: str
    precision: str
    samplings: tuple[tuple[str, int], ...]
    methods: tuple[str, ...]


PAIRS = tuple((model, precision) for model in MODELS for precision in PRECISIONS)
TABLES = tuple(
    Table(f"{model}-{precision}{suffix}", model, precision, samplings, methods)
    for suffix, samplings, methods, pairs in (
        ("", MAIN, METHODS, PAIRS),
        ("-samplers", OTHERS, FEWER, PAIRS),
        ("-variants", MAIN, VARIANTS, VARIED),
    )
    for model, precision in pairs
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for bundles, what was measured, and pictures")
    parser.add_argument("--only", nargs="+", choices=[table.name for table in TABLES], help="some of the tables")
    arguments = parser.parse_args()
    chosen = [table for table in TABLES if not arguments.only or table.name in arguments.only]
    for table in chosen:
        require_place(DOCUMENT, table.name)
    with TerminalProgress() as progress:
        for table in chosen:
            started = time.monotonic()
            settings = StudySettings(tuple(Sampling(*each) for each in table.samplings), table.methods, SEEDS)
            base = bundle(arguments.folder, table.model, BASELINE, progress)
            ours = bundle(arguments.folder, table.model, table.precision, progress)
            folder = arguments.folder / f"{table.name}.study"
            main_table = arguments.folder / f"{table.model}-{table.precision}.study"
            if table.samplings == MAIN and not folder.exists() and main_table.exists():  # some rows are the same
                shutil.copytree(main_table / "outcomes", folder / "outcomes")
            found = bundle_study([ours], ("executorch",), settings, folder, baseline=base, progress=progress)
            write_into(DOCUMENT, table.name, found.text)
            if table.methods == METHODS:
                for kind in ("grid", "curves"):
                    (picture,) = folder.glob(f"{kind}-{ours.name}--*.png")
                    shutil.copyfile(picture, PICTURES / f"{kind}-{table.name}.png")
            print(f"{table.name}: {(time.monotonic() - started) / 60:.0f} minutes", flush=True)


def bundle(folder: Path, model: str, kind: str, progress: TerminalProgress) -> Bundle:
    """The bundle of a model at a precision, or the baseline's; made where it is not there yet."""
    path = folder / f"{model}-{kind}"
    if not path.exists():
        recipe = (
            Recipe.of(kind) if kind in PRECISIONS else Recipe.read(Path("benchmarks/recipes") / f"{path.name}.json")
        )
        return export(model, path, ExportSettings(recipe, targets=("executorch",)), progress)
    return Bundle.open(path)


if __name__ == "__main__":
    quiet_third_parties()
    main()
