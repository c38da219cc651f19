"""The page in a real browser: every control in three languages, by mouse and by keyboard, and for a screen reader."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, Tab
from pages import ABOUT, IDLE, LANGUAGES, PAGE, READY, ask, begin, opened, take, words
from serving import IDENTITY, TOKEN, Parrot, Running, png, running, until
from sightline import NOTICE
from sightline.serve.sure import Held

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

HELD = Held(threshold=0.8, of="choices", alpha=0.05, promise="kept")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Parrot(choices={"yes": -0.1, "no": -2.4}), held=HELD, about=ABOUT) as made:
        yield made


@pytest.fixture
def tab(browser: Tab, server: Running) -> Iterator[Tab]:
    """The page, freshly opened in English; in the end the console must be empty and nobody else asked."""
    with opened(browser, server) as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "chest.png").write_bytes(png(320, 240))
    return tmp_path / "chest.png"


def mean(tab: Tab, when: str = "current") -> float:
    """Mean brightness of what is shown."""
    return float(tab.run(f"probe.mean('{when}')"))


def test_every_text_stands_in_three_languages() -> None:
    made = words()
    assert list(made) == list(LANGUAGES)
    assert made["en"].keys() == made["zh"].keys() == made["ko"].keys()
    for language, texts in made.items():
        assert all(texts.values())
        own = {k for k, v in texts.items() if language != "en" and v == made["en"][k]}
        assert own <= {"report_text"}  # what the model is asked, in the language that it was taught
        for key, text in texts.items():
            assert text.count("{") == made["en"][key].count("{"), (language, key)
    used = set(re.findall(r'data-(?:say|name)="(\w+)"', (PAGE / "index.html").read_text(encoding="utf-8")))
    for script in PAGE.glob("*.js"):
        code = script.read_text(encoding="utf-8")
        used |= set(re.findall(r'\b(?:say|tell|report|refuse)\("(\w+)"', code))
        used |= set(re.findall(r'"data-(?:say|name)": "(\w+)"', code))
    assert used <= made["en"].keys()
    assert len(used) > 50
    assert made["en"]["notice"] == NOTICE


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_from_the_image_to_the_saved_file(
    tab: Tab, server: Running, image: Path, language: str
) -> None:
    own = words()[language]
    tab.run(f"probe.speak('{language}')")
    assert tab.run("document.documentElement.lang") == language
    assert tab.text(".notice") == own["notice"]
    assert tab.text("#model") == IDENTITY.name
    assert tab.text("#hash") == IDENTITY.sha256[:16]
    said = tab.run("probe.said()")
    wrong = [key for key, text in said if text != own[key] and key not in ("question",)]
    assert wrong == []

    ask(tab)
    assert tab.text("#problem") == own["no_image"]
    take(tab, image)
    assert tab.text("#slot-current .size") == own["shown"].replace("{0}", "320").replace("{1}", "240")
    ask(tab)
    assert tab.text("#problem") == own["no_question"]
    assert tab.run("document.querySelectorAll('#suggestions button').length") == 2
    tab.click("#suggestions button:nth-child(2)")
    assert tab.run("document.getElementById('question').value") == "Is the heart enlarged?"

    ask(tab)
    assert tab.text("#seen .text") == "Small left effusion."
    assert tab.text("#seen .asked") == "Is the heart enlarged?"
    assert tab.text("#seen .verdict") == own["given"]
    sure, threshold = own["choices"].replace("{0}", "90.9"), own["threshold"].replace("{0}", "80.0")
    assert tab.text("#seen .sure") == f"{sure} ({threshold})"
    assert tab.text("#status") == own["done"]
    asked = server.backend.asked[-1]
    assert (asked.sight, asked.limit, [p.when for p in asked.pictures]) == ("clean", 64, ["current"])
    assert asked.pictures[0].pixels.shape == (240, 320, 3)

    ask(tab, "#blind")
    assert server.backend.asked[-1].sight == "black"
    assert tab.text("#unseen .text") == "Small left effusion."
    assert tab.text("#unseen .same") == own["same"]

    tab.run("probe.keep()")
    tab.click("#copy")
    tab.until("window.copied")
    copied = tab.run("window.copied").splitlines()
    assert copied[0] == own["notice"]
    assert own["seen"] in copied
    assert own["given"] in copied
    assert tab.text("#status") == own["copied"]
    tab("Browser.setDownloadBehavior", behavior="deny")
    tab.click("#export")
    tab.until("window.kept")
    kept = json.loads(tab.run("window.kept"))
    assert (kept["notice"], kept["model"], kept["model_sha256"]) == (NOTICE, IDENTITY.name, IDENTITY.sha256)
    assert (kept["answer"]["question"], kept["answer"]["answer"]) == (
        "Is the heart enlarged?",
        "Small left effusion.",
    )
    assert kept["answer"]["sure"]["verdict"] == "given"
    assert (kept["blind"]["image"], kept["images"]) == ("black", ["current"])
    assert tab.text("#status") == own["saved"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_with_an_earlier_image(tab: Tab, server: Running, image: Path, language: str) -> None:
    own = words()[language]
    begin(tab, f"{server.url}/?again#lang={language}")
    take(tab, image)
    take(tab, image, "prior")
    tab.click("#mode-report")
    assert tab.text("label[for=question]") == own["report"]
    assert tab.run("document.getElementById('suggestions').hidden") is True
    assert tab.run("document.getElementById('question').value") == "Describe the findings."
    ask(tab)
    asked = server.backend.asked[-1]
    assert ([p.when for p in asked.pictures], asked.limit) == (["current", "prior"], 256)
    tab.click("#prior-remove")
    assert tab.run("document.querySelector('#slot-prior .shown').hidden") is True
    assert tab.run("document.getElementById('seen').hidden") is True  # that answer was about other images
    tab.click("#mode-question")
    assert tab.text("label[for=question]") == own["question"]
    assert tab.run("document.getElementById('question').value") == ""


def test_window_and_zoom_change_the_view_and_not_the_image(tab: Tab, server: Running, image: Path) -> None:
    take(tab, image)
    before = mean(tab)
    tab.run("document.getElementById('current-centre').focus()")
    tab.press("ArrowRight", 60)
    darker = mean(tab)
    assert darker < before - 20
    tab.run("document.getElementById('current-width').focus()")
    tab.press("ArrowLeft", 100)
    assert abs(mean(tab) - darker) > 1
    tab.click("#current-reset")
    assert mean(tab) == before
    tab.run("document.getElementById('current-zoom').focus()")
    tab.press("ArrowRight", 10)
    assert float(tab.run("document.getElementById('current-zoom').value")) == pytest.approx(2.0)
    assert mean(tab) > before + 10  # no black margin any more
    shown = mean(tab)
    tab.run("document.getElementById('current-canvas').focus()")
    tab.press("ArrowLeft", 3)
    assert mean(tab) != shown
    tab.press("+")
    assert float(tab.run("document.getElementById('current-zoom').value")) == pytest.approx(2.5)
    tab.press("-", 9)
    assert float(tab.run("document.getElementById('current-zoom').value")) == 1.0
    tab.press("0")
    assert mean(tab) == before
    tab.run("document.getElementById('question').value = 'Where?'")
    ask(tab)
    right = np.asarray(Image.open(io.BytesIO(image.read_bytes())), np.float32) / 255
    assert np.abs(server.backend.asked[-1].pictures[0].pixels - right).max() < 1e-6


def test_a_file_that_is_dropped_and_files_that_are_none(tab: Tab, tmp_path: Path) -> None:
    tab.run(f"probe.drop('#slot-prior .drop', {list(png(40, 40))})")
    tab.until("!document.querySelector('#slot-prior .shown').hidden")
    own = words()["en"]
    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(64))
    (tmp_path / "notes.txt").write_bytes(b"effusion")
    (tmp_path / "broken.png").write_bytes(png()[:40])
    names = {"scan.dcm": "dicom", "IM0001": "dicom", "notes.txt": "bad_type", "broken.png": "bad_image"}
    for name, key in names.items():
        tab.choose("#current-file", tmp_path / name)
        tab.until(f"document.getElementById('problem').textContent === {json.dumps(own[key])}")
        assert tab.run("document.querySelector('#slot-current .shown').hidden") is True


def test_an_answer_streams_and_can_be_stopped(tab: Tab, server: Running, image: Path) -> None:
    take(tab, image)
    tab.run("document.getElementById('question').value = 'Where?'")
    server.backend.hold = True
    before = len(server.backend.cancelled)
    try:
        tab.click("#ask")
        tab.until("!document.getElementById('stop').disabled")
        assert tab.run("document.querySelector('#seen .text').getAttribute('aria-busy')") == "true"
        assert tab.text("#status") == words()["en"]["working"]
        tab.click("#stop")
        tab.until(IDLE)
    finally:
        server.backend.hold = False
    assert tab.text("#status") == words()["en"]["stopped"]
    until(lambda: len(server.backend.cancelled) == before + 1)


def test_another_image_ends_an_answer_about_the_one_before(tab: Tab, server: Running, image: Path) -> None:
    """Else an answer about one image would stand, and be saved, beside another one."""
    take(tab, image)
    tab.run("document.getElementById('question').value = 'Where?'")
    before = len(server.backend.cancelled)
    server.backend.hold = True
    try:
        tab.click("#ask")
        tab.until("!document.getElementById('stop').disabled")
        other = image.with_name("other.png")
        other.write_bytes(png(100, 80))
        tab.choose("#current-file", other)
        tab.until("document.querySelector('#slot-current .size').textContent.startsWith('100')")
    finally:
        server.backend.hold = False
    tab.until(IDLE)
    assert tab.text("#status") == words()["en"]["stopped"]
    assert tab.run("document.getElementById('seen').hidden") is True
    assert tab.run("document.getElementById('copy').disabled") is True
    assert tab.run("document.getElementById('export').disabled") is True
    until(lambda: len(server.backend.cancelled) == before + 1)
    ask(tab)
    assert tab.text("#seen .text") == "Small left effusion."
    assert server.backend.asked[-1].pictures[0].pixels.shape == (80, 100, 3)


def test_what_the_server_refuses_is_said(tab: Tab, server: Running, image: Path) -> None:
    own = words()["en"]
    take(tab, image)
    tab.run("document.getElementById('question').value = 'x'.repeat(9000)")
    ask(tab)
    assert tab.text("#problem").startswith(own["refused"].partition("{")[0])
    tab.run("document.getElementById('question').value = 'Where?'")
    server.door.room, room = 0, server.door.room
    ask(tab)
    server.door.room = room
    assert tab.text("#problem") == own["busy"].replace("{0}", "1")
    server.backend.fails = True
    ask(tab)
    server.backend.fails = False
    assert "could not be made" in tab.text("#problem")
    tab.events.clear()  # the browser itself notes answers of 400 and above on its console


@pytest.mark.parametrize(
    ("choices", "verdict"), [({"yes": -0.7, "no": -0.69}, "needs_review"), ({}, "uncalibrated")], ids=str
)
def test_what_is_not_sure_enough_says_so(
    tab: Tab, server: Running, image: Path, choices: dict[str, float], verdict: str
) -> None:
    before, server.backend.choices = server.backend.choices, choices
    take(tab, image)
    tab.run("document.getElementById('question').value = 'Where?'")
    ask(tab)
    server.backend.choices = before
    assert tab.text("#seen .verdict") == words()["en"][verdict]
    assert tab.run("document.getElementById('seen').dataset.verdict") == verdict


def test_by_keyboard_alone(tab: Tab, server: Running, image: Path) -> None:
    take(tab, image)
    reached: list[str] = []
    tab.run("document.activeElement.blur()")
    for _ in range(60):
        tab.press("Tab")
        name = tab.run("document.activeElement.id || document.activeElement.textContent.trim()")
        if name in reached:
            break
        reached.append(name)
        if name == "question":
            tab.type("Is there a nodule?")
        if name == "ask":
            tab.press("Enter")
            tab.until(IDLE)
            tab.run("document.getElementById('ask').focus()")
    assert server.backend.asked[-1].messages[0].text == "Is there a nodule?"
    wanted = [
        "language", "current-file", "current-canvas", "current-centre", "current-width", "current-zoom",
        "current-reset", "current-remove", "prior-file", "mode-question", "question",
        "Is there an effusion?", "Is the heart enlarged?", "ask", "blind", "copy", "export",
    ]  # fmt: skip
    assert [name for name in reached if name in wanted] == wanted


def test_for_a_screen_reader_everything_has_a_name(tab: Tab, image: Path) -> None:
    take(tab, image)
    take(tab, image, "prior")
    tab.run("document.getElementById('question').value = 'Where?'")
    ask(tab)
    roles = {
        "button",
        "textbox",
        "slider",
        "combobox",
        "radio",
        "link",
        "image",
        "img",
        "group",
        "article",
        "region",
    }
    nodes = tab("Accessibility.getFullAXTree")["nodes"]
    seen = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    bare = [role for role, name in seen if role in roles and not name.strip()]
    assert bare == []
    assert {"Window centre", "Zoom"} <= {name for role, name in seen if role == "slider"}
    assert [name for role, name in seen if role == "radio"] == ["An answer to a question", "A report"]
    levels = tab.run("probe.levels()")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = tab.run("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    live = tab.run("[...document.querySelectorAll('[aria-live],[role=status],[role=alert]')].length")
    assert live >= 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_and_a_narrow_window_needs_no_sideways_scrolling(
    tab: Tab, image: Path, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    tab("Emulation.setEmulatedMedia", features=features)
    take(tab, image)
    tab.run("document.getElementById('question').value = 'Where?'")
    ask(tab)
    assert tab.run("probe.weak()") == []
    tab("Emulation.setDeviceMetricsOverride", width=320, height=800, deviceScaleFactor=1, mobile=True)
    assert tab.run("probe.beyond(320)") == []
    assert tab.run("document.documentElement.scrollWidth") <= 320
    tab("Emulation.setEmulatedMedia", features=[])


def test_a_guarded_page_lets_in_with_the_token(browser: Tab, tmp_path: Path) -> None:
    with running(Parrot(), token=TOKEN, about=ABOUT) as made:
        browser.open(f"{made.url}/", "document.getElementById('token')")
        assert NOTICE in browser.text("main")
        browser.run("document.getElementById('token').focus()")
        browser.type(TOKEN)
        browser.press("Enter")
        browser.until(READY)
        assert browser.text("#model") == IDENTITY.name
        assert browser.run("document.cookie") == ""  # a script cannot read it
    browser.events.clear()


def test_the_console_is_heard(browser: Tab, server: Running) -> None:
    """A control: a page that breaks its own policy must be noticed, or an empty console proves nothing."""
    browser.events.clear()
    begin(browser, f"{server.url}/#lang=en")
    browser.run("probe.stranger()")
    found: list[Any] = []
    for _ in range(50):
        found = browser.complaints()
        if found:
            break
    assert any("Content Security Policy" in text for text in found)
    browser.events.clear()
