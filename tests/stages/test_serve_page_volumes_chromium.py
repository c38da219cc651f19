"""A volume on the page, in a real browser: plane and slice are chosen, and that slice is what the model is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from browser import CHROMIUM, Tab
from pages import ABOUT, IDLE, LANGUAGES, ask, opened, say, take, words, write
from serving import Parrot, Running, png, running
from sightline.images.formats import nifti
from sightline.images.volume import Volume
from sightline.serve.limits import Limits

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

SHAPE = (20, 30, 40)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Parrot(), about=ABOUT, limits=replace(Limits(), voxels=48**3)) as made:
        yield made


def body(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels [X, Y, Z] from 0 to 255, no two planes alike, that percentiles do not move."""
    made = np.random.default_rng(7).integers(0, 256, shape).astype(np.float32)
    made.flat[: made.size // 50] = 0
    made.flat[-made.size // 50 :] = 255
    return made


def written(place: Path, values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Path:
    nifti.write(place, Volume(values=values, spacing=spacing))
    return place


def given(server: Running) -> np.ndarray:
    """The slice that the model was given last, as grey values [H, W]."""
    pixels = server.backend.asked[-1].pictures[0].pixels
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    made: np.ndarray = np.rint(pixels[..., 0] * 255)
    return made


def choose(tab: Tab, plane: str, number: int) -> None:
    """Choose a plane and a slice."""
    for name, value, event in (("plane", plane, "change"), ("slice", number, "input")):
        control = f"document.getElementById('current-{name}')"
        tab.run(f"{control}.value = '{value}'; {control}.dispatchEvent(new Event('{event}')); 0")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_slice_that_is_shown_is_the_one_that_the_model_is_given(
    browser: Tab, server: Running, tmp_path: Path, language: str
) -> None:
    values, own = body(), words()[language]
    with opened(browser, server, language) as tab:
        take(tab, written(tmp_path / "head.nii.gz", values))
        write(tab, "Where?")
        assert tab.run("document.getElementById('current-plane').value") == "axial"
        assert tab.run("document.getElementById('current-slice').value") == "20"
        assert tab.text("label[for=current-plane]") == own["plane"]
        assert tab.text("label[for=current-slice]") == own["slice"]
        names = tab.run("[...document.getElementById('current-plane').options].map((o) => o.textContent)")
        assert names == [own["axial"], own["coronal"], own["sagittal"]]
        # Against the axes of the body: the patient's right is on the left side, front and head are above.
        right = {
            "axial": (7, values[::-1, ::-1, 6].T, (own["side_0"], own["side_1"])),
            "coronal": (30, values[::-1, 29, ::-1].T, (own["side_0"], own["side_2"])),
            "sagittal": (1, values[0, ::-1, ::-1].T, (own["side_1"], own["side_2"])),
        }
        for plane, (number, wanted, sides) in right.items():
            choose(tab, plane, number)
            count = {"axial": 40, "coronal": 30, "sagittal": 20}[plane]
            place = say(language, "slice_of", number, count)
            assert (
                tab.text("#slot-current .size") == f"{place} · {say(language, 'shown', *wanted.shape[::-1])}"
            )
            assert tab.run("document.getElementById('current-slice').getAttribute('aria-valuetext')") == place
            told = f"{say(language, 'edges', *sides)} {own['slice_given']}"
            assert tab.text("#slot-current .edges") == told
            ask(tab)
            assert np.abs(given(server) - wanted).max() <= 1, plane


def test_voxels_that_are_no_cubes_are_shown_as_wide_and_high_as_they_are(
    browser: Tab, server: Running, tmp_path: Path
) -> None:
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "knee.nii", body(), (0.5, 3.0, 0.5)))
        assert tab.run("document.getElementById('current-plane').value") == "coronal"  # as it was scanned
        write(tab, "Where?")
        ask(tab)
        assert given(server).shape == (40, 20)
        choose(tab, "axial", 5)
        ask(tab)
        assert given(server).shape == (180, 20)


def test_window_and_zoom_change_the_view_and_not_the_slice(
    browser: Tab, server: Running, tmp_path: Path
) -> None:
    values = body()
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "head.nii.gz", values))
        write(tab, "Where?")
        tab.run("document.getElementById('current-centre').focus()")
        tab.press("ArrowRight", 60)
        tab.run("document.getElementById('current-zoom').focus()")
        tab.press("ArrowRight", 10)
        ask(tab)
        assert np.abs(given(server) - values[::-1, ::-1, 19].T).max() <= 1


def test_another_slice_makes_answers_old_and_the_file_tells_which_one_it_was(
    browser: Tab, server: Running, tmp_path: Path
) -> None:
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "head.nii.gz", body()))
        write(tab, "Where?")
        ask(tab)
        tab.run("probe.keep()")
        tab("Browser.setDownloadBehavior", behavior="deny")
        tab.click("#export")
        tab.until("window.kept")
        assert tab.run("JSON.parse(window.kept).slices") == {
            "current": {"plane": "axial", "slice": 20, "of": 40}
        }
        tab.run("document.getElementById('current-slice').focus()")
        tab.press("ArrowRight")
        assert tab.run("document.getElementById('seen').checkVisibility()") is False
        assert tab.run("document.getElementById('current-slice').value") == "21"


