"""The page as a whole: head, sections in reading order, and the file.

The policy in the head allows nothing but this file's own style and script (by hash) and embedded images, so a
report can be opened beside patient data without reaching any network.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from . import model_card, tables
from .calibration import confidence
from .confusion import confusion
from .encoders import encoders
from .gallery import dialog, gallery
from .glossary import glossary
from .groups import groups
from .looking import looking
from .markup import Html, el
from .mistakes import mistakes
from .page import Page
from .provenance import provenance
from .reader import reader
from .regressions import regressions
from .retrieval import retrieval
from .verdict import section as verdict_section
from .verdict import tiles

FOLDER = Path(__file__).parent
STYLES, SCRIPTS = ("page.css", "read.css"), ("page.js", "cases.js", "read.js")
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
        "Scores on clean images with 95 % intervals; below each, what the step before it changed, tested on the same "
        "answers. Bold marks the best model, and only where it is shown to beat the runner-up.",
    ),
    (
        "broken",
        "Worst regressions",
        "Answers that were right before the last step and are wrong after it; what cost the right answer most comes "
        "first.",
    ),
    (
        "findings",
        "By finding",
        "Clean images, the best finding of the last model first. Choose a count of errors to see the cases behind it.",
    ),
    (
        "groups",
        "By subgroup",
        "Clean images, the worst group of the last model first. The gap is the best group minus the worst.",
    ),
    (
        "blind",
        "Does it look at the image?",
        "The same questions with the clean image (filled) and with none that could help "
        "(hollow): random noise, a black image, or, swapped, another patient's. A model "
        "that looks falls to chance without it.",
    ),
    (
        "encoders",
        "Are the right reports found?",
        "Pictures and reports of the test split look for each other, by the encoder that reports are searched with. In "
        "the map images are filled and reports hollow: what the encoder takes to be alike lies near each other.",
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
    (
        "paired",
        "Paired differences",
        "Both sides answered the same questions of the same patients. A hollow mark means that "
        "the interval includes 0.",
    ),
    ("cases", "Cases", "The worst regression first, then most errors. Choose a picture to enlarge it."),
    ("read", "Read blinded", "For a person who judges answers without knowing which model gave them."),
    ("card", "Model card", "Made from what the run knows; also written as model_card.md beside this file."),
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
    "broken": "Regressions",
    "findings": "Findings",
    "groups": "Subgroups",
    "blind": "Blind test",
    "encoders": "Encoder",
    "retrieval": "Reports",
    "confidence": "Confidence",
    "paired": "Differences",
    "cases": "Cases",
    "read": "Read blinded",
    "card": "Model card",
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
    "The p values are those of the evaluation, corrected after Holm over all its comparisons. A difference is called "
    "better or worse where its interval excludes 0 and its p value is below 0.05.",
)


def render(page: Page, out: Path, *, blinded: bool = False) -> None:
    """Write the report as one HTML file; the same page gives the same bytes.

    Args:
        page: what to show.
        out: the file to write; its folder is made if it is absent.
        blinded: write the blinded reader alone: no names of models and no scores.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.part")
    # A lone surrogate in a model's answer must not lose the report, so it becomes a question mark.
    fresh.write_bytes(document(page, blinded=blinded).encode("utf-8", "replace"))
    os.replace(fresh, out)


def document(page: Page, *, blinded: bool = False) -> Html:
    """The whole file as text."""
    style, script = (
        Html("".join((FOLDER / n).read_text(encoding="utf-8") for n in names)) for names in (STYLES, SCRIPTS)
    )
    blocks = {"read": reader(page, alone=True)} if blinded else _blocks(page)
    top = el("header", el("h1", "Blinded reading"), class_="top") if blinded else _header(page, list(blocks))
    body = el(
        "body",
        ICONS,
        None if blinded else el("a", "Skip to the results", href="#main", class_="skip"),
        el("p", page.notice, class_="notice"),
        top,
        el(
            "main",
            [_section(*part, blocks[part[0]]) for part in SECTIONS if part[0] in blocks],
            None if blinded else _method(page),
            id="main",
        ),
        _footer(page),
        dialog() if page.gallery else None,
        el("script", script),
    )
    return Html(f"<!DOCTYPE html>\n{el('html', _head(page, style, script), body, lang='en')}\n")


def _head(page: Page, style: Html, script: Html) -> Html:
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return el(
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


def _footer(page: Page) -> Html:
    warning = (
        "This file holds pictures and record names: share it as you would share the data it was made from."
    )
    return el("footer", el("p", page.notice), el("p", warning))


def _blocks(page: Page) -> dict[str, Html]:
    """The sections that have something to show, in the order of reading."""
    built = {
        "scores": tables.before_after(page),
        "broken": regressions(page),
        "blind": Html(tables.blind(page) + looking(page)),
        "encoders": encoders(page),
        "retrieval": retrieval(page),
        "confidence": confidence(page),
        "findings": Html(tables.findings(page) + mistakes(page) + confusion(page)),
        "groups": groups(page),
        "paired": tables.forest(page),
        "cases": gallery(page),
        "read": reader(page),
        "card": model_card.html(page),
        "training": tables.curves(page),
        "provenance": provenance(page),
    }
    return {name: built[name] for name, _, _ in SECTIONS if built[name]}


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
