"""The report in a real browser: no complaint on its console, and filters that filter."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sightline.report import Page, render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
    "--virtual-time-budget=2000",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page() -> Page:
    path = Path(__file__).parents[1] / "fixtures" / "report" / "study.py"
    spec = importlib.util.spec_from_file_location("report_study", path)
    assert spec is not None
    assert spec.loader is not None
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    made: Page = study.page(cases=6)
    return made


def browse(page: Page, folder: Path, fragment: str) -> tuple[str, str]:
    """The document after its script has run, and what the browser said on its console."""
    render(page, folder / "report.html")
    address = (folder / "report.html").as_uri() + fragment
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_filters_work_and_the_console_stays_empty(page: Page, tmp_path: Path) -> None:
    before, said = browse(page, tmp_path / "plain", "")
    assert said == ""
    assert "6 of 6 cases" in before
    assert not re.search(r'class="filters"[^>]* hidden', before)
    wanted = [
        c for c in page.gallery if any(t["topic"] == "device" and not t["right"]["aligned"] for t in c.turns)
    ]
    after, said = browse(page, tmp_path / "filtered", "#cases=errors,device")
    assert said == ""
    assert f"{len(wanted)} of 6 cases" in after
    cards = re.findall(r'<article class="card"( hidden="")?', after)
    assert sum(not hidden for hidden in cards) == len(wanted) < 6
    assert re.search(r'data-filter="errors" aria-pressed="true"', after)
    other_rows = re.findall(r'<tr data-topic="nodule_left"[^>]*>', after)
    assert other_rows
    assert all("hidden" in row for row in other_rows)


def test_the_console_is_heard(page: Page, tmp_path: Path) -> None:
    """A control: a page that breaks its own policy must be noticed, or an empty console proves nothing."""
    render(page, tmp_path / "good.html")
    text = (
        (tmp_path / "good.html").read_text(encoding="utf-8").replace("</body>", "<script>1</script></body>")
    )
    (tmp_path / "bad.html").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "bad.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Content Security Policy" in done.stderr
