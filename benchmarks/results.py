"""The tables of docs/results.md and docs/corrections.md that compare corrections, and their pictures: `make results`.

    python benchmarks/results.py build/results --only emoji32-ddim-20

A study is a model on a sampler, at w8a8 and w4a8, on the exported `.pte`: corrections side by side on the same
held-out seeds. DDIM in 50 steps has the rivals at other settings, too, an oracle, and the same network with weights
rounded plainly to nearest beside it; DDIM in 20 steps a second study, of variants of our own. Studies run side by side,
each in a process of one thread. What was measured before is taken over, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from one_thread import one_thread

from correction.methods import DEFAULT_METHOD
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_study import BundleStudy, bundle_study
from mobile_export.evaluate.comparison_table import require_place, write_into
from mobile_export.evaluate.study_settings import ORACLE, Sampling, StudySettings
from mobile_export.evaluate.summary import summary_head, summary_row
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.progress import Progress
from mobile_export.quantize.recipe import Recipe

TABLES, RESULTS, PICTURES = Path("docs/corrections.md"), Path("docs/results.md"), Path("docs/pictures")
MODELS, PRECISIONS = ("emoji32", "digits28"), ("w8a8", "w4a8")
BASELINE = "nearest-w4a8"
SEEDS = 128
MAIN, SHORT = Sampling("ddim", 50), Sampling("ddim", 20)
OTHERS = (SHORT, Sampling("ddim-eta1", 50), Sampling("dpmpp-2m", 20), Sampling("ddim", 100))
RIVALS = ("ptqd", "d2-dpm")
EVERY = (DEFAULT_METHOD, "tac", "ibc", *RIVALS, "ptqd/gated", "d2-dpm/gated", ORACLE)
VARIANTS = (
    *(DEFAULT_METHOD, "affine/tuned", "ibc-affine", "input-gain", "input-affine", "input-affine-ner"),
    *("tac", "tac/tuned", "tac/free", "tac-paired", "tac-lsq", "tac-std", "ner"),
)


@dataclass(frozen=True)
class Table:
    """One study. name: its place in docs/corrections.md; folder: of what it measures, which some share, in turn; those
    of the first turn have rows in the summary."""

    name: str
    folder: str
    model: str
    sampling: Sampling
    methods: tuple[str, ...]
    baseline: bool = False
    turn: int = 0


def tables() -> tuple[Table, ...]:
    found = []
    for sampling in (MAIN, *OTHERS):
        for model in MODELS:
            name, main = f"{model}-{sampling.sampler}-{sampling.steps}", sampling == MAIN
            methods = EVERY if main else (DEFAULT_METHOD, "tac", *RIVALS)
            found.append(Table(name, name, model, sampling, methods, baseline=main))
    for model in MODELS:
        place = f"{model}-{SHORT.sampler}-{SHORT.steps}"
        found.append(Table(f"{model}-variants", place, model, SHORT, VARIANTS, turn=1))
    return tuple(found)


class Lines(Progress):
    """A line per stage, with the study's name: bars of several processes would overwrite each other."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stage(self, title: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {title}", flush=True)


def main() -> None:
    known = {table.name: table for table in tables()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for bundles, what was measured, and pictures")
    parser.add_argument(
        "--only", nargs="+", choices=list(known), default=list(known), help="some of the tables, and a summary of these"
    )
    parser.add_argument("--methods", nargs="+", help="some of the methods; nothing is written into the documents")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="studies side by side")
    arguments = parser.parse_args()
    chosen = [known[name] for name in arguments.only]
    for table in chosen:
        require_place(TABLES, table.name)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    started, found = time.monotonic(), {}
    with ProcessPoolExecutor(arguments.workers, get_context("spawn"), initializer=one_thread) as pool:
        for made in [pool.submit(make_bundles, arguments.folder, m) for m in sorted({table.model for table in chosen})]:
            made.result()
        for turn in sorted({table.turn for table in chosen}):
            now = sorted((t for t in chosen if t.turn == turn), key=lambda t: -t.sampling.steps)  # the longest first
            waiting = {pool.submit(measure, arguments.folder, t, arguments.methods or t.methods): t for t in now}
            for ready in as_completed(waiting):
                table, (study, seconds) = waiting[ready], ready.result()
                found[table.name] = study
                print(f"{table.name}: {seconds / 60:.0f} minutes of processor time", flush=True)
                if arguments.methods is None:
                    publish(arguments.folder, table, study)
                else:
                    print(study.text, flush=True)
            if turn == 0 and arguments.methods is None:
                write_into(RESULTS, "summary", summary({t.name: (t, found[t.name]) for t in chosen if t.turn == 0}))
    print(f"{len(found)} studies in {(time.monotonic() - started) / 60:.0f} minutes, {arguments.workers} workers")


def make_bundles(folder: Path, model: str) -> None:
    """Those of a model that are not there yet."""
    for kind in (*PRECISIONS, BASELINE):
        path = folder / f"{model}-{kind}"
        if not path.exists():
            plain = Path("benchmarks/recipes") / f"{path.name}.json"
            recipe = Recipe.of(kind) if kind in PRECISIONS else Recipe.read(plain)
            settings = ExportSettings(recipe, targets=("executorch",), method="none")  # studies solve their own
            export(model, path, settings, Lines(path.name))


def measure(folder: Path, table: Table, methods: tuple[str, ...]) -> tuple[BundleStudy, float]:
    """The study and how many seconds of processor time it took."""
    started, bundles = time.process_time(), [Bundle.open(folder / f"{table.model}-{each}") for each in PRECISIONS]
    baseline = Bundle.open(folder / f"{table.model}-{BASELINE}") if table.baseline else None
    settings = StudySettings((table.sampling,), tuple(methods), SEEDS)
    place, progress = folder / f"{table.folder}.study", Lines(table.name)
    found = bundle_study(bundles, ("executorch",), settings, place, baseline=baseline, progress=progress)
    return found, time.process_time() - started


def publish(folder: Path, table: Table, study: BundleStudy) -> None:
    """Into the document; the main tables' pictures beside it."""
    write_into(TABLES, table.name, study.text)
    for kind in ("grid", "curves") if table.baseline else ():
        for precision in PRECISIONS:
            (picture,) = (folder / f"{table.folder}.study").glob(f"{kind}-{table.model}-{precision}--*.png")
            shutil.copyfile(picture, PICTURES / f"{kind}-{table.model}-{precision}.png")


def summary(studies: Mapping[str, tuple[Table, BundleStudy]]) -> str:
    """A row for each model, sampler and precision: the default beside no correction and beside the rivals."""
    lines = [summary_head(DEFAULT_METHOD, RIVALS)]
    for table, study in studies.values():
        for precision in PRECISIONS:
            network = f"{table.model}-{precision}, ExecuTorch"
            lines.append(summary_row(study, network, table.sampling, DEFAULT_METHOD, RIVALS))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
