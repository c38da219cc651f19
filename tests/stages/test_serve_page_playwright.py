"""The page by Playwright, every control by the name that it has in each language; axe looks at every state.

Names and roles are what a screen reader hears, so a control that cannot be found by them is a fault of its own.
axe-core (Deque) is asked for all its rules; nothing that it calls serious or critical may be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_report
from browser import CHROMIUM, FLAGS
from pages import ABOUT, BEFORE, IDLE, LANGUAGES, READY, Stand, before, say, words
from serving import TOKEN, Parrot, Running, png, running, until
from sightline.images.formats import nifti
from sightline.images.volume import Volume
from sightline.serve.beside import Beside, Model
from sightline.serve.limits import Limits
from sightline.serve.sure import Held
from sightline.settings import Template
from sightline.stages.rebuild import rebuild

sync = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

CHOICES = {"yes": -0.1, "no": -2.4}  # 90.9 % sure
HELD = Held(threshold=0.95, of="choices", alpha=0.05, promise="kept")
GRAVE = ("serious", "critical")
OWN = ("--remote-debugging-pipe", "--headless")  # flags that Playwright sets itself


@dataclass
class Look:
    """The page, and what was seen of it."""

    page: Any
    url: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def faults(self, state: str) -> None:
        """Let axe look; a fault names the rule and where."""
        self.states.append(state)
        told = axe.Axe().run(self.page).response["violations"]
        grave = [
            (v["id"], n["target"], n["failureSummary"])
            for v in told
            if v["impact"] in GRAVE
            for n in v["nodes"]
        ]
        assert grave == [], state

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def until(self, code: str) -> None:
        """Wait until an expression is true; Playwright's own way needs `eval`, which the page's policy forbids."""
        until(lambda: self.page.evaluate(f"Boolean({code})"), 60)

    def told(self, words: str) -> None:
        """Wait until the page says so."""
        until(lambda: self.page.get_by_role("status").inner_text() == words, 30)

    def ended(self) -> None:
        """Wait until an answer has ended."""
        self.until(IDLE)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    company = Beside(
        before=Model(backend=before(choices=CHOICES)), finder=Stand(), template=Template(name="plain")
    )
    limits = replace(Limits(), voxels=32**3)
    with running(Parrot(choices=CHOICES), held=HELD, about=ABOUT, beside=company, limits=limits) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    flags = [flag for flag in FLAGS if flag not in OWN]
    with sync.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


@pytest.fixture
def look(browser: Any, server: Running) -> Iterator[Look]:
    """A fresh page; in the end its console must be empty and nobody else asked."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    made = Look(page, server.url)
    page.on("console", lambda told: told.type in ("error", "warning") and made.said.append(told.text))
    page.on("pageerror", lambda error: made.said.append(str(error)))
    page.on("request", lambda request: made.asked.append(request.url))
    yield made
    page.close()
    assert made.said == []
    assert [u for u in made.asked if not u.startswith((server.url, "data:", "blob:", "file:"))] == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "chest.png").write_bytes(png(320, 240))
    values = np.random.default_rng(0).integers(0, 256, (16, 18, 20)).astype(np.float32)
    nifti.write(tmp_path / "head.nii.gz", Volume(values=values, spacing=(1.0, 1.0, 1.0)))
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    return tmp_path


def begin(look: Look, language: str) -> None:
    """Open the page in English and choose the language as a user does."""
    look.page.goto(f"{look.url}/#lang=en")
    look.until(READY)
    look.page.get_by_label(words()["en"]["language"]).select_option(language)
    assert look.page.evaluate("document.documentElement.lang") == language


def choose(look: Look, path: Path, slot: str, own: dict[str, str]) -> Any:
    """Choose a file; the part of the page that shows it."""
    place = look.page.locator(f"#slot-{slot}")
    place.get_by_label(own["choose"]).set_input_files(path)
    return place


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_control_has_its_name_and_does_its_work(
    look: Look, server: Running, files: Path, language: str
) -> None:
    begin(look, language)
    look.faults("first")
    images(look, files, language)
    form(look, language)
    answers(look, server, language)
    ends(look, language)
    assert look.states == [
        "first",
        "a problem",
        "an image and a volume",
        "a report",
        "answering",
        "four answers",
    ]


def images(look: Look, files: Path, language: str) -> None:
    """Refuse a file, then use every control of a picture and of a volume."""
    own, page = words()[language], look.page
    look.press(own["ask"])
    assert page.get_by_role("alert").inner_text() == own["no_image"]
    look.faults("a problem")
    place = choose(look, files / "scan.dcm", "current", own)
    look.until(f"document.getElementById('problem').textContent === {json.dumps(own['dicom'])}")
    choose(look, files / "chest.png", "current", own)
    place.get_by_role("img", name=own["current"]).wait_for()
    for key in ("centre", "width", "zoom"):
        slider = place.get_by_role("slider", name=own[key])
        was = slider.input_value()
        slider.press("ArrowRight")
        assert slider.input_value() != was, key
    place.get_by_role("button", name=own["reset"]).click()
    assert place.get_by_role("slider", name=own["zoom"]).input_value() == "1"
    place.get_by_role("img", name=own["current"]).press("+")
    assert place.get_by_role("slider", name=own["zoom"]).input_value() == "1.5"
    earlier = choose(look, files / "head.nii.gz", "prior", own)
    earlier.get_by_label(own["plane"], exact=True).select_option(label=own["sagittal"])
    earlier.get_by_role("slider", name=own["slice"], exact=True).press("ArrowLeft")
    until(lambda: say(language, "slice_of", 7, 16) in earlier.inner_text(), 30)
    look.faults("an image and a volume")


