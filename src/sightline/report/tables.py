"""The report's figures made of rows: before and after, blind images, findings, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .charts import Dot, Scale, bar, curve, key, points_of, ruler, scale, track
from .glossary import CHANCE, UNITS, kind, label
from .markup import Html, bounds, chance, count, digits, el, number, p_is, scroll, words
from .page import LOWER_IS_BETTER, RELIANCE, Page
from .verdict import headline_metric

BLIND_METRICS = ("balanced_accuracy", "margin")
CURVES = ("loss", "margin", "accuracy", "lr")
MAX_CURVES = 6
TONES = {1: ("good", "better"), -1: ("bad", "worse"), 0: ("open", "not shown to differ")}
TITLES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "learning_rate": "Learning rate",
    "margin": "Reward margin",
    "accuracy": "Preference accuracy",
    "grad_norm": "Gradient norm",
}


def before_after(page: Page) -> Html:
    """Metrics by models on clean images; bold only where the best is shown to be."""
    shown = [m for m in page.metrics if m not in RELIANCE]
    metrics = [m for m in shown if any(page.row(model, "clean", m) for model in page.models)]
    models = [m for m in page.models if any(page.row(m, "clean", metric) for metric in metrics)]
    if not metrics:
        return Html("")
    baseline = any(_easy(page, metric)[0] is not None for metric in metrics)
    heads = [el("th", key(m, page.models.index(m)), scope="col") for m in models]
    head = el(
        "tr", el("th", "Metric", scope="col"), heads, el("th", "Baseline", scope="col") if baseline else None
    )
    body = [_metric_row(page, metric, models, baseline) for metric in metrics]
    return scroll(
        el("table", el("thead", head), el("tbody", body), class_="scores"), "Scores on clean images"
    )


def blind(page: Page) -> Html:
    """Every model on every kind of image, with the chance line; hollow marks are scores without the image."""
    shown = [m for m in BLIND_METRICS if _has_blind(page, m)]
    if not shown and (fallback := headline_metric(page)) and _has_blind(page, fallback):
        shown = [fallback]
    return el("div", [_blind_panel(page, metric) for metric in shown], class_="panels") if shown else Html("")


def findings(page: Page) -> Html:
    """One row a finding, one mark a model, the last model's best finding first."""
    metric = next((m for m in page.metrics if any(page.findings(model, m) for model in page.models)), None)
    if metric is None:
        return Html("")
    models = [m for m in page.models if page.findings(m, metric)]
    values = {m: page.findings(m, metric) for m in models}
    names = list(dict.fromkeys(name for m in reversed(models) for name in values[m]))
    sign = 1 if metric in LOWER_IS_BETTER else -1
    names.sort(key=lambda name: sign * values[models[-1]].get(name, float("-inf")))
    line = CHANCE.get(metric)
    axis = scale([v for m in models for v in values[m].values()] + [line])
    heads = [el("th", key(m, page.models.index(m)), scope="col", class_="number") for m in models]
    head = el(
        "tr", el("th", "Finding", scope="col"), el("th", label(metric), scope="col", class_="plot"), heads
    )
    body = []
    for name in names:
        dots = [
            Dot(value=values[m][name], series=page.models.index(m), y=14.0)
            for m in models
            if name in values[m]
        ]
        cells = [el("td", digits(values[m].get(name)), class_="number") for m in models]
        body.append(
            el(
                "tr",
                el("th", el("bdi", words(name)), scope="row"),
                el("td", track(axis, dots, line=line)),
                cells,
            )
        )
    foot = el("tr", el("td"), el("td", _ruler(axis, line)), [el("td") for _ in models])
    table = el(
        "table",
        el("thead", head),
        el("tbody", body),
        el("tfoot", foot, aria_hidden="true"),
        class_="dots wide",
    )
    return scroll(table, f"{label(metric)} for each finding")


def forest(page: Page) -> Html:
    """Paired differences with their intervals and the line at zero, one panel a metric."""
    metrics = list(dict.fromkeys(str(entry["metric"]) for entry in page.paired))
    return Html("".join(_forest_panel(page, metric) for metric in metrics))


def curves(page: Page) -> Html:
    """What was logged during training, one row of small charts a stage."""
    blocks = []
    for stage, records in page.curves.items():
        names = list(
            dict.fromkeys(str(k) for record in records for k in record if k not in ("step", "epoch"))
        )
        names.sort(key=lambda n: CURVES.index(n) if n in CURVES else len(CURVES))
        drawn = [(n, points) for n in names if (points := points_of(records, n))][:MAX_CURVES]
        if not drawn:
            continue
        series = page.models.index(stage) if stage in page.models else 1
        blocks += [
            el("h3", key(stage, series)),
            el("div", [_figure(stage, *d, series) for d in drawn], class_="curves"),
        ]
    return Html("".join(blocks))


