"""The server's page in a browser: its texts, and what tests do on it again and again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from browser import Tab
from serving import Parrot, Running
from sightline.retrieval.found import Found
from sightline.retrieval.report import Report
from sightline.serve.backend import Identity
from sightline.types import Sample

PAGE = Path(__file__).parents[1] / "src" / "sightline" / "serve" / "page"
PROBE = Path(__file__).parent / "fixtures" / "serve" / "probe.js"
ABOUT = {"questions": ["Is there an effusion?", "Is the heart enlarged?"], "report": "Describe the findings."}
LANGUAGES = ("en", "zh", "ko")
READY = "document.body && document.body.dataset.ready"
IDLE = "!document.getElementById('ask').disabled"
BEFORE = Identity(name="tiny/before", sha256="cd" * 32, facts={"family": "llava"})


def words() -> dict[str, dict[str, str]]:
    """The texts of the page by language, read from its own file."""
    text = (PAGE / "words.js").read_text(encoding="utf-8")
    made: dict[str, dict[str, str]] = {}
    for language, block in re.findall(r"^  (\w\w): \{\n(.*?)^  \},", text, re.DOTALL | re.MULTILINE):
        made[language] = dict(re.findall(r'(\w+): "([^"]*)"', block))
    return made


def say(language: str, key: str, *values: object) -> str:
    """A text with its values, as the page writes it."""
    text = words()[language][key]
    for place, value in enumerate(values):
        text = text.replace(f"{{{place}}}", str(value))
    return text


def begin(tab: Tab, url: str) -> None:
    """Open the page, and read in what looks at it."""
    tab.open(url, READY)
    tab.run(PROBE.read_text(encoding="utf-8") + "; 0")


@contextmanager
def opened(browser: Tab, server: Running, language: str = "en") -> Iterator[Tab]:
    """The page, freshly opened; in the end its console must be empty and nobody else asked."""
    browser.events.clear()
    browser("Emulation.clearDeviceMetricsOverride")
    browser("Page.navigate", url="about:blank")
    begin(browser, f"{server.url}/#lang={language}")
    yield browser
    assert browser.complaints() == []
    places = {re.match(r"^[a-z]+:(//[^/]*)?", url)[0] for url in browser.asked()}  # type: ignore[index]
    assert places <= {server.url, "data:", "blob:", "about:"}


def take(tab: Tab, image: Path, when: str = "current") -> None:
    """Choose a file."""
    tab.choose(f"#{when}-file", image)
    tab.until(f"!document.querySelector('#slot-{when} .shown').hidden")


def write(tab: Tab, question: str) -> None:
    """Put a question into its field."""
    tab.run("document.getElementById('question').value = ''; document.getElementById('question').focus()")
    tab.type(question)


def ask(tab: Tab, button: str = "#ask") -> None:
    """Press a button that asks, and wait for the end."""
    tab.click(button)
    tab.until(IDLE)


def before(**more: object) -> Parrot:
    """The model before: it says something else."""
    return Parrot(identity=BEFORE, words=("No", " effusion", "."), **more)  # type: ignore[arg-type]


def similar(number: int, text: str, **more: str) -> Report:
    """A report of an index."""
    return Report(id=f"r{number}", patient=f"p{number}", split="train", text=text, **more)  # type: ignore[arg-type]


@dataclass
class Stand:
    """Finds the same reports whatever is asked; the first one is shown to models that read any."""

    reports: tuple[Report, ...] = (similar(1, "Small left effusion."), similar(2, "Heart size normal."))
    similarities: tuple[float, ...] = (0.9312, 0.5)
    behind: tuple[int, ...] = (3, 1)
    asked: list[tuple[Sample, Mapping[str, np.ndarray]]] = field(default_factory=list)

    def find(self, sample: Sample, root: Path, held: Mapping[str, np.ndarray] | None = None) -> Found:
        self.asked.append((sample, held or {}))
        return Found(
            sample=sample, reports=self.reports, similarities=self.similarities, behind=self.behind,
            kept=min(1, len(self.reports)),
        )  # fmt: skip
