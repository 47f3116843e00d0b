"""The ExecuTorch runtime for ARM on emulated processors: run by test.sh, which installs what is needed."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from channels_last_cases import quantized
from diffusers import DDIMScheduler

from android_demo.arm.emulator import TIERS, EmulatedArtifact, EmulatedProgram
from android_demo.arm.parity import operation_errors
from correction import CheckFailed, sample
from correction.schedulers import make_plan
from mobile_export.backends.artifact import ArtifactDenoiser
from mobile_export.backends.executorch.backend import LIMITS, ExecuTorchBackend
from mobile_export.backends.executorch.lockstep import channels_first, point_shapes
from mobile_export.backends.executorch.support import activations_of
from mobile_export.backends.lockstep import follow
from mobile_export.batch import make_batch
from mobile_export.metrics import psnr
from mobile_export.models.component import Component, call_network
from mobile_export.progress import Progress
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import ACTIVATIONS

FLOAT_ERROR = 2e-6  # of the largest value; measured: 9e-7
ROWS, ROW_ERROR = "product of rows", 2e-3  # one input is rounded to the next code; measured: 6e-4
STEPS = 4


@pytest.fixture(params=TIERS, ids=lambda tier: tier.cpu)
def tier(request):
    return request.param


@pytest.fixture(scope="module")
def errors():
    return operation_errors()


@pytest.fixture(scope="module", params=ACTIVATIONS)
def lowered(request, tmp_path_factory):
    """A tiny class-conditional UNet: its quantized model, the artifact, and the twin that also gives its roundings."""
    unet = tiny.make_unet(1, **{**tiny.UNCONDITIONAL, "num_class_embeds": 4})
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "sample": torch.randn(1, 3, 8, 8, generator=draw),
        "timestep": torch.tensor([500.0]),
        "class_labels": torch.tensor([1]),
    }
    component, table = Component("unet", unet, inputs, "noise_pred"), quantized(unet, inputs, "w8a8", request.param)
    folder = tmp_path_factory.mktemp("arm")
    path, tapped = folder / "unet.pte", folder / "tapped.pte"
    pair = ExecuTorchBackend().export(component, table, path, Progress())
    tapped.write_bytes(pair.tapped.data)
    signature = ExecuTorchBackend().signature(component)
    twin = quantized_model(unet, activations_of(table))
    return SimpleNamespace(
        path=path,
        tapped=tapped,
        points=pair.points,
        signature=signature,
        inputs=inputs,
        quantized=twin,
        dynamic=request.param == "dynamic",
    )


def test_int8_products_are_equal_to_the_bit_on_every_tier(errors):
    products = {name: found for name, found in errors.items() if name.startswith("int8")}
    assert len(products) == 6
    assert products == {name: [0.0] * len(TIERS) for name in products}


def test_float32_operations_differ_by_their_last_bits_alone(errors):
    float32 = {name: found for name, found in errors.items() if not name.startswith(ROWS)}
    assert {name: found for name, found in float32.items() if not max(found) < FLOAT_ERROR} == {}


def test_products_of_rows_differ_by_a_rounding_at_most(errors):
    """What a row's range is, and where in it a value lies, is found in float32: a tie may fall to either side."""
    products = {name: found for name, found in errors.items() if name.startswith(ROWS)}
    assert len(products) == 6
    assert {name: found for name, found in products.items() if not max(found) < ROW_ERROR} == {}


def test_each_tier_multiplies_with_its_own_instructions(lowered, tier, tmp_path):
    """Rows in ranges of their own: single ones take the dot product, where the others take the matrix product."""
    log = tmp_path / "instructions"
    with EmulatedProgram(lowered.path, tier, log) as program:
        program(*(value.numpy() for value in lowered.inputs.values()))
    known = {each.instruction for each in TIERS}
    with log.open(errors="replace") as lines:
        found = known & {word for line in lines for word in line.split()[2:3]}
    single = {each.instruction for each in TIERS[: TIERS.index(tier)] if each.instruction == "sdot"}
    assert found - (single if lowered.dynamic else set()) == {tier.instruction}


def test_conversion_parity_holds_at_every_quantization(lowered, tier):
    inputs = [value.numpy() for value in lowered.inputs.values()]
    with EmulatedProgram(lowered.tapped, tier) as tapped, EmulatedProgram(lowered.path, tier) as shipped:
        output, *taps = map(torch.from_numpy, tapped(*inputs))
        assert shipped(*inputs)[0].tobytes() == output.numpy().tobytes()

    def run():
        return call_network(lowered.quantized, lowered.inputs)

    shapes = point_shapes(lowered.quantized, run)
    shaped = {p: tap.reshape(_tap_shape(shapes[p], tap.numel())) for p, tap in zip(lowered.points, taps, strict=True)}
    whole = output.reshape(lowered.signature.output.shape)
    found = follow(lowered.quantized, run, whole, channels_first(shaped, shapes))
    assert found.points == len(lowered.points) > 0
    assert found.worst_step <= LIMITS["worst_code_step"]
    assert found.flip_rate <= LIMITS["flip_rate"]
    assert found.output_error <= LIMITS["lockstep_output_error"]


def test_the_device_loop_runs_on_the_processor(lowered, tier):
    plan = make_plan("ddim", dict(DDIMScheduler().config), STEPS)
    batch = make_batch(3, "simulation", [0], (3, 8, 8), {"class_labels": np.array([2])})
    here = ArtifactDenoiser(ExecuTorchBackend().load(lowered.path, lowered.signature))
    outputs = []
    with EmulatedProgram(lowered.path, tier) as program:
        there = ArtifactDenoiser(EmulatedArtifact(program, lowered.signature))

        def both(x, timestep, **conditioning):
            outputs.append((here(x, timestep, **conditioning), there(x, timestep, **conditioning)))
            return outputs[-1][1]

        last = sample(plan, both, batch.noise, tiny.some_correction(STEPS), None, batch.conditioning)
    assert last.shape == (1, 3, 8, 8)
    assert len(outputs) == STEPS
    assert min(psnr(a, b)[0] for a, b in outputs) >= 35


def test_a_file_that_is_no_program_is_refused(tmp_path):
    path = tmp_path / "broken.pte"
    path.write_bytes(b"no program" * 100)
    with pytest.raises(CheckFailed, match=r"broken\.pte on cortex-a53 could not be loaded: .* is no program"):
        EmulatedProgram(path, TIERS[0])


def test_inputs_of_another_size_are_refused(lowered):
    with EmulatedProgram(lowered.path, TIERS[0]) as program, pytest.raises(CheckFailed, match="bytes, got"):
        program(np.zeros(3, np.float32))


def _tap_shape(shape, size):
    """Channels last, with the border that a convolution's input has: (1, H + border, W + border, C)."""
    if len(shape) != 4:
        return tuple(shape)
    _, channels, height, width = shape
    border = next(b for b in range(3) if channels * (height + b) * (width + b) == size)
    return 1, height + border, width + border, channels
