"""How well the stages behind an evaluation find reports: what its report shows of encoders and of a calibrated K."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import runs

SCORES, MAP, CALIBRATION, VALIDATION = "scores.json", "map.json", "calibration.json", "validation.json"


def encoders(line: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The scores on the test split of every encoder that has some, with its map where there is one."""
    found = []
    for name, place in line.items():
        if runs.read_json(place / runs.MANIFEST)["stage"] != "contrast":
            continue
        rows = runs.read_json(place / SCORES)["rows"]
        if rows:
            shown = runs.read_json(place / MAP) if (place / MAP).is_file() else None
            found.append({"name": name, "rows": rows, "map": shown})
    return found


def calibrated(line: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What every calibration of the number of reports found."""
    return [
        {"name": name, **runs.read_json(place / CALIBRATION)}
        for name, place in line.items()
        if (place / CALIBRATION).is_file()
    ]


def validations(line: Mapping[str, Path]) -> dict[str, list[dict[str, float]]]:
    """What was measured on the valid split while stages learned, by a name for its curves."""
    found = {
        f"{name}, valid split": runs.read_json(place / VALIDATION)["history"]
        for name, place in line.items()
        if (place / VALIDATION).is_file()
    }
    return {name: history for name, history in found.items() if history}
