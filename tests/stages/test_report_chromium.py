"""The report in a real browser: nothing on its console, nothing asked of a network, and all that can be pressed."""

from __future__ import annotations

import csv
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import small_report
from browser import CHROMIUM, Tab
from loaded import STUDY, load_file
from sightline.cli.ratings import rated
from sightline.report import Page, render
from sightline.stages.rebuild import rebuild

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def study() -> Any:
    return load_file(STUDY)


@pytest.fixture(scope="module")
def page(study: Any) -> Page:
    made: Page = study.page(cases=30)
    return made


@pytest.fixture(scope="module")
def address(page: Page, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("page") / "report.html"
    render(page, place)
    return place.as_uri()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished evaluation and the folder of its pages."""
    home = tmp_path_factory.mktemp("runs")
    place = small_report.evaluation(home)
    rebuild(place, home / "pages")
    return place, home / "pages"


def go(browser: Tab, address: str) -> None:
    """Open a page anew, also where only the end of the address differs."""
    browser("Page.navigate", url="about:blank")
    browser.until("location.href === 'about:blank'")
    browser.open(address, "true")


def quiet(browser: Tab) -> bool:
    """Nothing was said, and nothing but the file itself and its pictures was asked for, since the last look."""
    said, asked = browser.complaints(), browser.asked()
    browser.events.clear()
    assert said == []
    return all(each.startswith(("file:", "data:", "blob:", "about:")) for each in asked)


def shown(browser: Tab) -> list[int]:
    """Numbers of the cases in the page."""
    found: list[int] = browser.run(
        "[...document.querySelectorAll('#cases .cards > .card')].map((c) => +c.dataset.case)"
    )
    return found


def rows(browser: Tab) -> int:
    """Rows of answers in the page that are not hidden."""
    return int(browser.run("document.querySelectorAll('#cases .cards tr[data-marks]:not([hidden])').length"))


def prefer(browser: Tab, scheme: str) -> None:
    """Prefer light or dark colours."""
    browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def state(browser: Tab) -> str:
    return str(browser.run("document.getElementById('count').textContent"))


def test_a_count_opens_the_cases_behind_it(browser: Tab, page: Page, address: str) -> None:
    go(browser, address)
    assert shown(browser) == list(range(12))
    assert state(browser) == "30 of 30 cases, 180 answers"
    door = browser.run(
        "(() => { const a = document.querySelector('.mistakes a[href*=\"2fp,\"]'); a.click();"
        " return [a.textContent, decodeURIComponent(a.hash)] })()"
    )
    browser.until("!document.getElementById('drill').hidden")
    count, topic = int(door[0]), door[1].split(",")[1]
    wanted = [
        number
        for number, card in enumerate(page.ordered)
        if any(("fp", topic) in t["marks"]["aligned"] for t in card.turns)
    ]
    assert shown(browser) == wanted[:12]
    assert rows(browser) == count == sum(
        ("fp", topic) in t["marks"]["aligned"] for c in page.gallery for t in c.turns
    ) > 0  # fmt: skip
    assert browser.run("document.getElementById('drill').textContent") == "False positives, aligned ×"
    assert browser.run("document.activeElement.id") == "cases-title"
    browser.run("document.getElementById('whole').click()")
    assert rows(browser) == 6 * len(wanted), "whole cases show all their questions"
    browser.run("document.getElementById('whole').click(); document.getElementById('drill').click()")
    assert state(browser) == "30 of 30 cases, 180 answers"
    assert quiet(browser)


def test_more_cases_come_on_demand_and_a_case_has_an_address(browser: Tab, address: str) -> None:
    go(browser, address)
    browser.run("document.getElementById('more').click()")
    assert len(shown(browser)) == 24
    browser.run("document.getElementById('more').click()")
    assert len(shown(browser)) == 30
    assert browser.run("document.getElementById('more').hidden")
    go(browser, f"{address}#case=17")
    assert shown(browser) == [17]
    go(browser, f"{address}#cases=broken")
    broken = browser.run("document.querySelector('[data-filter=broken] .badge').textContent")
    assert state(browser).startswith(f"{broken} of 30 cases")
    assert (
        browser.run("document.querySelector('[data-filter=broken]').getAttribute('aria-pressed')") == "true"
    )
    assert quiet(browser)


def test_a_picture_is_enlarged_and_put_away(browser: Tab, address: str) -> None:
    go(browser, address)
    browser.run("document.querySelector('.regressions .zoom').click()")
    assert browser.run("document.getElementById('viewer').open")
    assert browser.run(
        "document.getElementById('large').src === document.querySelector('.regressions img').src"
    )
    assert "case phantom-" in browser.run("document.getElementById('what').textContent")
    browser.run("document.getElementById('close').click()")
    assert not browser.run("document.getElementById('viewer').open")
    assert quiet(browser)


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_width_needs_scrolling_sideways(browser: Tab, address: str, width: int) -> None:
    browser(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 700
    )
    try:
        go(browser, address)
        assert browser.run("document.documentElement.scrollWidth") <= width
        browser.run("document.getElementById('start').click()")
        assert browser.run("document.documentElement.scrollWidth") <= width
    finally:
        browser("Emulation.clearDeviceMetricsOverride")


def test_headings_names_and_images_are_told(browser: Tab, address: str) -> None:
    go(browser, address)
    levels = browser.run("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert browser.run("[...document.images].filter((i) => i.id !== 'large').every((i) => i.alt.length > 3)")
    nameless = browser.run(
        "[...document.querySelectorAll('button, a, select, input, textarea')].filter((e) =>"
        " !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert nameless == ['<button type="button" id="drill" class="pill" title="Show all cases" hidden="">'
                        "</button>"[:9]] or nameless == []  # fmt: skip
    ids = browser.run("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert browser.run("[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))")


def test_dark_and_paper(browser: Tab, address: str) -> None:
    go(browser, address)
    prefer(browser, "light")
    light = browser.run("getComputedStyle(document.body).backgroundColor")
    prefer(browser, "dark")
    dark = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(251, 250, 248)", "rgb(19, 23, 27)")
    browser("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run("getComputedStyle(document.getElementById('read')).display") == "none"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser("Emulation.setEmulatedMedia", media="", features=[])


def test_a_reader_rates_with_keys_and_the_file_is_scored(
    browser: Tab, pages: tuple[Path, Path], tmp_path: Path
) -> None:
    place, folder = pages
    go(browser, (folder / "reader.html").as_uri())
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.getElementById('start').click()")
    assert browser.run("document.activeElement.id") == "desk"
    position = "document.getElementById('read-place').textContent"
    assert browser.run(position) == "1 of 46, 0 rated"
    # The first: A is better, not correct, harmless. The second: B, no, neither; B is correct.
    for key in "a1133nbt2n":
        browser.press(key)
    assert browser.run(position) == "3 of 46, 2 rated"
    browser.press("p")
    assert browser.run("document.querySelector('input[name=better][value=tie]').checked")
    browser.press("c")
    assert browser.run("document.activeElement.id") == "read-comment"
    browser.type('bad "angle", not mine')
    browser.press("n")  # a letter of the comment, no command
    browser.press("Escape")
    assert browser.run(position) == "2 of 46, 2 rated"
    browser.run("document.getElementById('read-name').value = 'KL';"
                "document.getElementById('read-name').dispatchEvent(new Event('input'))")  # fmt: skip
    browser.run("document.querySelector('#read-item details').open = true")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    browser.run("document.getElementById('read-save').click()")
    until = 200
    while not (made := list(tmp_path.glob("ratings-*-KL.csv"))) and until:
        browser.run("new Promise((done) => setTimeout(done, 50))")
        until -= 1
    lines = made[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    cells = list(csv.reader(lines))
    assert cells[1][5:] == ["a", "no", "", "no", "", "", ""]
    assert cells[2][5:] == ["tie", "", "yes", "", "", "yes", 'bad "angle", not minen']
    found = rated(made, place, resamples=100)
    assert [(r["reader"], r["n"]) for r in found["rows"] if r["question"] == "after preferred"] == [("KL", 2)]
    assert quiet(browser)
    shutil.rmtree(tmp_path)


def test_ratings_outlive_a_reload_and_the_report_hides_itself(browser: Tab, pages: tuple[Path, Path]) -> None:
    go(browser, (pages[1] / "report.html").as_uri())
    browser.run("document.getElementById('start').click()")
    browser.press("b")
    visible = "[...document.querySelectorAll('section')].filter((s) => s.offsetHeight).map((s) => s.id)"
    assert browser.run(visible) == ["read"]
    assert browser.run("document.querySelector('header.top').offsetHeight") == 0
    assert browser.run("document.querySelectorAll('#read-item img').length") == 1
    browser.run("document.getElementById('read-leave').click()")
    assert len(browser.run(visible)) > 6
    browser("Browser.setDownloadBehavior", behavior="deny")
    browser.run("document.getElementById('read-save').click()")  # else the browser asks before it leaves
    go(browser, (pages[1] / "report.html").as_uri())
    browser.run("document.getElementById('start').click()")
    assert browser.run("document.querySelector('input[name=better][value=b]').checked")
    assert quiet(browser)


def test_the_console_is_heard(page: Page, browser: Tab, tmp_path: Path) -> None:
    """A control: a page that breaks its own policy must be noticed, or an empty console proves nothing."""
    render(page, tmp_path / "good.html")
    text = (tmp_path / "good.html").read_text(encoding="utf-8")
    bad = '<script>1</script><img src="https://example.org/x.png"></body>'
    (tmp_path / "bad.html").write_text(text.replace("</body>", bad), encoding="utf-8")
    go(browser, (tmp_path / "bad.html").as_uri())
    assert any("Content Security Policy" in each for each in browser.complaints())
    browser.events.clear()
