"""What the numbers say, in sentences that claim no more than their intervals allow; what changed comes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from .glossary import CHANCE, KINDS, UNITS, inline, kind, label
from .groups import worst_groups
from .markup import Html, bounds, count, digits, el, enumerate_words, estimate, number, p_is, words
from .page import LOWER_IS_BETTER, MOST_CHANCE, Page
from .regressions import balance
from .retrieval import headline

Tone = Literal["good", "caution", "plain"]
TONES = {"good": "Supported", "caution": "Caution", "plain": "Note"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence and how to take it."""

    tone: Tone
    text: str


def headline_metric(page: Page) -> str | None:
    """The first metric, in order of importance, that the last model has on clean images."""
    last = page.models[-1] if page.models else ""
    return next((m for m in page.metrics if page.row(last, "clean", m)), None)


def verdicts(page: Page) -> list[Verdict]:
    """The report's sentences, from the scores and the paired differences alone."""
    metric = headline_metric(page)
    if metric is None:
        return [Verdict("caution", "No score on clean images was given, so this report draws no conclusion.")]
    models = page.models
    found = [_change(page, a, b, metric) for a, b in reversed(list(pairwise(models)))]
    if text := balance(page):
        found.append(Verdict("plain", text))
    found.append(_level(page, models[-1], metric))
    found += [
        v
        for m in reversed(models)
        if (v := _dependence(page, m, metric)) and (m != "base" or len(models) == 1)
    ]
    found += [
        v
        for v in (
            _reports(page, models[-1]),
            _majority(page, models[-1]),
            _extremes(page, models[-1], metric),
        )
        if v
    ]
    found += [Verdict("plain", told) for told in worst_groups(page)]
    return found


def section(page: Page) -> Html:
    """The sentences as a list, each with a mark that differs in shape as well as in colour."""
    items = [
        el(
            "li",
            el("span", _icon(v.tone), el("span", TONES[v.tone] + ": ", class_="unseen")),
            el("p", v.text.replace("p = ", "p\u00a0=\u00a0")),  # no line ends within a p value
            class_=v.tone,
        )
        for v in verdicts(page)
    ]
    return el("ul", items, class_="verdicts")


def tiles(page: Page) -> Html:
    """The three or four numbers to remember."""
    metric = headline_metric(page)
    if metric is None:
        return Html("")
    last = page.models[-1]
    row = page.row(last, "clean", metric) or {}
    cells = [_tile(f"{label(metric)}, {last}", digits(row["value"]), _interval(row))]
    blind = [r for k in page.unseen if (r := page.row(last, k, metric))]
    if blind:
        sign = -1 if metric in LOWER_IS_BETTER else 1
        best = max(blind, key=lambda r: sign * float(r["value"]))
        cells.append(
            _tile(
                "Best without the image",
                digits(best["value"]),
                f"{_interval(best)} · {kind(str(best['image']))}",
            )
        )
    if len(page.models) > 1:
        change = page.pair((last, "clean"), (page.models[-2], "clean"), metric)
        if change:
            cells.append(
                _tile(
                    f"{last} minus {page.models[-2]}",
                    digits(change[0], signed=True),
                    bounds(*change[1:], signed=True),
                )
            )
    if page.majority("accuracy") is not None:
        own = page.row(last, "clean", "accuracy")
        beside = f"{last}: {digits(own['value'])} accuracy" if own else "accuracy"
        cells.append(_tile("Majority baseline", digits(page.majority("accuracy")), beside))
    return el("dl", cells, class_="tiles")


def _tile(name: str, value: str, note: str) -> Html:
    return el("div", el("dt", name), el("dd", el("b", value), el("span", note)))


def _interval(row: Mapping[str, Any]) -> str:
    return bounds(row.get("low"), row.get("high"))


def _icon(tone: Tone) -> Html:
    shape = {"good": "right", "caution": "warn", "plain": "dot"}[tone]
    return el(
        "svg", el("use", href=f"#{shape}"), class_=f"icon {shape}", width=20, height=20, aria_hidden="true"
    )


def _level(page: Page, model: str, metric: str) -> Verdict:
    """How good the last model is, against chance and against the base."""
    row = page.row(model, "clean", metric) or {}
    size = f"{count(row.get('n'))} answers of {count(row.get('patients'))} patients"
    size = f" over {size}" if number(row.get("n")) and number(row.get("patients")) else ""
    guess = CHANCE.get(metric)
    if metric == "balanced_accuracy":
        text = f"With its image, {model} answers {estimate(row)} of findings right (balanced accuracy){size}"
    else:
        text = f"With its image, {model} reaches {inline(metric)} {estimate(row)}{size}"
    base = page.row("base", "clean", metric) if model != "base" else None
    text += f"; before training it was {estimate(base)}." if base else "."
    low, high = number(row.get("low")), number(row.get("high"))
    if guess is None:
        return Verdict("plain", text)
    if low is not None and low > guess:
        return Verdict("good", f"{text} Chance is {digits(guess)}.")
    if high is not None and high < guess:
        return Verdict("caution", f"{text} That is worse than chance ({digits(guess)}).")
    return Verdict("caution", f"{text} That cannot be told from chance ({digits(guess)}).")


