"""What corrections are for: the bundled model with weights rounded plainly drifts, and the correction leads it back."""

import numpy as np
import pytest

from correction import calibrate
from mobile_export.backends.executorch.support import activations_of
from mobile_export.batch import make_batch, run
from mobile_export.export import quantize
from mobile_export.export_settings import ExportSettings
from mobile_export.metrics import psnr
from mobile_export.models.diffusion_model import TorchDenoiser, load_model
from mobile_export.part import Job
from mobile_export.quantize.quantized_unet import quantized_model
from mobile_export.quantize.recipe import Recipe
from mobile_export.quantize.table import matrix_layers

CALIBRATION, SEEDS, STEPS = 12, 8, 10


@pytest.fixture(scope="module")
def drifting():
    """(job, reference, quantized)."""
    model = load_model("emoji32")
    rounded = {name: "w8" for name, _ in matrix_layers(model.unet) if name.endswith("conv_shortcut")}
    recipe = Recipe.from_dict({"precision": "w8a8", "rounding": "nearest", "layers": rounded})
    settings = ExportSettings(recipe, "dpmpp-2m", STEPS, calibration_samples=CALIBRATION, range_samples=1)
    job = Job.of(model, settings)
    table = activations_of(quantize(job)[0].table)
    return job, TorchDenoiser(model.unet), TorchDenoiser(quantized_model(model.unet, table))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["tac", "affine"])
def test_a_network_that_drifts_is_led_back(drifting, method):
    job, reference, quantized = drifting
    fitting = job.batch(range(CALIBRATION))
    correction = calibrate(job.plan, reference, quantized, fitting.noise, method, fitting.conditioning).correction

    rows = job.subjects.rows(job.subjects.turn(range(SEEDS)))
    held = make_batch(0, "evaluation", range(SEEDS), job.model.sample_shape, rows)
    exact, plain, led = (
        np.clip(run(job.plan, network, held, tables), -1, 1)
        for network, tables in ((reference, None), (quantized, None), (quantized, correction))
    )
    without, with_correction = psnr(plain, exact), psnr(led, exact)
    assert with_correction.mean() - without.mean() > 6
    assert (with_correction > without).mean() >= 0.75
