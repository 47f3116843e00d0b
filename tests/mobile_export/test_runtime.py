"""The runtime: what an artifact takes and gives, and what happens to one that is damaged."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from correction import CheckFailed, UsageError
from mobile_export.backends import get_backend
from mobile_export.backends.executorch.runtime import LoadedProgram
from mobile_export.batch import make_batch
from mobile_export.simulate import bundle_unet


@pytest.fixture(scope="module")
def denoiser(w4a8):
    return bundle_unet(w4a8.bundle, "executorch")


def noise(count, shape=(3, 8, 8)):
    return make_batch(0, "evaluation", range(count), shape, None).noise


def test_a_batch_is_its_samples_one_by_one(denoiser):
    x, labels = noise(3), np.array([2, 0, 1])
    together = denoiser(x, 500.0, class_labels=labels)
    assert together.dtype == np.float32 and together.shape == x.shape
    for k in range(3):
        assert np.array_equal(together[k : k + 1], denoiser(x[k : k + 1], 500.0, class_labels=labels[k : k + 1]))
    assert len({array.tobytes() for array in together}) == 3
    assert not np.array_equal(together, denoiser(x, 400.0, class_labels=labels))
    assert not np.array_equal(together, denoiser(x, 500.0, class_labels=labels[::-1]))


def test_outputs_outlive_the_next_run(denoiser):
    x = noise(2)
    first = denoiser(x[:1], 500.0, class_labels=np.array([0]))
    kept = first.copy()
    denoiser(x[1:], 100.0, class_labels=np.array([1]))
    assert np.array_equal(first, kept)


def test_near_the_reference(denoiser, w4a8):
    """A quantized network, not another one."""
    x, labels = noise(3), np.array([2, 0, 1])
    ours = denoiser(x, 500.0, class_labels=labels)
    theirs = w4a8.model.unet(torch.from_numpy(x), 500, class_labels=torch.from_numpy(labels)).sample.numpy()
    assert 0 < np.linalg.norm(ours - theirs) < 0.3 * np.linalg.norm(theirs)


@pytest.mark.parametrize(
    ("x", "conditioning", "message"),
    [
        (
            noise(1, (3, 16, 16)),
            {"class_labels": np.array([0])},
            r"takes sample float32 \[1, 3, 8, 8\] for each sample, got float32 \[1, 3, 16, 16\]",
        ),
        (noise(1), {}, "takes sample, timestep, class_labels; got sample, timestep"),
        (
            noise(1),
            {"class_labels": np.array([0]), "text": np.array([0])},
            "takes sample, timestep, class_labels; got class_labels, sample, text, timestep",
        ),
        (noise(3), {"class_labels": np.array([0, 1])}, "class_labels has 2 rows for 3 samples"),
    ],
    ids=["size", "no label", "other conditioning", "too few labels"],
)
def test_what_an_artifact_does_not_take_is_refused(denoiser, x, conditioning, message):
    with pytest.raises(UsageError, match=message):
        denoiser(x, 500.0, **conditioning)


def test_an_unconditional_artifact_takes_no_labels(w8a8):
    denoiser = bundle_unet(w8a8.bundle, "executorch")
    assert denoiser(noise(2), 500.0).shape == (2, 3, 8, 8)
    with pytest.raises(UsageError, match="takes sample, timestep; got class_labels, sample, timestep"):
        denoiser(noise(1), 500.0, class_labels=np.array([0]))


def test_a_label_without_embedding_fails_the_run_not_the_interpreter(denoiser):
    with pytest.raises(CheckFailed, match=r"unet\.pte.*failed while running"):
        denoiser(noise(1), 500.0, class_labels=np.array([4]))
    with pytest.raises(CheckFailed, match=r"unet\.pte.*failed while running"):
        denoiser(noise(1), 500.0, class_labels=np.array([-1]))
    assert np.isfinite(denoiser(noise(1), 500.0, class_labels=np.array([3]))).all()  # and the program still runs


def test_unknown_targets_name_those_that_exist():
    with pytest.raises(UsageError, match=r"unknown target 'onnx': choose one of .*executorch"):
        get_backend("onnx")


@pytest.mark.parametrize("data", [b"", b"x", bytes(64), b"ET12" * 64], ids=["empty", "byte", "zeros", "words"])
def test_what_is_no_program_is_refused(data):
    with pytest.raises(CheckFailed, match=r"here\.pte is not a loadable ExecuTorch program .*; export it again"):
        LoadedProgram(data, "here.pte")


# Damage: each in a process of its own, since a native crash would end this one. A bundle checks sha256 before it
# loads anything, so this is the second line of defence.
DAMAGED = """
import json, sys
from pathlib import Path
from correction import CheckFailed
from mobile_export.backends.executorch.backend import ExecuTorchBackend
from mobile_export.models.component import Port, Signature
SAMPLE = Port("sample", (1, 3, 8, 8), "float32")
SIGNATURE = Signature((SAMPLE, Port("timestep", (1,), "float32")), SAMPLE)
for line in sys.stdin:
    results = []
    path = Path(json.loads(line))
    for work in (lambda path: ExecuTorchBackend().load(path, SIGNATURE), ExecuTorchBackend().describe):
        try:
            work(path)
            results.append("accepted")
        except CheckFailed:
            results.append("refused")
    print(json.dumps(results), flush=True)
"""


def damage(paths):
    """[load, describe] of each path, from one process; raises if it dies."""
    lines = "".join(json.dumps(str(path)) + "\n" for path in paths)
    run = subprocess.run([sys.executable, "-c", DAMAGED], input=lines, capture_output=True, text=True)
    assert run.returncode == 0, f"the process ended with {run.returncode} at file {len(run.stdout.splitlines())}"
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_truncated_artifacts_are_refused(w8a8, tmp_path):
    data = w8a8.bundle.artifact("executorch").read_bytes()
    paths = []
    for length in (4, 100, 4096, len(data) // 4, len(data) // 2, len(data) - 4096, len(data) - 1):
        paths.append(tmp_path / f"{length}.pte")
        paths[-1].write_bytes(data[:length])
    assert [load for load, _ in damage(paths)] == ["refused"] * len(paths)
