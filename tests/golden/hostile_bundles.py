"""Hostile bundles as edits of a valid one, with the name of their refusal in every reader; and harmless edits."""

from __future__ import annotations

import json

from bundle_edits import Edit, change, listed, put, replaced, splice
from hostile_files import with_values
from tiny_bundle import LATENTS, PACKAGE, UNET, WEIGHTS, Files, digest, sha256

from correction import Correction, encode_correction, read_correction


def flipped(data: bytes, at: int) -> bytes:
    """One bit of the byte at `at` is another."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def accepted(files: Files) -> dict[str, list[Edit]]:
    """Edits after which the bundle is as good as before."""
    return {
        "as-it-is": [],
        "a-later-minor-version": change(files, put("format_version", "3.999999"), put("new", {"key": [None]})),
        "a-file-beside": [{"op": "add", "file": "executorch/notes.txt", "hex": "00"}],
        "whole-numbers-for-fractions": change(files, put("guidance", 2)),
        "text-and-latents": change(
            files,
            put("latents", LATENTS),
            put(
                "text",
                {
                    "max_length": 77,
                    "width": 32,
                    "vocabulary": 49408,
                    "negative_prompt": "",
                    "tokenizer": [],
                    "prompts": UNET,
                    "subjects": ["a fox"],
                },
            ),
        ),
        "printed-without-blanks": splice(
            files, "manifest.json", json.dumps(json.loads(files["manifest.json"])).encode()
        ),
    }


def hostile(files: Files) -> dict[str, tuple[list[Edit], str]]:
    """name -> (edits of the valid bundle `files`, name of the refusal), in the order of the checks."""
    parts, unet = "parts/executorch", "parts/executorch/components/unet"
    correction = f"{UNET.split('/')[0]}/correction.safetensors"
    whole = files["manifest.json"]
    plan = read_correction(files[correction]).plan
    one_channel = encode_correction(plan, Correction.identity(plan.steps, 1), {"artifact_sha256": digest(UNET)})
    return {
        "no-manifest": ([{"op": "delete", "file": "manifest.json"}], "no-manifest"),
        "manifest-is-a-link": ([{"op": "link", "file": "manifest.json"}], "link"),
        "manifest-one-byte-too-large": (
            [{"op": "pad", "file": "manifest.json", "bytes": 2**20 + 1}],
            "manifest-too-large",
        ),
        "manifest-is-not-utf8": (splice(files, "manifest.json", whole.replace(b"golden", b"g\xfflden")), "not-utf8"),
        "manifest-is-cut-off": (splice(files, "manifest.json", whole[:1000]), "not-json"),
        "manifest-is-empty": (splice(files, "manifest.json", b""), "not-json"),
        "byte-order-mark": (splice(files, "manifest.json", b"\xef\xbb\xbf" + whole), "not-json"),
        "utf-16": (splice(files, "manifest.json", "{}".encode("utf-16-le")), "not-json"),
        "nan": (splice(files, "manifest.json", whole.replace(b'"parameters": 123', b'"parameters": NaN')), "not-json"),
        "lone-surrogate": (splice(files, "manifest.json", b'{"\\udead":' + whole + b"}"), "not-json"),
        "number-of-41-digits": (splice(files, "manifest.json", b'{"format": ' + b"9" * 41 + b"}"), "not-json"),
        "nested-33-deep": (splice(files, "manifest.json", b"[" * 33 + b"]" * 33), "not-json"),
        "nested-a-thousand-deep": (splice(files, "manifest.json", b"[" * 1000), "not-json"),
        "duplicate-key": (splice(files, "manifest.json", whole.replace(b"{", b'{"name": 1,', 1)), "duplicate-key"),
        "duplicate-file": (
            splice(files, "manifest.json", whole.replace(b'"files": {', b'"files": {"%s": 1,' % UNET.encode(), 1)),
            "duplicate-key",
        ),
        "nested-32-deep": (splice(files, "manifest.json", b"[" * 32 + b"]" * 32), "other-format"),
        "manifest-is-a-list": (splice(files, "manifest.json", b"[]"), "other-format"),
        "other-format": (change(files, put("format", "zip")), "other-format"),
        "no-version": (change(files, put("format_version", None)), "bad-version"),
        "version-is-a-number": (change(files, put("format_version", 3.1)), "bad-version"),
        "next-major-version": (change(files, put("format_version", "4.0")), "unknown-major-version"),
        "major-version-of-before": (change(files, put("format_version", "2.9")), "unknown-major-version"),
        "next-major-version-without-files": (
            change(files, put("format_version", "4.0"), put("files", None)),
            "unknown-major-version",
        ),
        "no-files": (change(files, put("files", {})), "bad-manifest"),
        "files-are-a-list": (change(files, put("files", ["manifest.json"])), "bad-manifest"),
        "no-parts": (change(files, put("parts", {})), "bad-manifest"),
        "too-many-files": (
            change(files, *[put(f"files/f{k}", 0) for k in range(1024 - len(files) + 2)]),
            "too-many-files",
        ),
        "no-name": (change(files, put("name", None)), "bad-manifest"),
        "steps-true": (change(files, put("steps", True)), "bad-manifest"),
        "steps-with-a-fraction": (change(files, put("steps", 4.0)), "bad-manifest"),
        "parameters-of-2-to-the-63": (change(files, put("model/parameters", 2**63)), "bad-manifest"),
        "guidance-beyond-float64": (
            splice(files, "manifest.json", whole.replace(b'"guidance": 2.5', b'"guidance": 1e999')),
            "bad-manifest",
        ),
        "class-without-a-name": (change(files, put("model/classes", ["cat", 7])), "bad-manifest"),
        "null-label-is-a-name": (change(files, put("model/null_label", "cat")), "bad-manifest"),
        "constants-are-a-list": (change(files, put("constants", [UNET])), "bad-manifest"),
        "text-without-a-width": (change(files, put("text", {"max_length": 77})), "bad-manifest"),
        "no-unet": (change(files, put(f"{parts}/components", {})), "bad-manifest"),
        "unknown-component": (change(files, put(f"{parts}/components/vocoder", {})), "bad-manifest"),
        "kept-steps-are-numbers": (change(files, put(f"{parts}/kept_steps", [1, 0])), "bad-manifest"),
        "signature-without-a-shape": (change(files, put(f"{unet}/signature/output/shape", None)), "bad-manifest"),
        "signature-of-float16": (change(files, put(f"{unet}/signature/output/type", "float16")), "bad-manifest"),
        "signature-of-2-to-the-31": (
            change(files, put(f"{unet}/signature/output/shape", [1, 2**31])),
            "bad-manifest",
        ),
        "limit-without-a-number": (
            change(files, put(f"{unet}/conversion_parity/limits/flip_rate", "0.1")),
            "bad-manifest",
        ),
        "sample-of-no-height": (change(files, put("sample/height", 0)), "out-of-range"),
        "image-of-terabytes": (change(files, put("image/width", 10**12)), "out-of-range"),
        "negative-channels": (change(files, put("image/channels", -3)), "out-of-range"),
        "no-steps": (change(files, put("steps", 0)), "out-of-range"),
        "latents-scaled-by-0": (
            change(files, put("latents", {**LATENTS, "scaling_factor": 0})),
            "out-of-range",
        ),
        "artifact-is-not-listed": (change(files, put(f"{unet}/artifact", "executorch/other.pte")), "unlisted-file"),
        "artifact-is-the-bundle": (change(files, put(f"{unet}/artifact", "")), "unlisted-file"),
        "artifact-ends-in-a-slash": (change(files, put(f"{unet}/artifact", "executorch/")), "unlisted-file"),
        "correction-is-the-manifest": (change(files, put(f"{parts}/correction", "manifest.json")), "unlisted-file"),
        "golden-is-a-folder": (change(files, put(f"{parts}/golden", "executorch")), "unlisted-file"),
        "prompts-are-not-listed": (change(files, put("constants", "constants.safetensors")), "unlisted-file"),
        "path-to-the-parent": (
            change(files, listed("../unet.pte"), put(f"{unet}/artifact", "../unet.pte")),
            "bad-path",
        ),
        "path-through-the-parent": (change(files, listed("executorch/../../x")), "bad-path"),
        "path-from-the-root": (change(files, listed("/etc/hostname")), "bad-path"),
        "path-with-a-backslash": (change(files, listed("..\\x")), "bad-path"),
        "path-is-empty": (change(files, listed("")), "bad-path"),
        "path-is-the-folder": (change(files, listed(".")), "bad-path"),
        "path-with-two-slashes": (change(files, listed("executorch//unet.pte")), "bad-path"),
        "path-with-a-zero": (change(files, listed("a\0b")), "bad-path"),
        "path-with-a-line-break": (change(files, listed("a\nb")), "bad-path"),
        "path-with-a-line-separator": (change(files, listed("a\u2028b")), "bad-path"),
        "bad-path-behind-a-missing-file": (change(files, listed("a"), listed("../b")), "bad-path"),
        "file-is-a-link": ([{"op": "link", "file": UNET}], "link"),
        "folder-is-a-link": ([{"op": "link", "file": "executorch"}], "link"),
        "inner-folder-is-a-link": ([{"op": "link", "file": f"{PACKAGE}/Data"}], "link"),
        "no-artifact": ([{"op": "delete", "file": UNET}], "missing-file"),
        "no-golden": ([{"op": "delete", "file": "coreml/golden.safetensors"}], "missing-file"),
        "listed-folder": (change(files, listed("executorch")), "missing-file"),
        "name-of-300-letters": (change(files, listed("a" * 300)), "missing-file"),
        "one-byte-cut-off": (splice(files, UNET, files[UNET][:-1]), "wrong-size"),
        "one-byte-more": (splice(files, WEIGHTS, files[WEIGHTS] + b"\0"), "wrong-size"),
        "size-is-a-text": (change(files, lambda m: m["files"][UNET].update(bytes="64")), "wrong-size"),
        "entry-is-a-number": (change(files, lambda m: m["files"].update({UNET: 64})), "wrong-size"),
        "size-with-a-fraction": (change(files, lambda m: m["files"][UNET].update(bytes=64.0)), "wrong-size"),
        "one-bit-of-the-artifact": (splice(files, UNET, flipped(files[UNET], 17)), "changed-file"),
        "one-bit-of-the-weights": (splice(files, WEIGHTS, flipped(files[WEIGHTS], 0)), "changed-file"),
        "one-bit-of-the-correction": (splice(files, correction, flipped(files[correction], -1)), "changed-file"),
        "one-bit-of-the-packages-list": (
            splice(files, f"{PACKAGE}/Manifest.json", flipped(files[f"{PACKAGE}/Manifest.json"], 3)),
            "changed-file",
        ),
        "digest-in-capitals": (
            change(files, lambda m: m["files"][UNET].update(sha256=sha256(files[UNET]).upper())),
            "changed-file",
        ),
        "no-digest": (change(files, lambda m: m["files"][UNET].pop("sha256")), "changed-file"),
        "changed-file-behind-a-missing-file": (
            splice(files, correction, flipped(files[correction], -1)) + [{"op": "delete", "file": UNET}],
            "missing-file",
        ),
        "file-smuggled-into-the-package": (
            [{"op": "add", "file": f"{PACKAGE}/Data/more.bin", "hex": "00"}],
            "extra-file",
        ),
        "other-artifact": (replaced(files, UNET, flipped(files[UNET], 17)), "other-artifact"),
        "other-package": (replaced(files, WEIGHTS, flipped(files[WEIGHTS], 0)), "other-artifact"),
        "correction-of-the-other-part": (
            replaced(files, correction, files["coreml/correction.safetensors"]),
            "other-artifact",
        ),
        "correction-that-is-none": (replaced(files, correction, b"{}"), "truncated"),
        "correction-with-nan": (
            replaced(files, correction, with_values("input_bias", (0, float("nan")), data=files[correction])),
            "not-finite",
        ),
        "correction-of-other-channels": (replaced(files, correction, one_channel), "wrong-channels"),
    }
