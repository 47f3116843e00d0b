"""The corpus is what its command makes, and Python's own loop, reader and noise agree with all of it."""

import hashlib
import json
import re
import shutil

import make_golden
import numpy as np
import pytest
from bundle_edits import apply
from hostile_files import HOSTILE
from recorded_cases import CASES
from safetensors.numpy import load_file
from tiny_bundle import CASE

from correction import STREAMS, FormatError, GuidedDenoiser, initial_noise, read_correction, sample, step_noise
from correction.loop import correct
from mobile_export.bundle import Bundle, NoBundle
from mobile_export.manifest import BundleError

FOLDER = make_golden.FOLDER
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
NAMES = {number: name for name, number in STREAMS.items()}


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry["name"])


@pytest.fixture(scope="module")
def made():
    """With the plans of the committed files: compiling them solves equations, which another processor may round
    differently in the last place."""
    return make_golden.corpus(lambda name, case: read_correction(committed(name)).plan)


def committed(name):
    """The correction file of a case, or of the bundle."""
    return FOLDER / f"{'bundle/executorch/' if name == 'bundle' else f'cases/{name}.'}correction.safetensors"


def test_the_committed_files_are_what_the_command_makes(made):
    assert make_golden.committed() == set(made)
    assert [name for name, data in made.items() if (FOLDER / name).read_bytes() != data] == []
    assert sum(map(len, made.values())) < 1_000_000


@pytest.mark.parametrize("name", [*CASES, "bundle"])
def test_the_plans_are_what_schedulers_compile_to(name):
    kept, compiled = read_correction(committed(name)).plan, CASES.get(name, CASE).plan()
    for column in ("timestep", "input_scale", "p", "q", "clip", "a", "b", "w", "sigma"):
        np.testing.assert_allclose(getattr(compiled, column), getattr(kept, column), rtol=1e-6, atol=1e-9)
    assert compiled.scheduler_config == kept.scheduler_config


@named(INDEX["cases"])
def test_the_loop_gives_every_recorded_sample(entry):
    file = read_correction(FOLDER / entry["correction"], entry["artifact_sha256"])
    record = load_file(FOLDER / entry["record"])
    replayed = {name: iter(record[name]) for name in ("outputs", "outputs_null") if name in record}
    given, seen = [], []

    def network(x, timestep, /, branch="outputs"):
        given.append(x)
        return next(replayed[str(branch)])

    denoiser, calls = network, 1
    if "outputs_null" in record:
        denoiser, calls = GuidedDenoiser(network, entry["guidance"], {"branch": "outputs_null"}), 2
    last = sample(
        file.plan,
        denoiser,
        record["noise"],
        file.correction,
        record["step_noise"],
        on_step=lambda i, x, m, y: seen.append(x),
    )
    assert last.tobytes() == record["samples"][-1].tobytes()
    for branch in range(calls):
        assert np.stack(given[branch::calls]).tobytes() == record["inputs"].tobytes()
    for i in range(1, file.plan.steps):  # the loop shows samples after the input correction of their step
        gain, bias = file.correction.input_gain[i], file.correction.input_bias[i]
        assert seen[i].tobytes() == correct(gain, bias, record["samples"][i - 1]).tobytes()


@named([entry for entry in INDEX["hostile"] if "file" in entry])
def test_hostile_files_are_refused_by_name(entry):
    with pytest.raises(FormatError) as caught:
        read_correction(FOLDER / entry["file"], entry["artifact_sha256"])
    assert caught.value.name == entry["error"]


@named([entry for entry in INDEX["hostile"] if "make" in entry])
def test_large_files_are_refused_by_name(entry, tmp_path):
    path, make = tmp_path / "large", entry["make"]
    with path.open("wb") as file:
        file.write(make["header_length"].to_bytes(8, "little"))
        file.write(b" " * (make["bytes"] - 8))
    with pytest.raises(FormatError) as caught:
        read_correction(path)
    assert caught.value.name == entry["error"]


@named(INDEX["bundles"])
def test_bundles_are_opened_or_refused_by_name(entry, tmp_path):
    folder, outside = tmp_path / "bundle", tmp_path / "outside"
    shutil.copytree(FOLDER / "bundle", folder)
    outside.mkdir()
    apply(folder, entry["edits"], outside)
    if entry["error"] is None:
        opened(folder)
        return
    with pytest.raises((BundleError, NoBundle, FormatError)) as caught:
        opened(folder)
    assert caught.value.name == entry["error"]


def opened(folder):
    """With every check of docs/bundle-format.md."""
    bundle = Bundle.open(folder)
    for target in sorted(bundle.targets):
        bundle.correction_file(target)


def test_the_specification_lists_exactly_the_names_of_bundles():
    page = (FOLDER.parents[1] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
    table = page.split("## What a reader checks, in this order")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    shown = {entry["error"] for entry in INDEX["bundles"]} - {None}
    assert listed <= shown
    assert shown - listed <= {hostile.error for hostile in HOSTILE.values()}


@pytest.mark.parametrize("entry", INDEX["noise"], ids=lambda entry: f"{entry['seed']}-{entry['step']}")
def test_noise_is_the_same_to_the_bit(entry):
    seed, index, step, count = (int(entry[key]) for key in ("seed", "sample", "step", "count"))
    stream, shape = NAMES[entry["stream"]], (1, 1, count)
    values = (
        initial_noise(seed, stream, [index], shape) if step == 0 else step_noise(seed, stream, [index], step - 1, shape)
    ).ravel()
    if "sha256" in entry:
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == entry["sha256"]
    else:
        assert [f"{bits:08X}" for bits in values.view(np.uint32)] == entry["bits"]