def _figure(stage: str, name: str, points: list[tuple[float, float]], series: int) -> Html:
    steady = name in ("lr", "learning_rate")
    drawn = curve(points, name=f"{stage}, {words(name)}", series=series, smooth=not steady)
    return el("figure", el("figcaption", TITLES.get(name, words(name).capitalize())), drawn, class_="small")


def _metric_row(page: Page, metric: str, models: list[str], baseline: bool) -> Html:
    rows = {m: page.row(m, "clean", metric) for m in models}
    easy, easy_name = _easy(page, metric)
    numbers = [row.get(k) for row in rows.values() if row for k in ("value", "low", "high")]
    axis = scale([*numbers, easy], count=3)
    best = _best(page, metric, rows)
    cells = [
        _score(rows[m], axis, page.models.index(m), easy, m == best, _change(page, metric, models, place))
        for place, m in enumerate(models)
    ]
    if baseline:
        base = (
            [el("span", digits(easy), class_="value"), el("span", easy_name, class_="ci")]
            if easy is not None
            else "–"
        )
        cells.append(el("td", base, class_="baseline"))
    unit = el("span", UNITS[metric], class_="unit") if metric in UNITS else None
    return el("tr", el("th", label(metric), unit, scope="row"), cells)


def _score(
    row: Mapping[str, Any] | None,
    axis: Scale,
    series: int,
    line: float | None,
    best: bool,
    change: Html | None,
) -> Html:
    if row is None:
        return el("td", "–")
    value = digits(row["value"])
    shown = (
        el("strong", value, class_="value", title="best; shown to beat the runner-up")
        if best
        else el("span", value, class_="value")
    )
    small = bar(axis, _dot(row, series, y=9.0), line=line)
    return el("td", shown, el("span", bounds(row.get("low"), row.get("high")), class_="ci"), small, change)


def _change(page: Page, metric: str, models: Sequence[str], place: int) -> Html | None:
    """What a step changed, with its interval, its p value and what that shows, in words as well as in colour."""
    if not place:
        return None
    sides = (models[place], "clean"), (models[place - 1], "clean")
    pair = page.pair(*sides, metric)
    if pair is None:
        return None
    tone, word = TONES[page.shown(*sides, metric)]
    p = page.chance(*sides, metric)
    text = f"{digits(pair[0], signed=True)} {bounds(*pair[1:], signed=True)}"
    if p is not None:
        text += f", {p_is(p)}".replace(" = ", "\u00a0=\u00a0")  # no line ends within it
    return el("div", text, el("span", word, class_=f"tone {tone}"), class_="change")


