"""The command line: figures as JSON, errors as one sentence with the right exit code, nothing left behind."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import tiny
import tiny_pipelines
from diffusers import DDPMPipeline, DDPMScheduler, UNet1DModel
from PIL import Image
from test_bundle import files_of

from mobile_export import cli

VERBS = ("export", "simulate", "verify", "inspect", "report", "evaluate", "recipe", "models")


@pytest.fixture
def run(monkeypatch, capsys):
    """run(*arguments) -> (exit code, standard output, standard error) of the console entry point."""
    monkeypatch.setattr(cli, "quiet_third_parties", lambda: None)  # changes the whole process

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mobile-export", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


def figures(result):
    """The JSON of a run that went well: nothing else is on standard output."""
    code, out, err = result
    assert code == 0, err
    assert "Traceback" not in err

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    return json.loads(out, parse_constant=refuse)


def sentence(result, code):
    """The one error line of a run that went wrong."""
    got, out, err = result
    assert got == code, (got, out, err)
    assert out == "" and "Traceback" not in err
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error: ") and sum("error:" in line for line in lines) == 1
    return lines[-1].removeprefix("error: ")


@pytest.fixture(scope="module")
def shared(w8a8, tmp_path_factory):
    """A private copy, since simulate writes beside its bundle."""
    return shutil.copytree(w8a8.bundle.path, tmp_path_factory.mktemp("cli") / "b")


# what goes well


def test_export_gives_the_bytes_of_the_library_in_another_process(plain_folder, w8a8, tmp_path):
    """The one test that lowers in the command's own processes, two side by side."""
    command = "export", plain_folder, "-o", tmp_path / "b", "--json", "--workers", 2, "--target", "executorch"
    settings = "--sampler", "ddim-eta1", "--steps", 5, "--method", "tac/free", "--calibration-samples", 8
    settings += "--activations", "static"
    arguments = [sys.executable, "-m", "mobile_export.cli", *map(str, (*command, *settings))]
    process = subprocess.run(arguments, capture_output=True, text=True)
    found = figures((process.returncode, process.stdout, process.stderr))
    assert files_of(tmp_path / "b") == files_of(w8a8.bundle.path)
    assert os.listdir(tmp_path) == ["b"]
    assert found["executorch"]["delegates"] == 1 and found["executorch"]["not delegated"] == {}
    assert found["executorch"]["artifact bytes"] == w8a8.bundle.artifact("executorch").stat().st_size
    assert found["executorch"]["not quantized"] == ["conv_in", "conv_out"]
    assert found["precision"] == "w8a8" and found["seconds"] > 0


def test_verify(run, shared):
    found = figures(run("verify", shared, "--json"))
    assert found["executorch"]["golden outputs equal to the bit"] is True
    assert found["files, sizes and sha256 right"] == 3
    code, out, _ = run("verify", shared)
    assert code == 0 and "plain-w8a8: verified" in out and "golden outputs equal to the bit" in out


def test_inspect(run, shared, w8a8):
    found = figures(run("inspect", shared, "--json"))
    assert found["executorch"]["conversion parity"] == w8a8.bundle.component("executorch")["conversion_parity"]
    artifact = shared / "executorch" / "unet.pte"
    found = figures(run("inspect", artifact, "--json"))
    assert (found["bytes"], found["delegates"], found["not delegated"]) == (artifact.stat().st_size, 1, {})
    correction = shared / "executorch" / "correction.safetensors"
    found = figures(run("inspect", correction, "--json"))
    assert found["bytes"] == correction.stat().st_size and found["channels"] == 3
    assert found["solved for artifact"] == w8a8.bundle.manifest["files"]["executorch/unet.pte"]["sha256"]
    assert found["metadata"]["method"] == "tac/free" and found["metadata"]["sampler"] == "ddim-eta1"
    code, out, _ = run("inspect", shared)
    assert code == 0 and "bundle plain-w8a8" in out


