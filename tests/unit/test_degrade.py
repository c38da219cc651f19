"""Laws of degradations: functions of (seed, record id) alone, in range, and what each kind promises."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sightline import plugins
from sightline.errors import DataError, ImageError, RecipeError
from sightline.images import degrade
from sightline.images.degrade.swapped import partners
from sightline.types import Degrade

IMAGE = np.random.default_rng(1).random((64, 80, 3), dtype=np.float32)
KINDS = [kind for kind in plugins.names("degrade") if not degrade.find(kind).swaps]
DRAWN = [kind for kind in KINDS if kind not in ("black", "blur", "jpeg", "occluded")]


def test_the_kinds() -> None:
    assert set(plugins.names("degrade")) >= {"replace", "gaussian", "black", "swapped"}
    for kind in plugins.names("degrade"):
        assert isinstance(degrade.find(kind), degrade.Degradation)
        assert degrade.find(kind).paper
        assert plugins.options("degrade", kind)["strength"] == (float, 1.0)
    assert [kind for kind in plugins.names("degrade") if not degrade.find(kind).same_patient] == ["swapped"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE[:1, :1], IMAGE.astype(np.float64)[::-1]], ids=["f4", "1x1", "f8"]
)
def test_shape_type_and_range(kind: str, strength: float, image: np.ndarray) -> None:
    before = image.copy()
    made = degrade.apply(image, Degrade(kind=kind, strength=strength), "r")
    assert made.shape == image.shape
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_equal_bytes_in_any_order(kind: str) -> None:
    spec, names = Degrade(kind=kind, seed=5), [f"r{i}" for i in range(4)]
    forth = {name: degrade.apply(IMAGE, spec, name).tobytes() for name in names}
    np.random.default_rng().random(10)
    back = {name: degrade.apply(IMAGE, spec, name).tobytes() for name in reversed(names)}
    assert forth == back


@pytest.mark.parametrize("kind", DRAWN)
def test_records_seeds_and_kinds_differ(kind: str) -> None:
    base = degrade.apply(IMAGE, Degrade(kind=kind), "r1")
    for other in (
        degrade.apply(IMAGE, Degrade(kind=kind), "r2"),
        degrade.apply(IMAGE, Degrade(kind=kind, seed=1), "r1"),
    ):
        assert np.abs(base - other).mean() > 0.05
    first = degrade.generator(Degrade(kind="replace"), "r").random()
    assert first != degrade.generator(Degrade(kind="gaussian"), "r").random()


@pytest.mark.parametrize("kind", DRAWN)
def test_the_epoch_counts_only_where_fresh(kind: str) -> None:
    spec = Degrade(kind=kind)
    still = [degrade.apply(IMAGE, spec, "r", epoch=epoch).tobytes() for epoch in (0, 1)]
    fresh = [degrade.apply(IMAGE, spec, "r", epoch=epoch, fresh=True).tobytes() for epoch in (0, 1, 1)]
    assert still[0] == still[1]
    assert fresh[0] != fresh[1]
    assert fresh[1] == fresh[2]


def test_a_new_process_draws_the_same_bytes() -> None:
    code = (
        "import hashlib, numpy as np; from sightline.images import degrade;"
        "from sightline.types import Degrade;"
        "image = np.full((8, 9, 3), 0.5, np.float32);"
        "print([hashlib.sha256(degrade.apply(image, Degrade(kind=k, seed=3), 'r8')).hexdigest()"
        " for k in ('gaussian', 'replace')])"
    )
    image = np.full((8, 9, 3), 0.5, np.float32)
    here = [
        hashlib.sha256(degrade.apply(image, Degrade(kind=kind, seed=3), "r8")).hexdigest()
        for kind in ("gaussian", "replace")
    ]
    source = str(Path(degrade.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == str(here)


def test_the_key_names_all_that_decides() -> None:
    specs = [Degrade(kind="replace"), Degrade(kind="gaussian"), Degrade(kind="replace", strength=0.5),
             Degrade(kind="replace", seed=1)]  # fmt: skip
    keys = {degrade.key(spec, record) for spec in specs for record in ("a", "b")}
    assert len(keys) == 8
    assert all(len(key) == 32 for key in keys)
    assert degrade.key(Degrade(kind="replace", strength=1), "a") == degrade.key(specs[0], "a")


def test_replace_holds_nothing_of_the_image_and_has_the_known_shares() -> None:
    spec = Degrade(kind="replace")
    image = np.zeros((256, 256, 3), np.float32)
    made = degrade.apply(image, spec, "r")
    assert np.array_equal(made, degrade.apply(image + 1, spec, "r"))
    assert abs((made == 0).mean() - 0.5) < 0.005
    assert abs((made == 1).mean() - 0.1587) < 0.005
    half = degrade.apply(image, Degrade(kind="replace", strength=0.5), "r")
    assert abs((half == 1).mean() - 0.0228) < 0.002
    assert np.allclose(half[made < 1] * 2, made[made < 1], atol=1e-6)


def test_gaussian_adds_to_the_image() -> None:
    image = np.full((256, 256, 3), 0.5, np.float32)
    made = degrade.apply(image, Degrade(kind="gaussian", strength=0.1), "r")
    assert abs(made.mean() - 0.5) < 0.001
    assert abs(made.std() - 0.1) < 0.001
    assert np.array_equal(degrade.apply(IMAGE, Degrade(kind="gaussian", strength=0.0), "r"), IMAGE)
    strong = degrade.apply(image, Degrade(kind="gaussian"), "r")
    share = 0.5 * math.erfc(0.5 / math.sqrt(2))
    assert abs((strong == 0).mean() - share) < 0.005
    assert abs((strong == 1).mean() - share) < 0.005


def test_black_is_black() -> None:
    assert not degrade.apply(IMAGE, Degrade(kind="black"), "r").any()
    assert np.array_equal(degrade.apply(IMAGE, Degrade(kind="black", strength=0.0), "r"), IMAGE)
    with pytest.raises(ImageError, match="takes a share") as caught:
        degrade.apply(IMAGE, Degrade(kind="black", strength=2.0), "r")
    assert caught.value.expected == "strength from 0 to 1"


def test_swapped_refuses_pixels() -> None:
    assert degrade.find("swapped").swaps
    with pytest.raises(ImageError, match="not an operation on pixels") as caught:
        degrade.apply(IMAGE, Degrade(kind="swapped"), "r")
    assert "swapped.partners" in caught.value.remedy


@pytest.mark.parametrize("strength", [-1.0, math.nan, math.inf])
def test_a_strength_that_is_none(strength: float) -> None:
    with pytest.raises(ImageError, match="strength is not usable") as caught:
        degrade.apply(IMAGE, Degrade(kind="replace", strength=strength), "r4")
    assert "record r4" in caught.value.where


def test_pixels_that_are_none_and_kinds_that_are_none() -> None:
    with pytest.raises(ImageError, match=r"outside \[0, 1\]") as caught:
        degrade.apply(IMAGE * 255, Degrade(kind="replace"), "r4")
    assert "record r4" in caught.value.where
    with pytest.raises(RecipeError, match="did you mean 'gaussian'"):
        degrade.apply(IMAGE, Degrade(kind="gausian"), "r")


def test_a_kind_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab_noise.py").write_text(
        "def invert(pixels, rng, *, strength: float = 1.0):\n    return 1 - pixels\n"
        "def broken(pixels, rng, *, strength: float = 1.0):\n    return pixels * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert np.array_equal(degrade.apply(IMAGE, Degrade(kind="my_lab_noise:invert"), "r"), 1 - IMAGE)
    with pytest.raises(ImageError, match="outside") as caught:
        degrade.apply(IMAGE, Degrade(kind="my_lab_noise:broken"), "r")
    assert "my_lab_noise:broken" in caught.value.where


SIZES = [(1, 1), (2, 1), (1, 1, 1, 1, 1), (3, 2, 2, 1), (5, 5), (4, 1, 1), (9, 2), (7, 3, 1, 1, 2)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_partners_are_of_another_patient(sizes: tuple[int, ...], seed: int) -> None:
    records = [(f"r{p}-{i}", f"p{p}") for p, size in enumerate(sizes) for i in range(size)]
    patient = dict(records)
    chosen = partners(records, seed)
    assert set(chosen) == set(patient)
    assert set(chosen.values()) <= set(patient)
    assert all(patient[a] != patient[b] for a, b in chosen.items())
    if 2 * max(sizes) <= sum(sizes):
        assert len(set(chosen.values())) == len(records)


def test_partners_depend_on_the_set_and_the_seed_only() -> None:
    records = [(f"r{i}", f"p{i // 2}") for i in range(40)]
    base = partners(records, 0)
    assert partners(records[::-1] + records[:5], 0) == base
    assert partners([(record, f"renamed {patient}") for record, patient in records], 0) == base
    assert partners(records, 1) != base


def test_partners_need_two_patients() -> None:
    for records in ([], [("a", "p"), ("b", "p")]):
        with pytest.raises(DataError, match="cannot be swapped") as caught:
            partners(records, 0)
        assert caught.value.expected == "at least two patients"


def test_one_id_under_two_patients() -> None:
    with pytest.raises(DataError, match="belongs to two patients") as caught:
        partners([("a", "p"), ("a", "q")], 0)
    assert "record a" in caught.value.where


def test_partners_of_many_records_are_quick_and_spread() -> None:
    records = [(f"r{i}", f"p{i % 500}") for i in range(5000)]
    chosen = partners(records, 0)
    patient = dict(records)
    pairs = {(patient[a], patient[b]) for a, b in chosen.items()}
    assert len(set(chosen.values())) == 5000
    assert len({b for _, b in pairs}) == 500
