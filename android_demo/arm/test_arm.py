"""The ExecuTorch runtime for ARM on emulated processors: run by test.sh, which installs what is needed."""

import numpy as np
import pytest
import tiny
import torch

from android_demo.arm.emulator import TIERS, EmulatedArtifact, EmulatedProgram
from android_demo.arm.parity import operation_errors
from correction import CheckFailed, sample
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.executorch import backend as executorch
from mobile_export.backends.executorch.backend import LIMITS, ExecuTorchBackend
from mobile_export.backends.executorch.lockstep import channels_first, point_shapes
from mobile_export.backends.lockstep import follow
from mobile_export.batch import make_batch
from mobile_export.export import export
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr
from mobile_export.models.component import call_network
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe

FLOAT_ERROR = 2e-6  # of the largest value; measured: 4e-7


@pytest.fixture(scope="module", params=TIERS, ids=lambda tier: tier.cpu)
def tier(request):
    return request.param


@pytest.fixture(scope="module")
def errors():
    return operation_errors()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(bundle, component, table, twin program, its points) of a tiny guided model."""
    folder = tmp_path_factory.mktemp("arm")
    labels = {"classes": tiny.CLASSES, "null": tiny.NULL_LABEL}
    model = tiny.save_model(folder / "model", tiny.make_unet(1), labels)
    seen = []
    original = ExecuTorchBackend.check_parity

    def spy(self, component, table, path, pair, probes):
        seen.append((component, table, pair, probes))
        return original(self, component, table, path, pair, probes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executorch.ExecuTorchBackend, "check_parity", spy)
        few = {"steps": 4, "calibration_samples": 4, "range_samples": 2, "targets": ("executorch",)}
        bundle = export(str(model), folder / "tiny", ExportSettings(Recipe.of("w8a8"), **few))
    return bundle, seen[0]


def test_int8_products_are_equal_to_the_bit_on_every_tier(errors):
    products = {name: found for name, found in errors.items() if name.startswith("int8")}
    assert len(products) == 6
    assert products == {name: [0.0] * len(TIERS) for name in products}


def test_float32_operations_differ_by_their_last_bits_alone(errors):
    assert {name: found for name, found in errors.items() if not max(found) < FLOAT_ERROR} == {}


def test_each_tier_multiplies_with_its_own_instructions(exported, tier, tmp_path):
    bundle, _ = exported
    log = tmp_path / "instructions"
    with EmulatedProgram(bundle.artifact("executorch"), tier, log) as program:
        program(*(np.zeros(size // 4, np.float32) for size in program.input_bytes))
    found = {name for name in ("sdot", "smmla") if any(f" {name} " in line for line in log.open(errors="replace"))}
    assert found == {"cortex-a53": set(), "cortex-a76": {"sdot"}, "cortex-a710": {"sdot", "smmla"}}[tier.cpu]


def test_conversion_parity_holds_at_every_quantization(exported, tier, tmp_path):
    bundle, (component, table, pair, probes) = exported
    path = tmp_path / "tapped.pte"
    path.write_bytes(pair.tapped.data)
    twin, signature = quantized_model(component.network, table), bundle.signature("executorch")
    with EmulatedProgram(path, tier) as tapped, EmulatedProgram(bundle.artifact("executorch"), tier) as shipped:
        inputs = probes[1].tensors(signature.inputs)
        output, *taps = tapped(*(value.numpy() for value in inputs.values()))
        assert shipped(*(value.numpy() for value in inputs.values()))[0].tobytes() == output.tobytes()

    def run():
        return call_network(twin, inputs)

    shapes = point_shapes(twin, run)
    values = dict(zip(pair.points, map(torch.from_numpy, taps), strict=True))
    values = channels_first({p: tap.reshape(_tap_shape(shapes[p], tap.numel())) for p, tap in values.items()}, shapes)
    found = follow(twin, run, torch.from_numpy(output).reshape(signature.output.shape), values)
    assert found.points == len(pair.points) > 0
    assert found.worst_step <= LIMITS["worst_code_step"]
    assert found.flip_rate <= LIMITS["flip_rate"]
    assert found.output_error <= LIMITS["lockstep_output_error"]


def test_the_device_loop_runs_on_the_processor(exported, tier):
    bundle, _ = exported
    file, signature = bundle.correction_file("executorch"), bundle.signature("executorch")
    given = {"class_labels": np.array([1])}
    batch = make_batch(3, "simulation", [0], (3, 8, 8), given)
    here = ArtifactDenoiser(ExecuTorchBackend().load(bundle.artifact("executorch"), signature))
    with EmulatedProgram(bundle.artifact("executorch"), tier) as program:
        there = ArtifactDenoiser(EmulatedArtifact(program, signature))
        outputs = []

        def both(x, timestep, **conditioning):
            outputs.append((here(x, timestep, **conditioning), there(x, timestep, **conditioning)))
            return outputs[-1][1]

        last = sample(file.plan, both, batch.noise, file.correction, None, given)
    assert last.shape == (1, 3, 8, 8)
    assert len(outputs) == 4
    assert min(psnr(a, b)[0] for a, b in outputs) >= 35


def test_a_file_that_is_no_program_is_refused(tmp_path, tier):
    path = tmp_path / "broken.pte"
    path.write_bytes(b"no program" * 100)
    with pytest.raises(CheckFailed, match=f"broken.pte on {tier.cpu} could not be loaded: exit code 1"):
        EmulatedProgram(path, tier)


def test_inputs_of_another_size_are_refused(exported, tier):
    bundle, _ = exported
    with (
        EmulatedProgram(bundle.artifact("executorch"), tier) as program,
        pytest.raises(CheckFailed, match="bytes, got"),
    ):
        program(np.zeros(3, np.float32))


def _tap_shape(shape, size):
    """Channels last, with the border that a convolution's input has: (1, H + border, W + border, C)."""
    if len(shape) != 4:
        return tuple(shape)
    _, channels, height, width = shape
    border = next(b for b in range(3) if channels * (height + b) * (width + b) == size)
    return 1, height + border, width + border, channels