def form(look: Look, language: str) -> None:
    """Ask for a report, take a question that is suggested, write one, and find both switches on."""
    own, page = words()[language], look.page
    page.get_by_role("radio", name=own["mode_report"]).check()
    assert page.get_by_label(own["report"], exact=True).input_value() == ABOUT["report"]
    look.faults("a report")
    page.get_by_role("radio", name=own["mode_question"]).check()
    page.get_by_role("button", name=str(ABOUT["questions"][1])).click()
    box = page.get_by_role("textbox", name=own["question"], exact=True)
    assert box.input_value() == ABOUT["questions"][1]
    box.fill("Is there a nodule?")
    assert page.get_by_role("checkbox", name=own["reports_read"]).is_checked()
    assert page.get_by_role("checkbox", name=say(language, "compare", BEFORE.name)).is_checked()


def answers(look: Look, server: Running, language: str) -> None:
    """Stop an answer, then ask both models with and without the image."""
    own, page = words()[language], look.page
    server.backend.hold = True
    look.press(own["ask"])
    page.get_by_role("button", name=own["stop"], exact=True).wait_for()
    look.faults("answering")
    look.press(own["stop"])
    look.ended()
    server.backend.hold = False
    look.told(own["stopped"])
    look.press(own["ask"])
    look.ended()
    assert server.backend.asked[-1].messages[0].text.endswith("Is there a nodule?")
    said = {
        kind: page.get_by_role("article", name=own[kind], exact=True).inner_text()
        for kind in ("seen", "before", "found")
    }
    assert own["needs_review"] in said["seen"]
    assert own["uncalibrated"] in said["before"]
    assert own["in_prompt"] in said["found"]
    look.press(own["blind"])
    look.ended()
    assert own["same"] in page.get_by_role("article", name=own["unseen"], exact=True).inner_text()
    assert page.get_by_role("article", name=own["unbefore"], exact=True).is_visible()
    look.faults("four answers")


def ends(look: Look, language: str) -> None:
    """Copy and save what was said, switch off what stands beside it, and take an image away."""
    own, page = words()[language], look.page
    look.press(own["copy"])
    look.told(own["copied"])
    with page.expect_download() as caught:
        look.press(own["export"])
    kept = json.loads(Path(caught.value.path()).read_text(encoding="utf-8"))
    assert caught.value.suggested_filename == "sightline-answer.json"
    assert kept["slices"] == {"prior": {"plane": "sagittal", "slice": 7, "of": 16}}
    assert [each["in_prompt"] for each in kept["answer"]["reports"]] == [True, False]
    page.get_by_role("checkbox", name=own["reports_read"]).uncheck()
    page.get_by_role("checkbox", name=say(language, "compare", BEFORE.name)).uncheck()
    look.press(own["ask"])
    look.ended()
    assert page.get_by_role("article").count() == 1
    page.locator("#slot-prior").get_by_role("button", name=own["remove"]).click()
    assert page.get_by_role("article").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 1000), (320, 700)])
def test_axe_finds_no_fault_in_any_light_and_width(
    look: Look, files: Path, scheme: str, width: int, height: int
) -> None:
    own = words()["en"]
    look.page.emulate_media(color_scheme=scheme)
    look.page.set_viewport_size({"width": width, "height": height})
    begin(look, "en")
    look.faults("first")
    choose(look, files / "head.nii.gz", "current", own)
    look.page.locator("#current-canvas").wait_for()
    look.page.get_by_label(own["question"], exact=True).fill("Where?")
    for button in ("ask", "blind"):
        look.press(own[button])
        look.ended()
    look.faults("four answers and reports")
    assert look.page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_no_fault_where_one_signs_in(look: Look, browser: Any) -> None:
    with running(Parrot(), token=TOKEN, about=ABOUT) as made:
        page = browser.new_page()
        page.goto(f"{made.url}/")
        other = Look(page, made.url)
        other.faults("sign in")
        page.get_by_label("Token").fill("wrong-wrong-wrong")
        page.get_by_role("button").click()
        assert "This is not the token." in page.get_by_role("alert").inner_text()
        other.faults("a wrong token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        other.until(READY)
        page.close()


def test_axe_finds_no_fault_in_the_pages_of_an_evaluation(look: Look, tmp_path: Path) -> None:
    rebuild(small_report.evaluation(tmp_path), tmp_path / "pages")
    pages = sorted((tmp_path / "pages").rglob("*.html"))
    assert "report.html" in [path.name for path in pages]
    for path in pages:
        look.page.goto(path.as_uri())
        look.faults(path.name)
        look.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        look.faults(f"{path.name}, everything open")


def test_axe_is_at_work(look: Look) -> None:
    """A control: without it, an empty list of faults would prove nothing."""
    begin(look, "en")
    look.page.evaluate("document.querySelector('label[for=question]').remove()")
    with pytest.raises(AssertionError, match="label"):
        look.faults("a field without a name")
