"""The page as text: complete, self-contained, repeatable, honest and safe against hostile names."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic import make_evaluation, on_core_ml

from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.metrics import Interval
from mobile_export.report import render_report, write_report
from mobile_export.report.check import ReportError
from mobile_export.report.heatmaps import heat_map
from mobile_export.report.page import SECTIONS
from mobile_export.report.plots import channel_plot

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements in order, visible text, and a complaint about every tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def html(evaluations: Sequence[Evaluation]) -> str:
    return render_report(evaluations)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_page_is_one_document(html: str, page: Page) -> None:
    assert html.startswith("<!DOCTYPE html>") and html.endswith("</html>\n")
    names = [name for name, _ in page.elements]
    assert names.count("html") == names.count("head") == names.count("body") == names.count("h1") == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for name, a in page.elements if name == "a"]
    assert targets == [key for key, _ in SECTIONS]
    used = re.findall(r"url\(#([^)]+)\)", html) + [
        a["href"][1:] for _, a in page.elements if a.get("href", "").startswith("#")
    ]
    assert set(used) <= set(ids)


def test_sections_come_in_order(page: Page) -> None:
    ids = [a.get("id") for name, a in page.elements if name in ("header", "section")]
    assert [each for each in ids if each] == [key for key, _ in SECTIONS]


def test_nothing_is_loaded_from_elsewhere(html: str, page: Page) -> None:
    assert not re.search(r"https?:|//\w|@import|javascript:", re.sub(r"data:image/png;base64,[\w+/=]+", "", html))
    assert not {name for name, _ in page.elements} & {"script", "iframe", "object", "embed", "base", "form"}
    for name, attributes in page.elements:
        for key in ("src", "href", "srcset", "poster", "action"):
            if key in attributes:
                assert attributes[key].startswith(("data:", "#")), (name, key, attributes[key][:80])
        assert not [key for key in attributes if key.startswith("on")]


def test_every_picture_decodes_and_has_words(page: Page, html: str) -> None:
    images = [attributes for name, attributes in page.elements if name == "img"]
    assert len(images) == 2 * (12 * 3 + 2 * 3)
    for attributes in images:
        picture = Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1], validate=True)))
        picture.load()
        assert picture.size == (int(attributes["width"]), int(attributes["height"]))
        assert len(attributes["alt"]) > 8
    for uri in re.findall(r"data:image/png;base64,\s*([\w+/=\s]+)", html):
        Image.open(io.BytesIO(base64.b64decode(uri))).verify()
    drawings = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(drawings) == 2 * (3 + 2)  # three curves, two tables that are not the identity
    assert all(drawing["aria-label"] and drawing["role"] == "img" for drawing in drawings)


def test_drawings_follow_the_colours_of_the_page(html: str) -> None:
    assert "#01020" not in html and "var(--quantized)" in html and "prefers-color-scheme: dark" in html


def test_numbers_are_on_the_page(page: Page) -> None:
    for expected in (
        "8.01 MB 3.9× smaller than fp32",
        "4.16 MB 7.4× smaller than fp32",
        "20.0 dB 19.5 to 20.6",
        "22.4 dB 21.9 to 22.9",
        "+2.4 dB +2.1 to +2.7",
        "0.61×",
        "8 123 456 activation codes compared: 0.012 % flipped, worst by 1 step.",
        "3.1 × 10⁻⁷ (relative L2",
        "at timesteps 960, 480, 0",
        "largest difference 4.2 × 10⁻⁷",
        "7.45× smaller than float32 (30 990 000 bytes)",
        "the file is 1.06× the ideal",
        "4.31 achieved 4 asked",
        "7 700 000",
        "1.97 MB",
        "2 344 bytes",
        "Delegates 3",
        "aten.embedding × 1",
        "weight codes 3.85 MB 92.5 %",
        "5 of 24 steps dropped",
        "3f5a" * 16,
        "9c14" * 16,
    ):
        assert expected in page.text, expected


def test_same_evaluations_give_the_same_bytes(tmp_path: Path, html: str) -> None:
    again = [make_evaluation("w8a8", noise=0.02, gain=0.1), make_evaluation("w4a8")]
    write_report(tmp_path / "a.html", again)
    assert (tmp_path / "a.html").read_bytes() == html.encode()


def test_users_matplotlib_settings_change_nothing(html: str, evaluations: Sequence[Evaluation]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert render_report(evaluations) == html
        assert matplotlib.rcParams["font.size"] == 20


HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\"' {{ 7 * 7 }} {% raw %} &amp;"


def test_hostile_text_is_only_text() -> None:
    plain = make_evaluation()
    artifact = {
        **plain.artifact,
        "delegates": (HOSTILE, "b"),
        "undelegated": {HOSTILE: 1},
        "operations": {HOSTILE: 1},
        "notes": [HOSTILE],
        "size_parts": {HOSTILE: 5},
    }
    hostile = replace(
        plain,
        name=HOSTILE,
        target_title=HOSTILE,
        precision="",
        labels=(HOSTILE,) * 12,
        artifact=artifact,
        provenance={"model": HOSTILE, HOSTILE: HOSTILE},
    )
    html = render_report([hostile])
    page, expected = Page(html), Page(render_report([plain]))
    names = [name for name, _ in page.elements]
    assert "script" not in names and names.count("style") == 1 and names.count("img") == 42
    assert "<script" not in html and "49" not in page.words
    assert {key for _, a in page.elements for key in a} == {key for _, a in expected.elements for key in a}
    assert HOSTILE in [word.strip() for word in page.words]
    drawing = next(a for name, a in page.elements if name == "svg")
    assert HOSTILE in drawing["aria-label"]


def test_a_failed_write_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ReportError):
        write_report(path, [])
    evaluation = make_evaluation()
    images = {**evaluation.images, "corrected": np.full_like(evaluation.images["corrected"], np.nan)}
    with pytest.raises(Exception, match="NaN"):
        write_report(path, [replace(evaluation, images=images)])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_report(path, [evaluation])
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>") and list(tmp_path.iterdir()) == [path]


def without(mapping: Any, key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("images", lambda e: without(e.images, "corrected"), "images lacks corrected"),
        ("images", lambda e: {**e.images, "quantized": e.images["quantized"][:3]}, r"images\[quantized\]"),
        ("images", lambda e: {k: v[:, :2] for k, v in e.images.items()}, "1 or 3"),
        ("strip_steps", lambda e: (0, 1), "strips"),
        ("strip_steps", lambda e: (*e.strip_steps[:-1], 24), "strip_steps"),
        ("tables", lambda e: without(e.tables, "input_bias"), "tables lacks input_bias"),
        ("tables", lambda e: {**e.tables, "input_bias": np.full((24, 3), np.nan)}, "NaN"),
        ("snr_db", lambda e: {**e.snr_db, "corrected": np.zeros(3)}, r"snr_db\[corrected\]"),
        ("mean_drift", lambda e: {"quantized": e.mean_drift["quantized"]}, "mean_drift lacks corrected"),
        ("kept_steps", lambda e: e.kept_steps[1:], "kept_steps"),
        ("conversion_parity", lambda e: without(e.conversion_parity, "flip_rate"), "lacks flip_rate"),
        ("artifact", lambda e: {**e.artifact, "bytes": 0}, "bytes > 0"),
        ("quantization_error", lambda e: {"image_psnr_db": 20.0}, "must be an Interval, got float"),
        ("conversion_parity", lambda e: without(e.conversion_parity, "limits"), "lacks limits"),
        ("artifact", lambda e: without(e.artifact, "notes"), "lacks notes"),
        ("labels", lambda e: (), "at least one seed"),
    ],
)
def test_incomplete_evaluations_are_refused(field: str, change: Any, message: str) -> None:
    evaluation = make_evaluation()
    with pytest.raises(ReportError, match=message) as error:
        render_report([replace(evaluation, **{field: change(evaluation)})])
    assert evaluation.name in str(error.value)


def test_no_part_may_come_twice() -> None:
    with pytest.raises(ReportError, match=r"got twice: emoji32-w4a8 \(executorch\)\."):
        render_report([make_evaluation(), make_evaluation()])


def test_unusual_but_valid_evaluations() -> None:
    """One step, one seed without a class, no strips, grayscale, many channels, an infinite ratio, no delegate."""
    base = make_evaluation(steps=1, seeds=1)
    images = {name: image[:, :1] for name, image in base.images.items()}
    latents = np.random.default_rng(0).normal(0, 0.01, (1, 16))
    evaluation = replace(
        base,
        labels=("",),
        images={**images, "corrected": images["reference"]},
        strips={name: np.zeros((0, 8, 1, 16, 16), np.float32) for name in base.strips},
        strip_steps=(0,) * 8,
        snr_db={"quantized": np.array([np.inf]), "corrected": np.array([200.0])},
        mean_drift={"quantized": latents, "corrected": latents},
        std_ratio={"quantized": 1 + latents, "corrected": 1 + latents},
        tables={
            name: latents + (1 if "gain" in name else 0)
            for name in ("output_gain", "output_bias", "input_gain", "input_bias")
        },
        kept_steps=np.array([True]),
        correction_gain={**base.correction_gain, "image_psnr_gain_db": Interval(200.0, 200.0, 200.0)},
        artifact={
            **base.artifact,
            "delegates": (),
            "undelegated": {},
            "size_parts": {},
            "step_time_ratio": None,
            "fp32_bytes": None,
        },
    )
    page = Page(render_report([evaluation]))
    assert "None" not in page.text and "float32 size not measured" in page.text
    assert "seed 0" in page.text and "equal" in page.text and "not measured" in page.text
    assert len([name for name, _ in page.elements if name == "svg"]) == 7


def test_same_precision_twice_is_told_apart_by_name() -> None:
    text = Page(render_report([make_evaluation(), replace(make_evaluation(), name="other")])).text
    assert "emoji32-w4a8 · ExecuTorch and other · ExecuTorch closer" in text


def test_parts_of_one_bundle_stand_side_by_side(side_by_side: Sequence[Evaluation]) -> None:
    html = render_report(side_by_side)
    page = Page(html)
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>', html)
    assert rows == ["w8a8 · ExecuTorch", "w4a8 · ExecuTorch", "w4a8 · Core ML"]
    assert html.count("--columns:3") == html.count("--columns:5") == 4  # two blocks at once, two more below
    images = [attributes for name, attributes in page.elements if name == "img"]
    assert len(images) == (12 + 2) * (3 + 5)  # the reference of a bundle once
    for expected in (
        "ExecuTorch quantized + correction",
        "Core ML quantized + correction",
        "not measured run by an emulator",
        "not measured: an emulator's time is never a phone's",
        "Planned memory decided on the device",
        "Delegates decided on the device",
        "Not delegated decided on the device Not quantized",
        "124 of 3 kinds",
        "conv × 51 linear × 43 silu × 30",
        "iOS 18 and later. Which unit runs an operation is decided on the device.",
        "error 3.1 × 10⁻⁷, at most 2.0 × 10⁻⁵",
        "error 3.1 × 10⁻⁷, at most 1.0 × 10⁻⁵",
    ):
        assert expected in page.text, expected


def test_parts_on_other_noise_are_not_mixed() -> None:
    """Two parts of one bundle whose references differ: each keeps its own."""
    one, other = make_evaluation(), on_core_ml(make_evaluation())
    images = {**other.images, "reference": -other.images["reference"]}
    html = render_report([one, replace(other, images=images)])
    assert "--columns:5" not in html and "<h3>w4a8 · Core ML</h3>" in html


def test_identity_table_is_not_drawn() -> None:
    assert heat_map(np.ones((5, 3)), 1.0, np.ones(5, bool), "k", "label") is None


def test_drawing_labels_are_escaped() -> None:
    curves = {"quantized": np.zeros((4, 2)), "corrected": np.zeros((4, 2))}
    drawing = channel_plot(curves, 0.0, "a < b & c", "key", '"><script>')
    assert "<script" not in drawing and "a &lt; b &amp; c" in drawing
