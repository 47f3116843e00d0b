"""The page in a real browser: nothing missing, nothing wider than the screen, no complaint in the console.

Needs Debian's `chromium` and `chromium-driver` (or Chrome with chromedriver on PATH) and selenium.
Screenshots are kept under build/screenshots/ for people to look at.
"""

from __future__ import annotations

import base64
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from synthetic import make_evaluation

from mobile_export.evaluate.evaluation import Evaluation
from mobile_export.report import write_report

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
SCREENS = {
    "desktop-light": (1280, 900, "light"),
    "desktop-dark": (1280, 900, "dark"),
    "narrow-desktop": (1100, 800, "light"),
    "phone-light": (390, 844, "light"),
    "small-phone-dark": (360, 740, "dark"),
}


def skip_loudly(reason: str) -> None:
    warnings.warn(f"THE REPORT WAS NOT OPENED IN A BROWSER: {reason}", stacklevel=2)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, offline but for files."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        skip_loudly(f"selenium is not installed ({error})")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        skip_loudly(f"no Chromium with chromedriver on PATH (chromium: {chromium}, chromedriver: {driver_path})")
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    options.add_argument("--headless=new")
    options.add_argument("--hide-scrollbars")
    options.add_argument("--disable-dev-shm-usage")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(
    evaluations: Sequence[Evaluation], side_by_side: Sequence[Evaluation], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The usual page, one with two targets side by side, and one of long names, many steps, a loss, a failed export."""
    folder = tmp_path_factory.mktemp("report")
    hard = make_evaluation("w4a8", gain=-1.3, steps=200, seeds=10)
    object.__setattr__(hard, "labels", ("Donaudampfschifffahrtsgesellschaftskapitänsmütze",) * 10)
    object.__setattr__(hard, "sampler_parity", 1e-3)
    object.__setattr__(hard, "conversion_parity", {**hard.conversion_parity, "worst_code_step": 3})
    undelegated = {"quantized_decomposed.dequantize_per_channel_group.default_with_a_long_name": 12}
    object.__setattr__(hard, "artifact", {**hard.artifact, "undelegated": undelegated, "step_time_ratio": None})
    found = {name: folder / f"{name}.html" for name in ("report", "targets", "strained")}
    write_report(found["report"], evaluations)
    write_report(found["targets"], side_by_side)
    write_report(found["strained"], [hard])
    return found


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("page", ["report", "targets", "strained"])
def test_page_fits_and_is_complete(browser: Any, pages: dict[str, Path], page: str, screen: str) -> None:
    width, height, scheme = SCREENS[screen]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(pages[page].as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")

    size = browser.execute_script(
        "const d = document.documentElement; return [d.scrollWidth, innerWidth, d.scrollHeight]"
    )
    assert size[1] == width
    assert size[0] <= width, f"{page} scrolls sideways on {screen}: {size[0]} of {width} px"
    escaped = browser.execute_script(
        """return [...document.querySelectorAll('main *, header *')].filter(each => {
               const box = each.getBoundingClientRect();
               return box.width && box.right > innerWidth + 1
                   && !each.closest('.scroll, .strip-scroll, svg');
           }).map(each => each.outerHTML.slice(0, 120))"""
    )
    assert escaped == []
    divided = browser.execute_script(
        """const range = document.createRange();
           return [...document.querySelectorAll('.seed.head div')].flatMap(each => each.firstChild ?
               [...each.textContent.matchAll(/[^ ]+/g)].filter(word => {
                   range.setStart(each.firstChild, word.index);
                   range.setEnd(each.firstChild, word.index + word[0].length);
                   return range.getClientRects().length > 1;
               }).map(word => word[0]) : [])"""
    )
    assert divided == [], f"words in heads of columns that are broken on {screen}"
    broken = browser.execute_script(
        "return [...document.images].filter(each => !(each.complete && each.naturalWidth > 0)).map(each => each.alt)"
    )
    assert broken == []
    assert browser.execute_script("return document.images.length") > 30
    assert browser.execute_script("return [...document.querySelectorAll('svg.plot')].every(e => e.clientWidth > 250)")
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 384) == (scheme == "light")
    assert browser.get_log("browser") == []
    requests = [
        entry["message"] for entry in browser.get_log("performance") if 'requestWillBeSent"' in entry["message"]
    ]
    assert not [message for message in requests if '"url":"http' in message]

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    clip = {"x": 0, "y": 0, "width": width, "height": size[2], "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    (SCREENSHOTS / f"{page}-{screen}.png").write_bytes(base64.b64decode(shot["data"]))
