"""How well reports are found: scores and maps of the encoders behind an evaluation, and what a calibrated K keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Html, bounds, count, digits, el, scroll
from .page import Page
from .scatter import inline

WAYS = {"image_to_text": "Image looks for its report", "text_to_image": "Report looks for its image"}
NAMES = {
    "r_at_1": "Among the first 1 (R@1)", "r_at_5": "Among the first 5 (R@5)", "r_at_10": "Among the first 10 (R@10)",
    "median_rank": "Median rank", "mrr": "Mean reciprocal rank",
}  # fmt: skip


def encoders(page: Page) -> Html:
    """A table and a map for each encoder, then a table for each calibrated number of reports."""
    blocks: list[Html] = []
    for each in page.encoders:
        blocks += [el("h3", el("bdi", each["name"])), _table(each["rows"])]
        if each.get("map"):
            blocks.append(el("figure", inline(each["map"])))
    for each in page.calibrated:
        blocks += [el("h3", el("bdi", each["name"])), el("p", _promise(each)), _coverage(each)]
    return Html("".join(blocks))


def _table(rows: list[Mapping[str, Any]]) -> Html:
    """Measures by directions, each with its interval and what chance would give."""
    known = {row["metric"]: row for row in rows}
    ways = [way for way in WAYS if any(f"{name}_{way}" in known for name in NAMES)]
    head = el("tr", el("th", "Test split", scope="col"), [el("th", WAYS[way], scope="col") for way in ways])
    body = [
        el("tr", el("th", NAMES[name], scope="row"), [_score(known.get(f"{name}_{way}")) for way in ways])
        for name in NAMES
        if any(f"{name}_{way}" in known for way in ways)
    ]
    return scroll(el("table", el("thead", head), el("tbody", body), class_="scores"), "How reports are found")


def _score(row: Mapping[str, Any] | None) -> Html:
    if row is None:
        return el("td", "–")
    value = el("span", digits(row["value"]), class_="value")
    ends = el("span", bounds(row.get("low"), row.get("high")), class_="ci")
    return el("td", value, ends, el("div", f"chance {digits(row.get('chance'))}", class_="means"))


def _promise(found: Mapping[str, Any]) -> str:
    """What the calibration of K says, in a sentence."""
    made = f"calibrated on {count(found['patients'])} patients of the valid split ({count(found['samples'])} samples)"
    if not found["promised"]:
        return (
            f"One report is shown, and nothing is promised about it: no number of reports has a bound of at most "
            f"{digits(found['alpha'])}; {made}."
        )
    return (
        f"At most {count(found['k'])} reports are shown: of a further patient's reports an expected share of at most "
        f"{digits(found['alpha'])} contradicts the image; {made}."
    )


def _coverage(found: Mapping[str, Any]) -> Html:
    """Risk by the number of reports that are shown."""
    heads = [el("th", word, scope="col") for word in ("Reports shown", "Contradicting", "Bound", "Promise")]
    body = [
        el(
            "tr", el("th", count(row["k"]), scope="row"), el("td", digits(row["share"])),
            el("td", digits(row["bound"])), el("td", "holds" if row["holds"] else "too high"),
        )
        for row in found["table"]
    ]  # fmt: skip
    table = el("table", el("thead", el("tr", heads)), el("tbody", body), class_="scores")
    return scroll(table, "Risk by number of reports")
