"""The page as a whole: head, sections in reading order, and the file.

The policy in the head allows nothing but this file's own style and script (by hash) and embedded images, so a
report can be opened beside patient data without reaching any network.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import tables
from .calibration import confidence
from .gallery import gallery
from .glossary import glossary
from .markup import Html, duration, el, plain
from .page import Page
from .retrieval import retrieval
from .verdict import section as verdict_section
from .verdict import tiles

FOLDER = Path(__file__).parent
ICONS = Html(
    '<svg width="0" height="0" class="unseen" aria-hidden="true"><defs>'
    '<symbol id="right" viewBox="0 0 20 20"><circle cx="10" cy="10" r="9"/>'
    '<path d="M5.8 10.4l2.9 2.9 5.6-6.2"/></symbol>'
    '<symbol id="wrong" viewBox="0 0 20 20"><rect x="1.5" y="1.5" width="17" height="17" rx="3.5"/>'
    '<path d="M6.4 6.4l7.2 7.2M13.6 6.4l-7.2 7.2"/></symbol>'
    '<symbol id="warn" viewBox="0 0 20 20"><path class="body" d="M10 1.6L19 18H1Z"/>'
    '<path d="M10 7.4v5M10 15v.4"/></symbol>'
    '<symbol id="dot" viewBox="0 0 20 20"><circle cx="10" cy="10" r="4"/></symbol>'
    "</defs></svg>"
)
SECTIONS = (
    (
        "scores",
        "Before and after",
        "Scores on clean images with 95 % intervals. Bold marks the best model, and only where "
        "its paired difference from the runner-up has an interval that excludes 0.",
    ),
    (
        "blind",
        "Does it look at the image?",
        "The same questions with the clean image (filled) and with none that could help "
        "(hollow): random noise, a black image, or, swapped, another patient's. A model "
        "that looks falls to chance without it.",
    ),
    (
        "retrieval",
        "With and without retrieved reports",
        "The same questions about the clean image, with the reports of similar images in the prompt and without. "
        "Of which answers each rate is a share stands under What the metrics mean.",
    ),
    (
        "confidence",
        "How sure is it?",
        "Answers that were picked among choices, clean images. Dots on the dashed line: as often right as sure. Below "
        "it, the model is too sure.",
    ),
    ("findings", "By finding", "Clean images, the best finding of the last model first."),
    (
        "paired",
        "Paired differences",
        "Both sides answered the same questions of the same patients. A hollow mark means that "
        "the interval includes 0.",
    ),
    ("cases", "Cases", "Cases with most errors first. Choose a picture to enlarge it."),
    (
        "training",
        "Training",
        "Values logged at each step; over long curves the thick line is a running mean.",
    ),
    (
        "provenance",
        "Where the numbers come from",
        "Each stage, its content hash and the stages that it read.",
    ),
)
TABS = {
    "scores": "Scores",
    "blind": "Blind test",
    "retrieval": "Reports",
    "confidence": "Confidence",
    "findings": "Findings",
    "paired": "Differences",
    "cases": "Cases",
    "training": "Training",
    "provenance": "Provenance",
}
INTERVALS = (
    "Intervals are 95 % intervals of a patient-clustered bootstrap with 1000 resamples: patients, not answers, "
    "are drawn with replacement, because the answers of one patient resemble each other. Their ends are "
    "bias-corrected and accelerated percentiles (BCa), taken further out by Student's t where patients are few.",
    "Differences are paired: each resample draws the same patients for both sides, so what makes a patient "
    "hard cancels out.",
    "Patients needed are those who would show the observed difference with 80 % power at the 5 % level, if they "
    "vary as these do and have as many images. The observed difference is uncertain itself, so take it as an order "
    "of magnitude.",
    "The p values are those of the evaluation. This page makes no correction of its own for the number of "
    "comparisons, so read a lone small p value among many with care.",
)


def render(page: Page, out: Path) -> None:
    """Write the report as one HTML file; the same page gives the same bytes.

    Args:
        page: what to show.
        out: the file to write; its folder is made if it is absent.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.part")
    # A lone surrogate in a model's answer must not lose the report, so it becomes a question mark.
    fresh.write_bytes(document(page).encode("utf-8", "replace"))
    os.replace(fresh, out)