def test_a_text_bundle_is_inspected_and_draws_prompts_and_pictures(run, tmp_path):
    settings = "--target", "executorch", "--steps", 3, "--calibration-samples", 4, "--range-samples", 1
    source, folder = tiny_pipelines.saved("sd-image"), tmp_path / "b"
    made = figures(run("export", source, "-o", folder, *settings, "--guidance", 3, "--image-to-image", "--json"))
    found = figures(run("inspect", folder, "--json"))
    part = found["executorch"]
    assert made["sampler"] == found["sampler"] == "ddim, 3 steps, guidance 3"
    assert found["prompts"].startswith("any, up to ") and found["latents"].startswith("4 x ")
    assert {"text_encoder", "vae_decoder", "vae_encoder"} <= part.keys()
    for each in (part, part["vae_decoder"]):
        assert each["weight bits asked"] == 8 and sum(each["where they go"].values()) == each["artifact bytes"]
        assert each["conversion parity"]["limits"] and "planned activation memory" in " ".join(each)
    assert part["steps corrected"].endswith(" of 3")

    picture = tmp_path / "p.png"
    draw = "simulate", folder, "--prompt", "a cat", "--prompt", "a dog", "--seed", 7, "-o", picture, "--json"
    first = figures(run(*draw))
    assert first["images"] == 2 and first["corrected"] is True
    size = Image.open(picture).size
    given = figures(run(*draw, "--image", picture, "--strength", 0.5, "--guidance", 2, "--negative-prompt", "a fish"))
    assert given["images"] == 2 and given["corrected"] is not True
    assert Image.open(picture).size == size
    message = sentence(run("simulate", folder, "-o", picture), 2)
    assert "give one" in message
    assert "cannot be read as a picture" in sentence(run(*draw, "--image", tmp_path / "none.png"), 2)


def test_simulate(run, shared, tmp_path):
    picture = tmp_path / "p.png"
    found = figures(run("simulate", shared, "-n", 5, "--seed", 3, "-o", picture, "--json"))
    assert found["picture"] == str(picture) and found["images"] == 5 and found["corrected"] is True
    with Image.open(picture) as image:
        assert image.size == (3 * (3 * 8 + 2), 3 * (2 * 8 + 1))  # 3 columns, 2 rows, one pixel between, tripled
    again = tmp_path / "again.png"
    run("simulate", shared, "-n", 5, "--seed", 3, "-o", again)
    assert again.read_bytes() == picture.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.png", "p.png"]
    found = figures(run("simulate", shared, "-n", 1, "--no-correction", "--json"))
    assert found["picture"].endswith("b-seed0-uncorrected.png") and found["corrected"] is False
    os.unlink(found["picture"])


def test_report(run, shared, tmp_path):
    page = tmp_path / "r.html"
    found = figures(run("report", shared, "-n", 2, "-o", page, "--no-benchmark", "--json"))
    assert found["report"] == str(page)
    assert found["plain-w8a8"]["executorch"]["seeds"] == 2
    assert found["plain-w8a8"]["executorch"]["sampler parity (max abs)"] <= 1e-5
    assert {"conversion parity", "quantization error", "correction gain"} <= set(found["plain-w8a8"]["executorch"])
    assert page.read_text().startswith("<!doctype html>") or page.read_text().startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["r.html"]


