"""What scoring AMBER costs: all nouns judged at once against the script's way, noun by noun and word by word.

Answers are made up from AMBER's own word lists with a fixed seed: 1,004 descriptions and 14,216 answers to yes/no
questions. The similarity part is what follows once the nouns are found: which objects they name. Contenders:

    sightline  a table of all pairs of words, then arrays over all nouns of all descriptions; the table is made anew
    script     the algorithm of AMBER's script as a loop: two words are compared anew each time, as it asks spaCy anew
    script, words kept   the same loop with the trigrams of each word kept, so that only the comparing is left

All three must give equal counts. Words are compared by trigrams, since spaCy's large model is not part of the tests;
asking spaCy takes the script far longer than counting trigrams.

    python bench/amber.py [--data ../shared/data/amber] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sightline import runs
from sightline.cli import scoring
from sightline.metrics.objects import exact, lists, nearness
from sightline.metrics.objects.layout import COLUMNS, lay_nouns

ROOT = Path(__file__).parents[1]
THRESHOLD = 0.8
SENTENCES = (
    "The image shows a {} next to a {} and a {}.",
    "In the background there are several {}s, and a {} can be seen behind the {}.",
    "A {} stands near the {}, adding depth to the scene.",
    "Close to the {} lies another {}, partly hidden by a {}.",
)
SHAPES = [name for name in COLUMNS if name != "invented"]

Cosine = Callable[[str, str], float]
Case = tuple[list[str], Sequence[str], Sequence[str]]


def describe(rng: random.Random, there: Sequence[str], likely: Sequence[str], words: Sequence[str]) -> str:
    """A description of eight sentences; a third of its objects is there, a tenth is likely to be made up."""

    def one() -> str:
        return rng.choice(rng.choices([there, likely, words], [0.35, 0.1, 0.55])[0])

    chosen = [rng.choice(SENTENCES) for _ in range(8)]
    return " ".join(text.format(*(one() for _ in range(text.count("{}")))) for text in chosen)


def answers(data: Path) -> list[dict[str, Any]]:
    """A response to every query."""
    rng, words = random.Random(0), lists.read_lists(str(data)).vocabulary
    made = []
    for number, right in lists.read_annotations(str(data)).items():
        if right.kind == lists.GENERATIVE:
            text = describe(rng, *lists.spelt(right.answer), words)
        else:
            text = rng.choice(("Yes", "No", right.answer, right.answer, "No, it is not."))
        made.append({"id": number, "response": text})
    return made


@cache
def kept(word: str) -> Counter[str]:
    """Three letters in a row of a word, counted."""
    return counted(word)


def counted(word: str) -> Counter[str]:
    return Counter(f"#{word}#"[i : i + 3] for i in range(len(word)))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    dot = sum(times * b[gram] for gram, times in a.items())
    return dot / math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))


def script(case: Case, known: lists.Lists, alike: Cosine) -> list[int]:
    """One description judged as AMBER's script does it; the columns are `SHAPES`."""
    found, truth, hallu = case
    there = [(w, i) for i, name in enumerate(truth) for w in known.associations[name]]
    there += [(name, i) for i, name in enumerate(truth)]
    likely = [(w, i) for i, name in enumerate(hallu) for w in known.associations[name]]
    likely += [(name, i) for i, name in enumerate(hallu)]
    covered, hit, wrong = [0] * len(truth), [0] * len(hallu), 0

    def mark(words: list[tuple[str, int]], flags: list[int], fits: Callable[[str], bool]) -> bool:
        for word, owner in words:
            if fits(word):
                flags[owner] = 1
                return True
        return False

    for noun in found:
        if noun in known.safe or mark(there, covered, noun.__eq__):
            continue
        mark(likely, hit, noun.__eq__)
        mark(likely, hit, lambda word, noun=noun: alike(noun, word) > THRESHOLD)
        if not mark(there, covered, lambda word, noun=noun: alike(noun, word) > THRESHOLD):
            wrong += 1
    sums = [wrong, len(found), sum(covered), len(truth), sum(hit), len(hallu), int(wrong > 0), 1]
    return sums