def test_of_a_moving_volume_the_first_point_of_time_is_shown(
    browser: Tab, server: Running, tmp_path: Path
) -> None:
    moving = np.stack([body(), 255 - body(), body()], axis=-1)
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "bold.nii.gz", np.ascontiguousarray(moving)))
        assert tab.text("#slot-current .edges").endswith(say("en", "times", 3))
        write(tab, "Where?")
        ask(tab)
        assert np.abs(given(server) - body()[::-1, ::-1, 19].T).max() <= 1


def test_a_picture_after_a_volume_has_no_planes(browser: Tab, server: Running, tmp_path: Path) -> None:
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "head.nii.gz", body()))
        assert tab.run("document.querySelector('#slot-current .cuts').checkVisibility()") is True
        (tmp_path / "a.png").write_bytes(png(50, 60))
        tab.choose("#current-file", tmp_path / "a.png")
        tab.until("document.querySelector('#slot-current .size').textContent.startsWith('50')")
        assert tab.run("document.querySelector('#slot-current .cuts').checkVisibility()") is False
        write(tab, "Where?")
        ask(tab)
        assert server.backend.asked[-1].pictures[0].pixels.shape == (60, 50, 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_volumes_that_cannot_be_read_say_why(
    browser: Tab, server: Running, tmp_path: Path, language: str
) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b no")
    large = written(tmp_path / "large.nii.gz", body((49, 48, 48)))
    with opened(browser, server, language) as tab:
        for path, said in ((tmp_path / "broken.nii.gz", "volume"), (large, str(49 * 48 * 48))):
            tab.run("document.getElementById('problem').textContent = ''")
            tab.choose("#current-file", path)
            tab.until("document.getElementById('problem').textContent")
            assert tab.text("#problem").startswith(words()[language]["refused"].partition("{")[0])
            assert said in tab.text("#problem")
            assert tab.run("document.getElementById('status').textContent") == ""
            assert tab.run("document.querySelector('#slot-current .shown').hidden") is True
        tab.run("document.getElementById('question').value = 'Where?'")
        ask(tab)
        assert tab.text("#problem") == words()[language]["no_image"]
        tab.events.clear()  # the browser itself notes answers of 400 and above on its console


def test_an_unpacked_volume_over_the_limit_is_packed_by_the_browser(browser: Tab, tmp_path: Path) -> None:
    values = np.repeat(body((20, 30, 2)), 20, axis=2)  # compresses well
    path = written(tmp_path / "flat.nii", values)
    limits = replace(Limits(), body=60_000)
    assert path.stat().st_size > 90_000
    with running(Parrot(), about=ABOUT, limits=limits) as made, opened(browser, made) as tab:
        take(tab, path)
        assert tab.run("document.getElementById('current-slice').max") == "40"
        big = written(tmp_path / "noise.nii", body((40, 40, 40)))
        tab.choose("#current-file", big)
        tab.until(f"document.getElementById('problem').textContent === {words()['en']['too_large']!r}")


def test_the_last_of_two_files_counts(browser: Tab, server: Running, tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.nii.gz", body()), written(tmp_path / "b.nii.gz", body((20, 30, 12)))
    slow = "let first = true; const real = window.fetch; window.fetch = async (...given) => { const late = first; "
    slow += "first = false; if (late) await new Promise((done) => setTimeout(done, 1000)); return real(...given); }"
    with opened(browser, server) as tab:
        tab.run(f"{slow}; 0")  # the first one is answered last
        tab.choose("#current-file", first)
        tab.choose("#current-file", second)
        tab.until("document.getElementById('current-slice').max === '12'")
        tab.run("new Promise((done) => setTimeout(done, 1500))")
        assert tab.run("document.getElementById('current-slice').max") == "12"


def test_by_keyboard_alone_to_a_slice(browser: Tab, server: Running, tmp_path: Path) -> None:
    values = body()
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "head.nii.gz", values))
        tab.run("document.activeElement.blur()")
        reached = []
        for _ in range(40):
            tab.press("Tab")
            name = tab.run("document.activeElement.id")
            reached.append(name)
            if name == "current-plane":
                tab.press("ArrowDown")
            if name == "current-slice":
                tab.press("ArrowLeft", 3)
            if name == "question":
                tab.type("Where?")
            if name == "ask":
                break
        tab.press("Enter")
        tab.until(IDLE)
        wanted = ["current-canvas", "current-plane", "current-slice", "current-centre", "question", "ask"]
        assert [name for name in reached if name in wanted] == wanted
        assert tab.run("document.getElementById('current-plane').value") == "coronal"
        assert np.abs(given(server) - values[::-1, 11, ::-1].T).max() <= 1  # the 15th in the middle, less 3


def test_a_slice_of_the_earlier_image(browser: Tab, server: Running, tmp_path: Path) -> None:
    with opened(browser, server) as tab:
        take(tab, written(tmp_path / "a.nii.gz", body()))
        take(tab, written(tmp_path / "b.nii.gz", body((24, 30, 40))), "prior")
        write(tab, "What has changed?")
        ask(tab)
        assert [p.when for p in server.backend.asked[-1].pictures] == ["current", "prior"]
        assert [p.pixels.shape for p in server.backend.asked[-1].pictures] == [(30, 20, 3), (30, 24, 3)]
