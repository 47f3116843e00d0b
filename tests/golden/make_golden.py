"""Writes the corpus that the Python, Kotlin and Swift tests share: `python tests/golden/make_golden.py`.

README.md in this folder says what is what.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parent / "correction"), str(FOLDER)]

import hostile_bundles  # noqa: E402
import tiny_bundle  # noqa: E402
from hostile_files import HOSTILE, LARGE, SHA  # noqa: E402
from recorded_cases import CASES, STREAM, Case, edge_case, recorded_case  # noqa: E402
from safetensors.numpy import save  # noqa: E402

from correction import STREAMS, SamplingPlan, initial_noise, step_noise  # noqa: E402

# seed, sample, word of the counter, count: the largest arguments, odd numbers, longer ones as a digest
NOISE = (
    (7, 0, 0, 4),
    (7, 0, 1, 5),
    (7, 1, 0, 8),
    (0, 0, 0, 1),
    (2**63 - 1, 2**63 - 1, 4096, 7),
    (2**53 + 1, 2**32, 4097, 6),
    (5, 63, 50, 3072),
    (123456789, 0, 0, 100_000),
)


def corpus(plan_of: Callable[[str, Case], SamplingPlan] = lambda name, case: case.plan()) -> dict[str, bytes]:
    """Every file of the corpus by its path in this folder. plan_of: (name, case) -> the plan to use."""
    files: dict[str, bytes] = {}
    cases: list[dict[str, Any]] = []
    made = {name: recorded_case(case, k, plan_of(name, case)) for k, (name, case) in enumerate(CASES.items())}
    for name, (correction, record) in {**made, "edges": edge_case()}.items():
        paths = {kind: f"cases/{name}.{kind}.safetensors" for kind in ("correction", "record")}
        files |= {paths["correction"]: correction, paths["record"]: save(record)}
        guidance = CASES[name].guidance if name in CASES else 1.0
        cases.append({"name": name, **paths, "artifact_sha256": SHA, "guidance": guidance})
    hostile: list[dict[str, Any]] = []
    for name, bad in HOSTILE.items():
        path = f"hostile/{name}.safetensors"
        files[path] = bad.data
        hostile.append({"name": name, "file": path, "error": bad.error, "artifact_sha256": bad.artifact_sha256})
    for name, (length, size, error) in LARGE.items():
        make = {"header_length": length, "bytes": size}
        hostile.append({"name": name, "make": make, "error": error, "artifact_sha256": None})
    bundle = tiny_bundle.bundle(plan_of("bundle", tiny_bundle.CASE))
    files |= {f"bundle/{name}": data for name, data in bundle.items()}
    bundles = [
        {"name": name, "edits": edits, "error": None} for name, edits in hostile_bundles.accepted(bundle).items()
    ] + [
        {"name": name, "edits": edits, "error": error}
        for name, (edits, error) in hostile_bundles.hostile(bundle).items()
    ]
    noise = [_noise(*row) for row in NOISE]
    index = {"format": 1, "cases": cases, "hostile": hostile, "bundles": bundles, "noise": noise}
    files["index.json"] = (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode()
    return files


def _noise(seed: int, sample: int, word: int, count: int) -> dict[str, Any]:
    """The first `count` normals: their bits, or their sha256 as little-endian float32 where they are many."""
    shape = (1, 1, count)
    values = (
        initial_noise(seed, STREAM, [sample], shape)
        if word == 0
        else step_noise(seed, STREAM, [sample], word - 1, shape)
    ).ravel()
    numbers = {"seed": seed, "stream": STREAMS[STREAM], "sample": sample, "step": word, "count": count}
    found = {key: value if value <= 2**53 else str(value) for key, value in numbers.items()}
    if count > 16:
        return {**found, "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()}
    return {**found, "bits": [f"{bits:08X}" for bits in values.view(np.uint32)]}


def committed() -> set[str]:
    """The paths of the files that make up the corpus in this folder."""
    found = (path for folder in ("cases", "hostile", "bundle") for path in (FOLDER / folder).rglob("*"))
    return {path.relative_to(FOLDER).as_posix() for path in found if path.is_file()} | {"index.json"}


def main() -> None:
    files = corpus()
    for name in committed() - set(files):
        (FOLDER / name).unlink(missing_ok=True)
    for name, data in files.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes in {FOLDER}")


if __name__ == "__main__":
    main()