def _dependence(page: Page, model: str, metric: str) -> Verdict | None:
    """Whether a model's answers need the image: clean against each kind of missing image."""
    clean = page.row(model, "clean", metric)
    blind = [(k, r) for k in page.unseen if (r := page.row(model, k, metric))]
    if clean is None or not blind:
        return None
    fallen = [k for k, row in blind if _falls(page, model, k, metric, clean, row)]
    listed = enumerate_words([f"{digits(r['value'])} with {kind(k)}" for k, r in blind])
    text = f"Without its image, {model} goes from {digits(clean['value'])} to {listed}"
    known = set(KINDS) >= {k for k, _ in blind}
    what = "image" if known else "clean image"
    if len(fallen) == len(blind):
        return Verdict("good", f"{text}: the answers depend on the {what}.")
    if fallen:
        return Verdict(
            "caution", f"{text}: a fall beyond chance only for {enumerate_words([kind(k) for k in fallen])}."
        )
    return Verdict("caution", f"{text}: no sign in these figures that the answers depend on the {what}.")


def _falls(
    page: Page, model: str, image: str, metric: str, clean: Mapping[str, Any], blind: Mapping[str, Any]
) -> bool:
    """Whether clean beats blind: by the paired interval where there is one, else by intervals apart."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    pair = page.pair((model, "clean"), (model, image), metric)
    if pair:
        return min(sign * pair[1], sign * pair[2]) > 0
    ends = [
        number(clean.get("low")),
        number(clean.get("high")),
        number(blind.get("low")),
        number(blind.get("high")),
    ]
    low, high, blind_low, blind_high = ends
    if low is None or high is None or blind_low is None or blind_high is None:
        return False
    return low > blind_high if sign > 0 else high < blind_low


def _change(page: Page, before: str, after: str, metric: str) -> Verdict:
    """What a training step changed, by the paired difference on clean images."""
    pair = page.pair((after, "clean"), (before, "clean"), metric)
    if pair is None:
        return Verdict(
            "plain",
            f"{after} and {before} were not compared in pairs on clean images, so no "
            "claim is made about which is better.",
        )
    unit = f" {UNITS[metric]}" if metric in UNITS else ""
    size = f"{digits(pair[0], signed=True)}{unit} {bounds(pair[1], pair[2], signed=True)}"
    p = page.chance((after, "clean"), (before, "clean"), metric)
    size += "" if p is None else f", {p_is(p)}"
    text = f"{inline(metric)} {size} on the same answers"
    found = page.shown((after, "clean"), (before, "clean"), metric)
    if found > 0:
        return Verdict("good", f"{after} is better than {before}: {text}.")
    if found < 0:
        return Verdict("caution", f"{after} is worse than {before}: {text}.")
    why = (
        "the interval includes 0"
        if pair[1] <= 0 <= pair[2]
        else f"p is not below {MOST_CHANCE}, corrected for all tests"
    )
    return Verdict("plain", f"{after} is not shown to differ from {before}: {text}; {why}.")


def _reports(page: Page, model: str) -> Verdict | None:
    """What retrieved reports do to the last model, by the paired difference on clean images."""
    metric = headline(page)
    pair = page.pair((model, "clean"), (model, "unaided"), metric) if metric else None
    if metric is None or pair is None:
        return None
    size = f"{digits(pair[0], signed=True)} {bounds(pair[1], pair[2], signed=True)}"
    text = f"The retrieved reports change the {inline(metric)} of {model} by {size}"
    if pair[1] > 0:
        return Verdict("good", f"{text}: they help.")
    if pair[2] < 0:
        return Verdict("caution", f"{text}: they harm.")
    return Verdict(
        "plain", f"{text}: the interval includes 0, so they are shown neither to help nor to harm."
    )


def _majority(page: Page, model: str) -> Verdict | None:
    """Accuracy beside what the commonest answer would score."""
    row, easy = page.row(model, "clean", "accuracy"), page.majority("accuracy")
    if row is None or easy is None:
        return None
    text = f"Always giving the commonest answer would be right {digits(easy)} of the time; {model} is right "
    text += f"{estimate(row)} of the time"
    low, high = number(row.get("low")), number(row.get("high"))
    if low is not None and low > easy:
        return Verdict("good", f"{text}.")
    if high is not None and high < easy:
        return Verdict("caution", f"{text}, which is less.")
    return Verdict("caution", f"{text}, which is not shown to be more.")


def _extremes(page: Page, model: str, metric: str) -> Verdict | None:
    """The weakest and the strongest finding."""
    finite = page.findings(model, metric)
    if len(finite) < 2:
        return None
    ends = sorted(finite, key=lambda name: finite[name], reverse=metric in LOWER_IS_BETTER)
    weak, strong = ends[0], ends[-1]
    return Verdict(
        "plain",
        f"Weakest finding: {words(weak)} ({digits(finite[weak])}); strongest: {words(strong)} "
        f"({digits(finite[strong])}).",
    )
