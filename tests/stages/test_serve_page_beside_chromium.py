"""The page with a second model and with similar reports, in a real browser and in three languages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import CHROMIUM, Tab
from pages import ABOUT, BEFORE, IDLE, LANGUAGES, Stand, ask, before, opened, say, take, words, write
from serving import IDENTITY, Parrot, Running, png, running
from sightline.serve.beside import Beside, Model
from sightline.serve.sure import Held
from sightline.settings import Template

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

CHOICES = {"yes": -0.1, "no": -2.4}  # 90.9 % sure
HELD = Held(threshold=0.8, of="choices", alpha=0.05, promise="kept")
STRICT = Held(threshold=0.95, of="choices", alpha=0.05, promise="kept")


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.fixture(scope="module")
def other() -> Parrot:
    return before(choices=CHOICES)


@pytest.fixture(scope="module")
def server(stand: Stand, other: Parrot) -> Iterator[Running]:
    company = Beside(before=Model(backend=other, held=STRICT), finder=stand, template=Template(name="plain"))
    with running(Parrot(choices=CHOICES), held=HELD, about=ABOUT, beside=company) as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "chest.png").write_bytes(png(320, 240))
    return tmp_path / "chest.png"


def shown(tab: Tab) -> list[str]:
    """The cards that are shown, in their order."""
    found: list[str] = tab.run(
        "[...document.querySelectorAll('#answers > article')].filter((e) => e.checkVisibility()).map((e) => e.id)"
    )
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_both_models_answer_beside_each_other_with_and_without_the_image(
    browser: Tab, server: Running, other: Parrot, image: Path, language: str
) -> None:
    own = words()[language]
    with opened(browser, server, language) as tab:
        assert tab.text("#compare-say") == say(language, "compare", BEFORE.name)
        take(tab, image)
        write(tab, "Is there an effusion?")
        ask(tab)
        assert shown(tab) == ["seen", "before", "found"]
        assert tab.text("#before-title") == own["before"]
        assert (tab.text("#seen .by"), tab.text("#before .by")) == (IDENTITY.name, BEFORE.name)
        assert (tab.text("#seen .text"), tab.text("#before .text")) == (
            "Small left effusion.",
            "No effusion.",
        )
        assert (tab.text("#seen .verdict"), tab.text("#before .verdict")) == (
            own["given"],
            own["needs_review"],
        )
        sure = say(language, "choices", "90.9")
        assert tab.text("#seen .sure") == f"{sure} ({say(language, 'threshold', '80.0')})"
        assert tab.text("#before .sure") == f"{sure} ({say(language, 'threshold', '95.0')})"
        ask(tab, "#blind")
        assert shown(tab) == ["seen", "before", "unseen", "unbefore", "found"]
        assert tab.text("#unbefore .same") == own["same"]
        assert other.asked[-1].sight == "black"

        tab.run("probe.keep()")
        tab("Browser.setDownloadBehavior", behavior="deny")
        tab.click("#export")
        tab.until("window.kept")
        kept = json.loads(tab.run("window.kept"))
        assert {
            k: (kept[k]["model"], kept[k]["model_sha256"], kept[k]["image"]) for k in kept if k in NAMED
        } == {
            "answer": (IDENTITY.name, IDENTITY.sha256, "clean"),
            "before": (BEFORE.name, BEFORE.sha256, "clean"),
            "blind": (IDENTITY.name, IDENTITY.sha256, "black"),
            "before_blind": (BEFORE.name, BEFORE.sha256, "black"),
        }
        tab.click("#copy")
        tab.until("window.copied")
        copied = tab.run("window.copied").splitlines()
        assert f"{own['before']}, {BEFORE.name}" in copied
        assert copied.count("No effusion.") == 2


NAMED = ("answer", "before", "blind", "before_blind")


def test_the_comparison_can_be_switched_off(
    browser: Tab, server: Running, other: Parrot, image: Path
) -> None:
    with opened(browser, server) as tab:
        take(tab, image)
        write(tab, "Where?")
        count = len(other.asked)
        tab.click("#compare")
        ask(tab)
        ask(tab, "#blind")
        assert shown(tab) == ["seen", "unseen", "found"]
        assert len(other.asked) == count
        tab.click("#compare")
        ask(tab)  # a new question to both: what was said without the image belonged to the old one
        assert shown(tab) == ["seen", "before", "found"]
        assert len(other.asked) == count + 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_reports_stand_beside_the_answer_with_their_similarity(
    browser: Tab, server: Running, image: Path, language: str
) -> None:
    own = words()[language]
    with opened(browser, server, language) as tab:
        assert tab.text("#reports-say") == own["reports_read"]
        take(tab, image)
        write(tab, "Is there an effusion?")
        ask(tab)
        assert tab.text("#found-title") == own["found"]
        assert tab.text("#found .hint") == own["found_hint"]
        rows = [
            line.splitlines()
            for line in tab.run("[...document.querySelectorAll('#found li')].map((e) => e.innerText)")
        ]
        facts = f"{say(language, 'similarity', '0.931')} · {say(language, 'behind', 3)}"
        assert [part for part in rows[0] if part] == [f"{facts} {own['in_prompt']}", "Small left effusion."]
        assert [part for part in rows[1] if part] == [
            say(language, "similarity", "0.500"),
            "Heart size normal.",
        ]
        assert (
            server.backend.asked[-1].messages[0].text.startswith("Reports of similar images: 1. Small left")
        )
        tab.run(f"probe.speak('{LANGUAGES[LANGUAGES.index(language) - 1]}')")
        assert words()[LANGUAGES[LANGUAGES.index(language) - 1]]["in_prompt"] in tab.text("#found li")
        tab.run(f"probe.speak('{language}')")

        tab.click("#reports")
        ask(tab)
        assert shown(tab) == ["seen", "before"]
        assert server.backend.asked[-1].messages[0].text == "Is there an effusion?"


def test_reports_are_asked_for_as_reports_are(browser: Tab, image: Path) -> None:
    parrot = Parrot()
    company = Beside(finder=Stand(), template=Template(name="mmed_rag"))
    with running(parrot, about=ABOUT, beside=company) as made, opened(browser, made) as tab:
        take(tab, image)
        tab.click("#mode-report")
        ask(tab)
        assert "Please generate a report based on the image." in parrot.asked[-1].messages[0].text
        assert tab.run("document.getElementById('compare-line').checkVisibility()") is False


def test_where_the_model_reads_none_the_page_says_that_they_are_only_shown(browser: Tab, image: Path) -> None:
    stand = Stand(reports=(), similarities=(), behind=())
    with running(Parrot(), about=ABOUT, beside=Beside(finder=stand)) as made, opened(browser, made) as tab:
        assert tab.text("#reports-say") == words()["en"]["reports_beside"]
        take(tab, image)
        write(tab, "Where?")
        ask(tab)
        assert words()["en"]["none_found"] in tab.text("#found")
        assert tab.run("document.querySelectorAll('#found li').length") == 0


def test_a_server_with_neither_shows_no_switch(browser: Tab, image: Path) -> None:
    with running(Parrot(), about=ABOUT) as made, opened(browser, made) as tab:
        assert tab.run("document.getElementById('more').checkVisibility()") is False
        take(tab, image)
        write(tab, "Where?")
        ask(tab)
        assert shown(tab) == ["seen"]
        assert tab.run("document.querySelector('#seen .by').checkVisibility()") is False


def test_where_one_of_two_fails_the_other_s_answer_stays(
    browser: Tab, server: Running, other: Parrot, image: Path
) -> None:
    with opened(browser, server) as tab:
        take(tab, image)
        write(tab, "Where?")
        other.fails = True
        try:
            ask(tab)
        finally:
            other.fails = False
        assert "could not be made" in tab.text("#problem")
        assert tab.text("#seen .verdict") == words()["en"]["given"]
        assert tab.text("#before .verdict") == ""


def test_reports_cannot_bring_a_page_s_own_words(browser: Tab, image: Path) -> None:
    from pages import similar

    evil = (
        "<img src=x onerror=\"document.body.dataset.bad='1'\"><script>document.body.dataset.bad='1'</script>"
    )
    stand = Stand(reports=(similar(1, evil),), similarities=(0.9,), behind=(1,))
    with running(Parrot(), about=ABOUT, beside=Beside(finder=stand)) as made, opened(browser, made) as tab:
        take(tab, image)
        write(tab, "Where?")
        ask(tab)
        assert tab.text("#found .report") == evil
        assert tab.run("document.body.dataset.bad") is None


def test_by_keyboard_alone_to_a_comparison(browser: Tab, server: Running, image: Path) -> None:
    with opened(browser, server) as tab:
        take(tab, image)
        tab.run("document.activeElement.blur()")
        for _ in range(60):
            tab.press("Tab")
            name = tab.run("document.activeElement.id")
            if name == "question":
                tab.type("Is there a nodule?")
            if name == "reports":
                tab.press(" ")
            if name == "ask":
                break
        tab.press("Enter")
        tab.until(IDLE)
        assert shown(tab) == ["seen", "before"]  # the blank switched reports off, Enter asked both
        assert server.backend.asked[-1].messages[0].text == "Is there a nodule?"
