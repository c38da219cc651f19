"""The gate: a model's measures before and after it was rounded, on the same patients, and whether that is too much.

A metric may fall by so much and no more: the lower end of the interval of its difference decides, so few patients do
not pass by having wide intervals. Of a metric where less is better, a rise counts as a fall.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from .. import stats
from ..errors import RunError
from ..metrics.measure import Measure

COLUMNS = ("metric", "before", "after", "difference", "low", "high", "patients", "allowed", "passed")


def compare(
    before: Mapping[str, Measure],
    after: Mapping[str, Measure],
    allow: Mapping[str, float],
    *,
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """After minus before for every measure that both sides have.

    Args:
        before: measures by name.
        after: those of the same turns, answered by the export.
        allow: measure -> how far it may fall, in its own unit.
        seed: decides the resamples.
        resamples: how many.

    Returns:
        Rows with the columns of `COLUMNS`; `allowed` and `passed` are None where nothing was asked.

    Raises:
        RunError: a measure that was asked for is not there, or has no interval.
    """
    rows = []
    for name in before:
        if name in after and not isnan(before[name].value() - after[name].value()):
            rows.append(_row(before[name], after[name], allow.get(name), seed, resamples))
    known = {row["metric"] for row in rows if row["low"] is not None}
    lonely = [name for name in allow if name not in known]
    if lonely:
        raise RunError(
            f"the gate asks for what was not measured: {', '.join(lonely)}", where="gate.allow",
            found=", ".join(sorted(known)) or "nothing with an interval", expected="measures with an interval",
            remedy="name a measure that `metrics` gives, and a data set of two patients or more",
        )  # fmt: skip
    return rows


def _row(before: Measure, after: Measure, allowed: float | None, seed: int, resamples: int) -> dict[str, Any]:
    """One measure: the difference with its interval, and whether it passes."""
    found = stats.paired(after, before, seed=seed, resamples=resamples)
    row = {
        "metric": before.name, "before": before.value(), "after": after.value(), "difference": found.difference,
        "low": found.low, "high": found.high, "patients": found.patients, "allowed": allowed, "passed": None,
    }  # fmt: skip
    if allowed is not None and found.low is not None and found.high is not None:
        worst = found.low if before.higher_is_better else -found.high
        row["passed"] = bool(worst >= -allowed)
    return row


def failed(rows: list[dict[str, Any]]) -> list[str]:
    """The measures that fell too far, in words."""
    return [
        f"{row['metric']} {row['before']:.4g} -> {row['after']:.4g}, difference {row['difference']:+.4g} "
        f"[{row['low']:+.4g}, {row['high']:+.4g}], allowed {row['allowed']:g}"
        for row in rows
        if row["passed"] is False
    ]


def text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal: what was asked for first."""
    lines = [
        f"  {'metric':<24}{'before':>9}{'after':>9}{'difference':>12}  {'95 %':<20}{'allowed':>9}  passed"
    ]
    for row in sorted(rows, key=lambda row: row["allowed"] is None):
        span = "-" if row["low"] is None else f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        allowed = "-" if row["allowed"] is None else f"{row['allowed']:g}"
        passed = {None: "-", True: "yes", False: "no"}[row["passed"]]
        lines.append(
            f"  {row['metric']:<24}{row['before']:>9.4f}{row['after']:>9.4f}{row['difference']:>+12.4f}  {span:<20}"
            f"{allowed:>9}  {passed}"
        )
    return "\n".join(lines)