def at_once(cases: Sequence[Case], known: lists.Lists) -> np.ndarray:
    """All descriptions judged by the metric's own code, table included."""
    words = known.vocabulary
    numbers = {word: place for place, word in enumerate(words)}
    near = nearness.table("trigram", words) > THRESHOLD
    there = exact.expand([truth for _, truth, _ in cases], known, numbers)
    likely = exact.expand([hallu for _, _, hallu in cases], known, numbers)
    safe = np.array([word in known.safe for word in words])
    judged = exact.judge(lay_nouns([found for found, _, _ in cases], numbers), there, likely, safe, near)
    return judged[:, [COLUMNS.index(name) for name in SHAPES]]


def similarity(cases: Sequence[Case], known: lists.Lists, rounds: int) -> dict[str, Any]:
    """Time the contenders on equal nouns, rounds interleaved."""
    ways: dict[str, Callable[[], Any]] = {
        "sightline": lambda: at_once(cases, known),
        "script": lambda: [script(c, known, lambda a, b: cosine(counted(a), counted(b))) for c in cases],
        "script, words kept": lambda: [
            script(c, known, lambda a, b: cosine(kept(a), kept(b))) for c in cases
        ],
    }
    expected = at_once(cases, known)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            made = way()
            times[name].append(time.perf_counter() - start)
            assert np.array_equal(np.array(made, dtype=float), expected), name
    ratios = {
        name: statistics.median(slow / fast for slow, fast in zip(spent, times["sightline"], strict=True))
        for name, spent in times.items()
    }
    return {"seconds": {name: statistics.median(spent) for name, spent in times.items()}, "ratio": ratios}


def whole(data: Path, made: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of `sightline score amber`, intervals included, after a first small file has loaded everything."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        few, every = Path(scratch) / "few.json", Path(scratch) / "every.json"
        few.write_text(json.dumps(made[:5]), encoding="utf-8")
        every.write_text(json.dumps(made), encoding="utf-8")
        for mode in ("exact", "corrected"):
            words = [f"data={data}", f"mode={mode}", "similarity=trigram"]
            scoring.score("amber", few, words, seed=0, resamples=100)
            start, worked = time.perf_counter(), time.process_time()
            scoring.score("amber", every, words, seed=0, resamples=1000)
            found[mode] = time.perf_counter() - start
            found[f"{mode}, of the processor"] = time.process_time() - worked
    return found


def main() -> None:
    """Print the table and write `bench/results/amber-cpu.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "amber")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if not asked.data.is_dir():
        print(f"AMBER's word lists are not here ({asked.data}): give --data")
        return
    known, made = lists.read_lists(str(asked.data)), answers(asked.data)
    right = lists.read_annotations(str(asked.data))
    rng, words = random.Random(1), set(known.vocabulary)
    cases: list[Case] = []
    for each in made:
        if right[each["id"]].kind == lists.GENERATIVE:
            text = each["response"].lower().replace(",", " ").replace(".", " ").split()
            found = [w for w in (t.removesuffix("s") if t not in words else t for t in text) if w in words]
            cases.append((rng.sample(found, len(found)), *lists.spelt(right[each["id"]].answer)))
    result = similarity(cases, known, asked.rounds)
    result["nouns"] = sum(len(found) for found, _, _ in cases)
    result["whole_seconds"] = whole(asked.data, made)
    result["answers"] = len(made)
    print(
        f"{result['nouns']} nouns of {len(cases)} descriptions\n\n{'similarity part':<22}{'seconds':>10}{'ratio':>8}"
    )
    for name, value in result["seconds"].items():
        print(f"{name:<22}{value:>10.4f}{result['ratio'][name]:>8.1f}")
    for mode, value in result["whole_seconds"].items():
        print(f"all {len(made)} answers, {mode}, with intervals: {value:.1f} s")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    runs.write_json(
        folder / "amber-cpu.json", result | {"machine": runs.machine(), "versions": runs.versions()}
    )


if __name__ == "__main__":
    main()
