"""The tables of README.md and docs/results.md about the bundles of `make demo`: sizes, conversion parity, gain.

    python benchmarks/bundle_tables.py build/emoji32-w8a8 build/emoji32-w4a8

The same figures as `mobile-export report BUNDLE... -n 64 --seed 1 --json`, which takes as long; also in `make results`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_evaluation import evaluate_all
from mobile_export.evaluate.comparison_table import line, require_place, write_into
from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.metrics import Interval
from mobile_export.quiet import quiet_third_parties
from mobile_export.terminal import TerminalProgress

README, RESULTS = Path("README.md"), Path("docs/results.md")
SEEDS, SEED = 64, 1
FILES = {"executorch": "`.pte`", "coreml": "`.mlpackage`"}
DEVICE = "the device decides"
Row = tuple[str, Callable[[Evaluation], str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    bundles = [Bundle.open(path) for path in parser.parse_args().bundles]
    places = ((README, "bundles"), (RESULTS, "size"), (RESULTS, "parity"), (RESULTS, "gain"))
    for path, place in places:
        require_place(path, place)
    with TerminalProgress() as progress:
        found = evaluate_all(bundles, SEEDS, SEED, benchmark=False, progress=progress)
    for (path, place), rows in zip(places, (overview(found[0]), SIZE, PARITY, GAIN), strict=True):
        text = table(found, rows)
        write_into(path, place, text)
        print(text)


def table(found: Sequence[Evaluation], rows: Sequence[Row]) -> str:
    """A row that says nothing of any bundle is left out."""
    lines = [
        line(["", *(f"{each.precision} {FILES[each.target]}" for each in found)]),
        line("---" for _ in range(len(found) + 1)),
    ]
    for name, value in rows:
        cells = [value(each) for each in found]
        lines += [line([name, *cells])] if any(cells) else []
    return "\n".join(lines)


def overview(first: Evaluation) -> list[Row]:
    """For the README. The float32 weights are the same of all."""
    size = f"size, of {4 * first.artifact['parameters'] / 1e6:.1f} MB of float32 weights"
    return [
        (size, lambda e: f"{e.artifact['bytes'] / 1e6:.2f} MB"),
        ("over bits x parameters / 8", ratio),
        ("correction file", lambda e: f"{e.artifact['correction_bytes']:,} bytes"),
        ("image PSNR, quantized (dB)", lambda e: f"{plain(e).mean:.1f}"),
        ("image PSNR with correction (dB)", lambda e: f"{corrected(e).mean:.1f}"),
        ("**correction gain, paired (dB)**", lambda e: f"**{interval(gain(e), '+')}**"),
        ("activation codes that differ from PyTorch, in lock-step", flips),
    ]


def part(name: str) -> Callable[[Evaluation], str]:
    def value(evaluation: Evaluation) -> str:
        parts = evaluation.artifact["size_parts"]
        return f"{parts[name]:,}" if name in parts else ""

    return value


def ratio(evaluation: Evaluation) -> str:
    return f"{evaluation.artifact['bytes'] / evaluation.artifact['ideal_bytes']:.3f}"


def bits(evaluation: Evaluation) -> str:
    asked, achieved = (evaluation.artifact[f"weight_bits_{each}"] for each in ("asked", "achieved"))
    return f"{asked} / {achieved:.2f}"


def delegates(evaluation: Evaluation) -> str:
    count, outside = evaluation.artifact["delegates"], evaluation.artifact["undelegated"]
    if count is None:
        return DEVICE
    return f"{count}; " + (", ".join(f"`{name}` x {times}" for name, times in outside.items()) or "none")


def planned(evaluation: Evaluation) -> str:
    count = evaluation.artifact["planned_memory_bytes"]
    return DEVICE if count is None else f"{count:,}"


def flips(evaluation: Evaluation) -> str:
    found = evaluation.conversion_parity
    steps = found["worst_code_step"]
    return f"{found['flip_rate']:.1e}, by {'one step' if steps == 1 else f'{steps} steps'}"


def declared(evaluation: Evaluation) -> str:
    error = evaluation.conversion_parity["declared_error"]
    return "" if error is None else f"{error:.1e}"


def interval(value: Interval, sign: str = "") -> str:
    mean, low, high = (f"{number:{sign}.1f}" for number in (value.mean, value.low, value.high))
    return f"{mean} ({low} to {high})"


def plain(evaluation: Evaluation) -> Interval:
    return evaluation.quantization_error["image_psnr_db"]


def corrected(evaluation: Evaluation) -> Interval:
    return evaluation.correction_gain["image_psnr_db"]


def gain(evaluation: Evaluation) -> Interval:
    return evaluation.correction_gain["image_psnr_gain_db"]


SIZE: list[Row] = [
    ("bytes", lambda e: f"{e.artifact['bytes']:,}"),
    ("bits x parameters / 8", lambda e: f"{e.artifact['ideal_bytes']:,}"),
    ("ratio", ratio),
    ("bits per weight asked / achieved", bits),
    *((name, part(name)) for name in ("weights, scales and biases", "delegate graph", "program and alignment")),
    *((name, part(name)) for name in ("weights", "program", "list of files")),
    ("correction file, bytes", lambda e: f"{e.artifact['correction_bytes']:,}"),
    ("delegates; operators outside", delegates),
    ("planned activation memory, bytes, without the delegate's own", planned),
]
PARITY: list[Row] = [
    ("layers; weight codes, scales and biases equal", lambda e: (
        f"{e.conversion_parity['layers']}; {'all' if e.conversion_parity['weight_codes_equal'] else 'no'}")),
    ("quantizations compared", lambda e: str(e.conversion_parity["quantizations"])),
    ("timesteps", lambda e: str(len(e.conversion_parity["timesteps"]))),
    ("activation codes compared", lambda e: f"{e.conversion_parity['activation_codes_compared']:,}"),
    ("share that differs", lambda e: f"{e.conversion_parity['flip_rate']:.1e}"),
    ("largest difference, in codes", lambda e: str(e.conversion_parity["worst_code_step"])),
    ("relative error of the output, last stretch", lambda e: f"{e.conversion_parity['lockstep_output_error']:.1e}"),
    ("the same with the float16 that the package declares", declared),
]  # fmt: skip
GAIN: list[Row] = [
    ("quantization error: image PSNR without correction (dB)", lambda e: interval(plain(e))),
    ("image PSNR with correction (dB)", lambda e: interval(corrected(e))),
    ("**correction gain**, paired (dB)", lambda e: interval(gain(e), "+")),
    ("seeds improved", lambda e: f"{100 * e.correction_gain['seeds_improved']:.0f} %"),
    ("sampler parity, device loop against diffusers (max abs; limit 1e-5)", lambda e: f"{e.sampler_parity:.1e}"),
]


if __name__ == "__main__":
    quiet_third_parties()
    main()