def test_models(run):
    found = figures(run("models", "--json"))
    assert found["emoji32"]["kind"] == "UNet2DModel" and found["emoji32"]["sample"] == [3, 32, 32]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_no_framework(verb):
    code = (
        "import sys; from mobile_export.cli import main\n"
        f"sys.argv = {['mobile-export', *([verb] if verb else []), '--help']!r}\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "assert not {'torch', 'diffusers', 'executorch', 'coremltools', 'matplotlib'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    words = re.sub(r"\W+", " ", process.stdout)
    assert "--help" in process.stdout
    assert all(name in words for name in VERBS) if not verb else "Usage mobile export " + verb in words


# what goes wrong


def broken(name, folder):
    """Folders that are no model of ours."""
    if name == "unsupported network":
        network = UNet1DModel(block_out_channels=(8, 8, 8), sample_size=16, layers_per_block=1)
        DDPMPipeline(unet=network, scheduler=DDPMScheduler()).save_pretrained(folder)
    elif name == "unsupported block":
        tiny.save_model(folder, tiny.make_unet(down_block_types=("DownBlock2D", "ResnetDownsampleBlock2D")))
    elif name == "not diffusers":
        folder.mkdir()
    return folder


EXPORT_ERRORS = {
    "missing path": (
        (),
        r"no model at '.*/m': give a diffusers folder, a hub name \(owner/name\) or one of: .*emoji32",
    ),
    "not diffusers": ((), r"'.*/m' is not a diffusers pipeline folder: it has no model_index\.json"),
    "unsupported network": ((), "its unet is UNet1DModel; supported: UNet2DModel"),
    "unsupported block": (
        (),
        "block ResnetDownsampleBlock2D is not supported; supported: DownBlock2D, AttnDownBlock2D",
    ),
    "precision": (("--precision", "w3a8"), "unknown precision 'w3a8': choose one of w8a8, w4a8, w8a16"),
    "sampler": (("--sampler", "rk45"), "unknown sampler 'rk45'; there are ddim, ddim-eta1, ddpm"),
    "steps 0": (("--steps", 0), "steps must be 1 to 4096, got 0"),
    "steps beyond training": (("--steps", 2000), "steps .*1000.* got 2000"),
    "target": (("--target", "onnx"), "unknown target 'onnx': choose one of executorch"),
    "ios": (("--ios", "ios16"), "unknown ios 'ios16': choose one of ios17, ios18"),
    "compute": (("--compute", "gpu"), "unknown compute 'gpu': choose one of all, ane"),
    "format": (("--format", "dense"), "unknown weight format 'dense': choose channel"),
    "recipe": (("--recipe", "nowhere.json"), "recipe nowhere.json cannot be read"),
    "recipe and precision": (
        ("--recipe", "r.json", "--precision", "w8a8"),
        "a recipe says precision, format and activations: leave --precision, --format and --activations out",
    ),
    "precision of the target": (
        ("--precision", "w6a16", "--target", "executorch"),
        "ExecuTorch has no w6a16: choose one of w8a8, w4a8, w8a16, w4a16",
    ),
    "method": (("--method", "tack"), "unknown correction method 'tack'; there are none, ibc, tac"),
    "guidance": (("--guidance", 3), "guidance 3 needs a null class, which this model does not have: use guidance 1"),
    "few samples": (("--calibration-samples", 1), "calibration samples must be 4 to 4096, got 1"),
    "seed": (("--seed", -1), r"seed must be in 0 \.\. 2\^63 - 1, got -1"),
    "no such folder": (("-o", "nowhere/b"), "the folder 'nowhere' of the output does not exist"),
}


@pytest.mark.parametrize("name", EXPORT_ERRORS)
def test_export_errors(name, run, plain_folder, tmp_path, monkeypatch):
    options, message = EXPORT_ERRORS[name]
    monkeypatch.chdir(tmp_path)
    folder = plain_folder if options else broken(name, tmp_path / "m")
    before = set(tmp_path.rglob("*"))
    text = sentence(run("export", folder, "-o", "b", *options), 2)
    assert re.search(message, text), text
    assert set(tmp_path.rglob("*")) == before  # no bundle, not even a hidden one


def test_export_does_not_touch_a_folder_that_is_no_bundle(run, plain_folder, tmp_path):
    (tmp_path / "mine").write_text("x")
    text = sentence(run("export", plain_folder, "-o", tmp_path), 2)
    assert "exists and is not a bundle: choose another output or remove it" in text
    assert os.listdir(tmp_path) == ["mine"]


def test_a_hub_name_that_cannot_be_reached(tmp_path):
    """Without network: an answer, not a traceback."""
    arguments = [sys.executable, "-m", "mobile_export.cli", "export", "nobody/nothing", "-o", str(tmp_path / "b")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    process = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    text = sentence((process.returncode, process.stdout, process.stderr), 2)
    assert text.startswith("'nobody/nothing' is no folder here, and could not be loaded from the hub: ")
    assert not (tmp_path / "b").exists() and not (tmp_path / ".b.partial").exists()


def test_an_interrupted_export_says_how_to_go_on(run, plain_folder, tmp_path, monkeypatch):
    def interrupt(self, title):
        if title.startswith("quantize"):
            raise KeyboardInterrupt

    monkeypatch.setattr("mobile_export.terminal.TerminalProgress.stage", interrupt)
    code, out, err = run("export", plain_folder, "-o", tmp_path / "b")
    assert (code, out) == (130, "") and "interrupted; the same command goes on where it was" in err
    assert not (tmp_path / "b").exists()


def test_a_full_disk_is_one_sentence_too(run, plain_folder, tmp_path, monkeypatch):
    def full(self, title):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("mobile_export.terminal.TerminalProgress.stage", full)
    assert "No space left on device" in sentence(run("export", plain_folder, "-o", tmp_path / "b"), 2)
    assert os.listdir(tmp_path) == []


READING = {
    "simulate": lambda folder: ("simulate", folder, "-n", 1, "-o", folder.parent / "p.png"),
    "verify": lambda folder: ("verify", folder),
    "inspect": lambda folder: ("inspect", folder),
    "report": lambda folder: ("report", folder, "-n", 2, "--no-benchmark", "-o", folder.parent / "r.html"),
}


@pytest.mark.parametrize("verb", READING)
def test_verbs_that_read_a_bundle_name_what_is_wrong_with_it(verb, run, copied, w8a8, w4a8, tmp_path):
    arguments = READING[verb]
    missing = tmp_path / "nowhere"
    assert re.search("no bundle at|nothing at", sentence(run(*arguments(missing)), 2))
    (tmp_path / "empty").mkdir()
    assert "it has no manifest.json; make one with mobile-export export" in sentence(
        run(*arguments(tmp_path / "empty")), 2
    )

    folder = copied(w8a8)
    artifact = folder / "executorch" / "unet.pte"
    whole = artifact.read_bytes()
    artifact.write_bytes(whole[: len(whole) // 2])
    assert "executorch/unet.pte has" in sentence(run(*arguments(folder)), 1)
    artifact.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "executorch/unet.pte was changed since the bundle was made" in sentence(run(*arguments(folder)), 1)
    artifact.unlink()
    assert "executorch/unet.pte is missing from the bundle" in sentence(run(*arguments(folder)), 1)

    shutil.copy(w4a8.bundle.artifact("executorch"), artifact)
    tiny.renew_digest(folder, "executorch/unet.pte")  # a swap that the digests do not show
    assert "other-artifact: solved for artifact" in sentence(run(*arguments(folder)), 1)
    assert sorted(os.listdir(tmp_path)) == ["copy", "empty"]


@pytest.mark.parametrize("verb", ["simulate", "report"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(verb, run, shared, tmp_path, monkeypatch):
    monkeypatch.setattr("mobile_export.simulate.sample", None)
    monkeypatch.setattr("mobile_export.evaluate.trajectory.run", None)  # whoever samples fails
    there_is_none = run(verb, shared, "-n", 2, "-o", tmp_path / "nowhere" / "x")
    assert re.search(r"cannot write '.*/nowhere/x': there is no folder '.*/nowhere'", sentence(there_is_none, 2))
    assert "it is a folder" in sentence(run(verb, shared, "-n", 2, "-o", tmp_path), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-n", 0), "the number of images must be 1 to 4096, got 0"),
        (("--class", "cow"), "unknown class 'cow': this model has no classes"),
        (("--seed", -1), "the seed must be 0"),
    ],
)
def test_simulate_errors(options, message, run, shared, tmp_path):
    assert message in sentence(run("simulate", shared, "-o", tmp_path / "p.png", *options), 2)
    assert os.listdir(tmp_path) == []


def test_report_errors(run, shared, model_folder, tmp_path):
    page = "-o", tmp_path / "r.html", "--no-benchmark"
    assert "evaluation needs 2 to 4096 seeds, got 1" in sentence(run("report", shared, "-n", 1, *page), 2)
    text = sentence(run("report", shared, "-n", 2, *page, "--model", model_folder), 1)
    assert "is not the model that plain-w8a8 was made from (its digest differs)" in text
    assert os.listdir(tmp_path) == []


def test_inspect_errors(run, tmp_path):
    (tmp_path / "x.pte").write_bytes(b"nothing")
    assert "x.pte is not a readable ExecuTorch program" in sentence(run("inspect", tmp_path / "x.pte"), 1)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    assert "truncated: a file has at least 8 bytes, got 7" in sentence(run("inspect", tmp_path / "x.safetensors"), 1)
    (tmp_path / "x.txt").write_text("x")
    assert (
        "cannot inspect 'x.txt': give a bundle folder, a .pte, an .mlpackage or a correction.safetensors"
        in sentence(run("inspect", tmp_path / "x.txt"), 2)
    )


def test_an_error_with_a_long_path_stays_one_line(run, tmp_path):
    long = tmp_path / ("a" * 200) / "[red]b"
    text = sentence(run("verify", long), 2)
    assert str(long) in text


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("verify",), ("verify", "b", "--nonsense"), ("simulate", "b", "-n", "x")]
)
def test_wrong_usage_is_exit_code_2_and_points_to_help(arguments, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and "--help" in err and "Traceback" not in err
