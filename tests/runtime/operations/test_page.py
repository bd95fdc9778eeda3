"""The page, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from measnet.runtime.live.events import Events
from measnet.runtime.operations.access import VARIABLE
from measnet.runtime.operations.server import Operations
from runtime.operations.browser import Browser
from runtime.operations.kit import ANYWHERE, HERE, TOKEN, Camera, Serve


def test_the_page_shows_input_left_of_the_slider_and_the_result_right_of_it(
    serve: Serve, events: Events, page: Browser, tmp_path: Path
) -> None:
    camera = Camera("door", events)
    operations = serve(camera)
    camera.enter("running", "frames come")
    red = np.zeros((360, 640, 3), np.uint8)
    red[..., 0] = 255  # the result, its inverse, is cyan
    page.size(1280, 800)
    page.open(operations.url())
    page.wait("document.querySelector('.overlay strong')?.textContent === 'Waiting for the first frame'")
    camera.frame(red)
    page.wait("document.querySelector('.camera')?.dataset.serial > 0")
    assert page.value("document.querySelector('.overlay').hidden") is True

    def sides() -> tuple[float, float]:
        """Share of red pixels in the left and the right half of the picture."""
        box = page.value("JSON.stringify(document.querySelector('.viewer canvas').getBoundingClientRect())")
        place = json.loads(box)
        seen = cv2.imread(str(page.picture(tmp_path / "seen.png")))
        assert seen is not None
        top, left = round(place["top"]) + 20, round(place["left"])
        width = round(place["width"])
        part = seen[top : top + 100, left : left + width].astype(int)
        is_red = (part[..., 2] > 200) & (part[..., 0] < 60)
        return float(is_red[:, : width // 2].mean()), float(is_red[:, width // 2 :].mean())

    left, right = sides()
    assert left > 0.95 and right < 0.05
    page.value("document.querySelector('input[type=range]').focus()")
    page.key("End", 35)
    page.wait("document.querySelector('.line').style.left === '100%'")
    left, right = sides()
    assert left > 0.95 and right > 0.95
    page.key("Home", 36)
    page.wait("document.querySelector('.line').style.left === '0%'")
    assert max(sides()) < 0.05
    said = page.value("document.querySelector('input[type=range]').getAttribute('aria-valuetext')")
    assert said == "0 % input"
    assert page.said == []


def test_the_page_tells_of_states_figures_and_events_and_takes_names_for_text(
    serve: Serve, events: Events, page: Browser
) -> None:
    door = Camera("<img src=x onerror=document.title=1>", events)
    yard = Camera("yard & gate", events)
    operations = serve(door, yard)
    page.size(390, 844)
    page.open(operations.url())
    yard.enter("reconnecting", "<b>silent</b>, again in 2 s")
    door.telemetry.verified(70.25)
    with door.running():
        page.wait("document.body.innerText.includes('1 of 2 cameras running')")
        page.wait("document.querySelector('.camera')?.dataset.serial > 2")
        shown = (
            door.name,
            yard.name,
            "<b>silent</b>, again in 2 s",
            "Connecting again",
            "noise 50 %",
            "70.3 dB",
        )
        page.wait(f"{json.dumps(shown)}.every(words => document.body.innerText.includes(words))")
    assert page.value("document.images.length") == 0
    assert page.value("document.documentElement.scrollWidth") == 390, "it has to fit a phone"
    unnamed = "one => !one.labels?.length && !one.ariaLabel"
    assert (
        page.value(f"[...document.querySelectorAll('input, select, canvas')].filter({unnamed}).length") == 0
    )
    page.value("get('whose').value = 'yard & gate'; get('whose').dispatchEvent(new Event('change'))")
    seen = page.value(
        "[...get('events').children].filter(row => row.offsetParent).map(row => row.dataset.camera)"
    )
    assert set(seen) == {"yard & gate"}
    assert page.said == []


def test_the_page_says_when_the_server_is_gone(events: Events, page: Browser) -> None:
    with Operations(events, console=HERE) as operations:
        page.open(operations.url())
        page.wait("document.body.dataset.link === 'running'")
    page.wait("document.getElementById('link').textContent.startsWith('no answer')")
    page.said.clear()


def test_a_browser_gets_in_with_the_token_and_keeps_it(
    serve: Serve, page: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    url = serve(console=ANYWHERE).url().replace("0.0.0.0", "127.0.0.1")
    page.open(url)
    page.wait("document.querySelector('input[name=token]') !== null")
    page.open(f"{url}/?token={TOKEN}")
    page.wait("document.body.dataset.link === 'running'")
    assert page.value("location.href") == f"{url}/"
    page.open(url)
    page.wait("document.body.dataset.link === 'running'")
    page.said.clear()
