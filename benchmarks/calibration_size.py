"""How many trajectories a correction needs: `make results`.

    python benchmarks/calibration_size.py build/results/digits28-w8a8 build/results/calibration

Solves the default correction of a bundle's `.pte` on 8, 16, … 512 trajectories and judges each on the same held-out
seeds. What was measured before is taken over. The table goes into docs/results.md, too.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from one_thread import one_thread

from correction.methods import DEFAULT_METHOD
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_study import bundle_study
from mobile_export.evaluate.comparison_table import require_place, write_into
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.study_settings import Sampling, StudySettings
from mobile_export.terminal import TerminalProgress

DOCUMENT, PLACE = Path("docs/results.md"), "calibration-size"
COUNTS = (8, 16, 32, 64, 128, 256, 512)
SEEDS, SAMPLING, METHOD = 128, Sampling("ddim", 20), DEFAULT_METHOD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, help="for what was measured")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    arguments = parser.parse_args()
    require_place(DOCUMENT, PLACE)
    bundle, rows = Bundle.open(arguments.bundle), []
    with TerminalProgress() as progress:
        for count in arguments.counts:
            settings = StudySettings((SAMPLING,), (METHOD,), SEEDS, count)
            folder, first = arguments.folder / str(count), arguments.folder / str(arguments.counts[0])
            if not folder.exists() and first.exists():  # the reference and the uncorrected network are the same
                shutil.copytree(first / "outcomes", folder / "outcomes")
            found = bundle_study([bundle], ("executorch",), settings, folder, METHOD, progress=progress)
            row = found.rows[OutcomeKey(f"{bundle.name}, ExecuTorch", SAMPLING.name, METHOD)]
            gain = f"{row.gain.mean:+.2f} ({row.gain.low:+.2f} to {row.gain.high:+.2f})"
            rows.append(f"| {count} | {row.psnr.mean:.2f} | {gain} | {row.kept} |")
    head = f"{METHOD} on {bundle.name}, {SAMPLING.sampler}, {SAMPLING.steps} steps, {SEEDS} held-out seeds:\n\n"
    head += "| calibration trajectories | image PSNR (dB) | gain (dB) | steps corrected |\n|---|---|---|---|\n"
    write_into(DOCUMENT, PLACE, head + "\n".join(rows))
    print(head + "\n".join(rows))


if __name__ == "__main__":
    one_thread()
    main()