def document(page: Page) -> Html:
    """The whole file as text."""
    style, script = (Html((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        # The policy stands before all else because it rules only what follows it.
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", page.title),
        el("style", style),
    )
    blocks = _blocks(page)
    body = el(
        "body",
        ICONS,
        el("a", "Skip to the results", href="#main", class_="skip"),
        el("p", page.notice, class_="notice"),
        _header(page, [name for name, _, _ in SECTIONS if name in blocks]),
        el(
            "main",
            [_section(*part, blocks[part[0]]) for part in SECTIONS if part[0] in blocks],
            _method(page),
            id="main",
        ),
        el(
            "footer",
            el("p", page.notice),
            el(
                "p",
                "This file holds pictures and record names: share it as you would share the "
                "data it was made from.",
            ),
        ),
        el("script", script),
    )
    return Html(f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n")


def _blocks(page: Page) -> dict[str, Html]:
    """The sections that have something to show."""
    built = {
        "scores": tables.before_after(page),
        "blind": tables.blind(page),
        "retrieval": retrieval(page),
        "confidence": confidence(page),
        "findings": tables.findings(page),
        "paired": tables.forest(page),
        "cases": gallery(page),
        "training": tables.curves(page),
        "provenance": _provenance(page),
    }
    return {name: block for name, block in built.items() if block}


def _header(page: Page, present: list[str]) -> Html:
    links = [el("a", TABS[name], href=f"#{name}") for name in present]
    notes = None
    if page.notes:
        icon = el("svg", el("use", href="#warn"), class_="icon warn", width=20, height=20, aria_hidden="true")
        items = [el("li", note) for note in page.notes]
        notes = el(
            "aside",
            icon,
            el("div", el("h2", "Warnings"), el("ul", items)),
            class_="warnings",
            aria_label="Warnings",
        )
    return Html(
        el("header", el("h1", el("bdi", page.title)), verdict_section(page), tiles(page), notes, class_="top")
        + (el("nav", links, aria_label="Sections") if links else "")
    )


def _section(name: str, title: str, lead: str, block: Html) -> Html:
    return el(
        "section",
        el("h2", title, id=f"{name}-title"),
        el("p", lead, class_="lead"),
        block,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _provenance(page: Page) -> Html:
    blocks = []
    if page.stages:
        heads = (
            ("Name", None),
            ("Stage", None),
            ("Content", None),
            ("Read", None),
            ("Time", "number"),
            ("Machine", None),
        )
        head = el("tr", [el("th", text, scope="col", class_=kind) for text, kind in heads])
        table = el("table", el("thead", head), el("tbody", [_stage(s) for s in page.stages]), class_="stages")
        blocks.append(el("div", table, class_="scroll", role="region", aria_label="Stages", tabindex=0))
        versions = {str(s.get("name", "")): plain(s["versions"]) for s in page.stages if s.get("versions")}
        if versions:
            distinct = {text: [n for n, t in versions.items() if t == text] for text in versions.values()}
            lines = [el("p", el("b", ", ".join(n)), ": ", text) for text, n in distinct.items()]
            blocks.append(el("details", el("summary", "Software versions"), lines))
    if page.audit:
        entries = tables.rows_of((name, plain(value)) for name, value in page.audit.items())
        blocks.append(
            el("details", el("summary", "Data audit"), el("dl", entries, class_="facts"), open=True)
        )
    if page.command:
        blocks.append(
            el("details", el("summary", "Command"), el("pre", el("code", page.command), tabindex=0))
        )
    if page.recipe:
        blocks.append(
            el("details", el("summary", "Recipe as run"), el("pre", el("code", page.recipe), tabindex=0))
        )
    return Html("".join(blocks))


def _stage(stage: Mapping[str, Any]) -> Html:
    content = str(stage.get("content", ""))
    return el(
        "tr",
        el("th", str(stage.get("name", "")), scope="row"),
        el("td", stage.get("stage", "")),
        el("td", el("code", content[:12], title=content)),
        el("td", plain(stage.get("parents")) or "–"),
        el("td", duration(stage.get("seconds")), class_="number"),
        el("td", plain(stage.get("machine"))),
    )


def _method(page: Page) -> Html:
    how = el("details", el("summary", "How the intervals were made"), [el("p", text) for text in INTERVALS])
    return el(
        "section",
        el("h2", "Reading this report", id="method-title"),
        glossary(page),
        how,
        id="method",
        aria_labelledby="method-title",
    )


def _digest(text: str) -> str:
    """A policy's hash source for an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
