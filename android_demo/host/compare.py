"""The Kotlin loop on a real `.pte` ends at the same bits as Python: compare.py COMMAND... -- [BUNDLE...]

COMMAND starts mobileexport.host.MainKt with its library. Each BUNDLE, and tiny ones that are exported here, are drawn
and verified by both. Prints "passed" or "FAILED" and what was compared, a line each.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "mobile_export")]

import tiny  # noqa: E402
import tiny_pipelines  # noqa: E402

from mobile_export.bundle import Bundle  # noqa: E402
from mobile_export.export import export  # noqa: E402
from mobile_export.export_settings import ExportSettings  # noqa: E402
from mobile_export.quantize.recipe import Recipe  # noqa: E402
from mobile_export.simulate import bundle_request, draw  # noqa: E402

TARGET = "executorch"
COUNT = 3
PROMPT = "a Cat & two dogs"
SEEDS = (7, 2**63 - 1)


def main(arguments: Sequence[str]) -> int:
    at = list(arguments).index("--")
    command, bundles = arguments[:at], [Path(path) for path in arguments[at + 1 :]]
    right = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for path in itertools.chain((make(folder) for make in (with_classes, with_text)), bundles):
            for equal, what in compared(command, path, folder):
                print("passed" if equal else "FAILED", what, flush=True)
                right &= equal
    return 0 if right else 1


def with_classes(folder: Path) -> Path:
    """Class-conditional, guided, with fresh noise at every step and 4-bit weights."""
    model = tiny.save_model(folder / "classes", tiny.make_unet(1), {"classes": tiny.CLASSES, "null": tiny.NULL_LABEL})
    return exported(model, "w4a8", "ddim-eta1", 2.0)


def with_text(folder: Path) -> Path:
    """Text encoder and tokenizer, guided PLMS on latents, a decoder."""
    return exported(tiny_pipelines.copy("sd", folder), "w8a8", "pndm", 3.0)


def exported(model: Path, precision: str, sampler: str, guidance: float) -> Path:
    few = {"steps": 4, "calibration_samples": 4, "range_samples": 2}
    settings = ExportSettings(Recipe.of(precision), sampler, guidance=guidance, targets=(TARGET,), **few)
    return export(str(model), model.with_name(f"{model.name}-bundle"), settings).path


def compared(command: Sequence[str], path: Path, folder: Path) -> Iterator[tuple[bool, str]]:
    bundle = Bundle.open(path)
    text = bundle.manifest["text"]
    prompted = text is not None and text["prompts"] is None
    output = folder / "images"
    for seed in SEEDS:
        for corrected in (True, False):
            what = f"{bundle.name}, seed {seed}, {COUNT} images, {'corrected' if corrected else 'uncorrected'}"
            request = bundle_request(bundle, COUNT, seed=seed, **({"prompts": (PROMPT,) * COUNT} if prompted else {}))
            expected = draw(bundle, request, TARGET, corrected).images
            options = ["-o", str(output), "--seed", str(seed), "--count", str(COUNT)]
            options += ["--prompt", PROMPT] if prompted else []
            refused = kotlin(command, path, *options, *([] if corrected else ["--uncorrected"])).stderr
            if refused:
                yield False, f"{what}: {refused}"
                continue
            found = np.frombuffer(output.read_bytes(), "<f4")
            if found.tobytes() == expected.astype("<f4").tobytes():
                yield True, f"{what}: equal bytes"
            elif found.size == expected.size:
                yield False, f"{what}: the largest difference is {np.abs(found - expected.ravel()).max()}"
            else:
                yield False, f"{what}: {found.size} numbers, expected {expected.size}"
    done = kotlin(command, path, "--verify")
    steps = bundle.correction_file(TARGET).plan.steps
    equal = not done.stderr and done.stdout.count("=  ") == steps
    yield (
        equal,
        f"{bundle.name}, golden record of {steps} steps: " + ("equal bits" if equal else done.stdout + done.stderr),
    )


def kotlin(command: Sequence[str], bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """stderr: empty where all went well; what the runtime learns about the processor goes there, too."""
    done = subprocess.run([*command, "--bundle", str(bundle), *options], capture_output=True, text=True)
    if done.returncode == 0:
        done.stderr = ""
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
