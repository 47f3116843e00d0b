"""Draw loss.csv of a training run: python training/plot_loss.py runs/emoji32/loss.csv OUT.png"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path, help="step, weighted loss, mean squared error; resumed runs may overlap")
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    rows = np.loadtxt(arguments.csv, delimiter=",", ndmin=2)
    latest = {int(row[0]): row for row in rows}  # of a stretch that was run twice, the run that was kept
    step, weighted, plain = np.array([latest[s] for s in sorted(latest)]).T
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(step, plain, label="mean squared error")
    axes.semilogy(step, weighted, label="Min-SNR weighted")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(arguments.picture, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
