"""Every metric plug-in has a card, which holds what a reader needs to trust a number, and whose example runs it.

A card is the section `## NAME` of a page below docs/metrics, or the page NAME.md. Its Python blocks are run by
`test_docs.py`.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path

import pytest

from sightline import plugins

FOLDER = Path(__file__).parents[2] / "docs" / "metrics"
METRICS = plugins.names("metrics")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## `?(\w+)`?\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
# What a card says, by how it may say it: in a row of its table, or in a sentence of a short card.
SAID = {
    "source": r"^\| source \| .{10,}|\bSource: |\(\w+ et al\. (?:19|20)\d\d, arXiv",
    "range": r"^\| range \| .{3,}|^\|.*\| range \||\b0-1\b|\b0-100\b|\b0-10\b|at most 1\b",
    "direction": r"\b(?:higher|lower)\b|\bbetter\b|cosines|\b0-1\b|\b0-100\b|\b0-10\b",
    "known faults": r"\bKnown\s+faults\b",
}


@cache
def sections() -> dict[str, str]:
    """Every section of every page by its heading."""
    texts = [page.read_text(encoding="utf-8") for page in sorted(FOLDER.glob("*.md"))]
    return {name: text for page in texts for name, text in SECTION.findall(page)}


def card(name: str) -> str:
    """The card of a metric; "" where there is none."""
    if name in sections():
        return sections()[name]
    page = FOLDER / f"{name}.md"
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def test_there_are_cards() -> None:
    assert len(METRICS) == 18
    assert [name for name in METRICS if not card(name)] == []


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("name", METRICS)
def test_a_card_says_it(name: str, what: str) -> None:
    assert re.search(SAID[what], card(name), re.MULTILINE), f"the card of {name} does not say its {what}"


@pytest.mark.parametrize("name", METRICS)
def test_a_card_has_the_version_of_the_code(name: str) -> None:
    told = re.findall(r"^\| version \| (\d+)|\bVersion (\d+)\b", card(name), re.MULTILINE)
    assert {int(row or sentence) for row, sentence in told} == {plugins.load("metrics", name).version}


@pytest.mark.parametrize("name", METRICS)
def test_a_worked_example_runs_the_metric_and_asserts_a_number(name: str) -> None:
    examples = [text for text in BLOCK.findall(card(name)) if "assert" in text]
    loaded = re.compile(rf'plugins\.load\("metrics", "{name}"\)|\bvalues\("{name}"')
    own = re.compile(rf"from sightline\.metrics\.{name} import")  # where the metric needs another program
    assert any(loaded.search(text) or own.search(text) for text in examples)


@pytest.mark.parametrize("name", METRICS)
def test_every_option_is_one_that_the_docstring_says(name: str) -> None:
    module = importlib.import_module(f"sightline.metrics.{name}")
    described = getattr(module, plugins.source("metrics", name)[1]).__doc__ or ""
    assert [key for key in plugins.options("metrics", name) if f"{key}:" not in described] == []


def test_the_table_of_metrics_leads_to_every_card() -> None:
    page = (FOLDER.parent / "measuring.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| `")]
    first = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows]
    named = {name for names in first for name in names}
    assert named >= set(METRICS)
    linked = [row for row, names in zip(rows, first, strict=True) if set(names) & set(METRICS)]
    assert [row for row in linked if "](metrics/" not in row] == []