def _best(page: Page, metric: str, rows: Mapping[str, Mapping[str, Any] | None]) -> str | None:
    """The best model, if it is shown to beat the runner-up."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    order = sorted(
        (m for m, row in rows.items() if row), key=lambda m: -sign * float((rows[m] or {})["value"])
    )
    if len(order) < 2 or page.shown((order[0], "clean"), (order[1], "clean"), metric) <= 0:
        return None
    return order[0]


def _easy(page: Page, metric: str) -> tuple[float | None, str]:
    majority = page.majority(metric)
    return (majority, "majority") if majority is not None else (CHANCE.get(metric), "chance")


def _has_blind(page: Page, metric: str) -> bool:
    return any(page.row(m, k, metric) for m in page.models for k in page.blind)


def _blind_panel(page: Page, metric: str) -> Html:
    kinds = ["clean", *page.blind]
    rows = [r for m in page.models for k in kinds if (r := page.row(m, k, metric))]
    line = CHANCE.get(metric)
    axis = scale([r.get(k) for r in rows for k in ("value", "low", "high")] + [line])
    bodies = []
    for index, model in enumerate(page.models):
        lines = [_blind_row(r, axis, index, line) for k in kinds if (r := page.row(model, k, metric))]
        if lines:
            title = el("tr", el("th", key(model, index), colspan=3, scope="rowgroup"), class_="group")
            bodies.append(el("tbody", title, lines))
    foot = el("tr", el("td"), el("td", _ruler(axis, line)), el("td"))
    unit = f", {UNITS[metric]}" if metric in UNITS else ""
    columns = el("colgroup", el("col", class_="name"), el("col"), el("col", class_="figure"))
    table = el(
        "table",
        columns,
        bodies,
        el("tfoot", foot, aria_hidden="true"),
        class_="dots",
        aria_label=f"{label(metric)} by image",
    )
    return el("figure", el("figcaption", el("b", label(metric)), unit), table)


def _blind_row(row: Mapping[str, Any], axis: Scale, series: int, line: float | None) -> Html:
    image = str(row["image"])
    value = [
        el("span", digits(row["value"]), class_="value"),
        el("span", bounds(row.get("low"), row.get("high")), class_="ci"),
    ]
    return el(
        "tr",
        el("th", words(image), scope="row", title=kind(image)),
        el("td", track(axis, [_dot(row, series, image != "clean")], line=line)),
        el("td", value, class_="number"),
    )


def _forest_panel(page: Page, metric: str) -> Html:
    entries = [e for e in page.paired if e["metric"] == metric and number(e["difference"]) is not None]
    if not entries:
        return Html("")
    axis = scale([e.get(k) for e in entries for k in ("difference", "low", "high")] + [0.0])
    heads = ("Question", "", "Difference", "p", "Answers", "Patients")
    kinds = ("", "plot", "number", "number", "number extra", "number extra")
    head = el("tr", [el("th", h, scope="col", class_=k or None) for h, k in zip(heads, kinds, strict=True)])
    foot = el(
        "tr",
        el("td"),
        el("td", _ruler(axis, 0.0, "no difference", signed=True)),
        el("td"),
        el("td"),
        [el("td", class_="extra")] * 2,
    )
    unit = f", {UNITS[metric]}" if metric in UNITS else ""
    table = el(
        "table",
        el("thead", head),
        el("tbody", [_forest_row(page, e, axis) for e in entries]),
        el("tfoot", foot, aria_hidden="true"),
        class_="dots wide forest",
    )
    return el(
        "figure",
        el("figcaption", el("b", label(metric)), unit),
        scroll(table, f"Paired differences, {label(metric)}"),
    )


def _forest_row(page: Page, entry: Mapping[str, Any], axis: Scale) -> Html:
    low, high = number(entry.get("low")), number(entry.get("high"))
    decided = low is not None and high is not None and (low > 0 or high < 0)
    sides = page.sides(entry)
    series = page.models.index(sides[0][0]) if sides and sides[0][0] in page.models else 1
    dot = Dot(value=float(entry["difference"]), low=low, high=high, series=series, hollow=not decided)
    a, b = number(entry.get("a")), number(entry.get("b"))
    means = f"{digits(a)} against {digits(b)}" if a is not None and b is not None else None
    difference = [
        el("span", digits(entry["difference"], signed=True), class_="value"),
        el("span", bounds(low, high, signed=True), class_="ci"),
        _size(entry),
    ]
    return el(
        "tr",
        el(
            "th",
            el("bdi", str(entry["question"])),
            el("span", means, class_="means") if means else None,
            scope="row",
        ),
        el("td", track(axis, [dot], line=0.0)),
        el("td", difference, class_="number"),
        el("td", chance(entry.get("p")), class_="number p", data_label="p "),
        el("td", count(entry.get("n")), class_="number extra"),
        el("td", count(entry.get("patients")), _needed(entry), class_="number extra"),
    )


def _size(entry: Mapping[str, Any]) -> Html | None:
    """The size of a difference: an odds ratio for yes and no, else in standard deviations of one patient's."""
    odds, effect = number(entry.get("odds_ratio")), number(entry.get("effect"))
    if odds is not None:
        ends = bounds(entry.get("odds_low"), entry.get("odds_high"))
        return el("div", f"odds ratio {digits(odds)} {ends}".rstrip(), class_="means")
    return None if effect is None else el("div", f"d {digits(effect, signed=True)}", class_="means")


def _needed(entry: Mapping[str, Any]) -> Html | None:
    """How many patients would show this difference, where that is known."""
    needed = number(entry.get("patients_needed"))
    return None if needed is None else el("div", f"{count(needed)} needed", class_="means")


def _dot(row: Mapping[str, Any], series: int, hollow: bool = False, y: float = 14.0) -> Dot:
    low, high = number(row.get("low")), number(row.get("high"))
    return Dot(value=float(row["value"]), low=low, high=high, series=series, hollow=hollow, y=y)


def _ruler(axis: Scale, line: float | None, name: str = "chance", *, signed: bool = False) -> Html:
    return ruler(axis, note=None if line is None else (line, name), signed=signed)


def rows_of(pairs: Iterable[tuple[str, Any]]) -> Sequence[Html]:
    """Definition-list entries for names and values."""
    return [el("div", el("dt", words(name)), el("dd", value)) for name, value in pairs]
