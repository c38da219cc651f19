"""What stands beside a model: another one that is asked by its own name, and reports of similar images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pages import BEFORE, Stand, before, similar
from serving import CHAT, IDENTITY, Parrot, Running, png, question, refused, running, url
from sightline.errors import RecipeError, RunError
from sightline.retrieval import shelf
from sightline.serve.backend import Identity
from sightline.serve.beside import Beside, Model
from sightline.serve.company import open_shelf
from sightline.serve.server import Settings, build
from sightline.serve.sure import Held
from sightline.serve.trail import Trail
from sightline.settings import Template

CHOICES = {"yes": -0.1, "no": -2.4}
HELD = Held(threshold=0.8, of="choices", alpha=0.05, promise="kept")
STRICT = Held(threshold=0.95, of="choices", alpha=0.05, promise="kept")
PLAIN = Template(name="plain")
CLEAN = {"image": "clean"}


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.fixture(scope="module")
def server(stand: Stand) -> Iterator[Running]:
    """A model that reads reports, and one before it that does not."""
    other = Model(backend=before(choices=CHOICES, slots=3), held=STRICT)
    beside = Beside(before=other, finder=stand, template=PLAIN)
    with running(Parrot(choices=CHOICES), held=HELD, beside=beside) as made:
        made.other = other.backend  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def post(client: httpx.Client, **more: Any) -> httpx.Response:
    return client.post(CHAT, json=question(**more))


def test_both_models_are_listed_and_each_answers_by_its_name(server: Running, client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [(m["id"], m["sightline"]["model_sha256"]) for m in listed] == [
        ("tiny/taught", "ab" * 32), ("tiny/before", "cd" * 32),
    ]  # fmt: skip
    assert client.get("/v1/models/tiny/before").json() == listed[1]
    assert client.get("/v1/models/tiny/other").status_code == 404
    own, other = post(client), client.post(CHAT, json={**question(), "model": "tiny/before"})
    assert own.json()["choices"][0]["message"]["content"] == "Small left effusion."
    assert other.json()["choices"][0]["message"]["content"] == "No effusion."
    assert (own.json()["model"], other.json()["model"]) == ("tiny/taught", "tiny/before")
    assert (own.headers["sightline-model"], other.headers["sightline-model"]) == ("ab" * 32, "cd" * 32)
    assert other.json()["sightline"]["model_sha256"] == "cd" * 32
    assert other.json()["system_fingerprint"] == "cd" * 8
    assert len(server.other.asked) == 1  # type: ignore[attr-defined]
    refused(client.post(CHAT, json={**question(), "model": "tiny/other"}), 404, "model_not_found")


def test_each_model_has_its_own_threshold(client: httpx.Client) -> None:
    own = post(client).json()["sightline"]["sure"]
    other = client.post(CHAT, json={**question(), "model": "tiny/before"}).json()["sightline"]["sure"]
    assert own["confidence"] == other["confidence"] == pytest.approx(1 / (1 + np.exp(-2.3)))
    assert (own["verdict"], own["threshold"]) == ("given", 0.8)
    assert (other["verdict"], other["threshold"]) == ("needs_review", 0.95)


def test_a_stream_of_the_other_model_ends_with_its_hash(client: httpx.Client) -> None:
    told = client.post(CHAT, json={**question(), "model": "tiny/before", "stream": True}).text
    assert f'"model_sha256":"{"cd" * 32}"' in told
    assert "ab" * 32 not in told


def test_places_of_both_count(server: Running, client: httpx.Client) -> None:
    assert server.door.slots == 5
    figures = client.get("/metrics").text
    assert "sightline_rows 0" in figures
    assert "sightline_before_rows 0" in figures


def test_two_models_of_one_name_are_refused() -> None:
    beside = Beside(before=Model(backend=Parrot()))
    with pytest.raises(RecipeError, match="both models have one name"):
        build(Parrot(), Settings(log=None), beside=beside)


def test_reports_stand_beside_the_answer_and_in_the_prompt_of_a_model_that_reads_them(
    server: Running, client: httpx.Client, stand: Stand
) -> None:
    answer = post(client, text="Is there an effusion?").json()
    assert answer["sightline"]["reports"] == [
        {"id": "r1", "similarity": 0.9312, "text": "Small left effusion.", "behind": 3, "in_prompt": True},
        {"id": "r2", "similarity": 0.5, "text": "Heart size normal.", "behind": 1, "in_prompt": False},
    ]
    read = server.backend.asked[-1].messages[0]
    assert read.parts == (0, "Reports of similar images: 1. Small left effusion.\nIs there an effusion?")
    sample, held = stand.asked[-1]
    picture = server.backend.asked[-1].pictures[0]
    assert [ref.sha256 for ref in sample.images] == [picture.sha256]
    assert sample.patient == f"image:{picture.sha256}"
    assert np.array_equal(held["0"], picture.pixels)


def test_a_model_that_was_never_taught_with_reports_does_not_read_them(
    server: Running, client: httpx.Client
) -> None:
    answer = client.post(CHAT, json={**question(text="Where?"), "model": "tiny/before"}).json()
    assert [each["in_prompt"] for each in answer["sightline"]["reports"]] == [False, False]
    assert server.other.asked[-1].messages[0].parts == (0, "Where?")  # type: ignore[attr-defined]


def test_reports_can_be_left_out(server: Running, client: httpx.Client, stand: Stand) -> None:
    before = len(stand.asked)
    answer = post(client, text="Where?", sightline={"reports": False}).json()
    assert "reports" not in answer["sightline"]
    assert server.backend.asked[-1].messages[0].parts == (0, "Where?")
    assert len(stand.asked) == before
    assert answer["sightline"]["sure"]["verdict"] == "uncalibrated"  # it was calibrated with them
    assert "reports" in post(client, sightline={"reports": True}).json()["sightline"]


def test_a_black_image_is_asked_with_the_reports_of_the_real_one(
    server: Running, client: httpx.Client, stand: Stand
) -> None:
    answer = post(client, sightline={"image": "black"}).json()
    assert len(answer["sightline"]["reports"]) == 2
    assert server.backend.asked[-1].sight == "black"
    assert stand.asked[-1][1]["0"].max() > 0.5


def test_only_the_first_turn_is_rewritten_and_later_ones_stay(server: Running, client: httpx.Client) -> None:
    asked = question(text="First?")
    asked["messages"] += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And then?"}]
    asked["messages"].insert(0, {"role": "system", "content": "Be short."})
    assert client.post(CHAT, json=asked).status_code == 200
    said = [m.text for m in server.backend.asked[-1].messages]
    assert said == [
        "Be short.", "Reports of similar images: 1. Small left effusion.\nFirst?", "Yes.", "And then?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "reports", "told"),
    [
        ("Is it left?", "question", True, "based on the image and report and choose from the following two"),
        ("Where is it?", "question", True, "based on the image and report. It should be noted"),
        (
            "Is it left?",
            "question",
            False,
            "Is it left? Please answer the question based on the image and choo",
        ),
        (
            "Describe.",
            "report",
            True,
            "1 reference report(s): 1. Small left effusion. \nPlease generate a rep",
        ),
        ("Describe.", "report", False, "provided with an X-ray image. Please generate a report"),
    ],
)
def test_the_words_are_those_that_the_model_was_taught_in(
    text: str, kind: str, reports: bool, told: str
) -> None:
    parrot = Parrot()
    beside = Beside(finder=Stand(), template=Template(name="mmed_rag"))
    with running(parrot, beside=beside) as made, made.client() as client:
        assert post(client, text=text, sightline={"kind": kind, "reports": reports}).status_code == 200
    assert told in parrot.asked[-1].messages[0].text


def test_a_server_without_reports_says_so() -> None:
    with running(Parrot()) as made, made.client() as client:
        assert "reports" not in post(client).json()["sightline"]
        refused(post(client, sightline={"reports": True}), 400, "no_reports")
        about = client.get("/page/about.json").json()
    assert (about["before"], about["reports"]) == (None, None)


def test_the_page_is_told_what_there_is(client: httpx.Client) -> None:
    about = client.get("/page/about.json").json()
    assert about["before"] == {"model": BEFORE.name, "model_sha256": BEFORE.sha256}
    assert about["reports"] == {"read": True}


def test_a_report_of_the_test_split_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leak = Stand(reports=(similar(9, "The answer itself.", **{}),), similarities=(1.0,), behind=(1,))
    object.__setattr__(leak.reports[0], "split", "test")
    with running(Parrot(), beside=Beside(finder=leak)) as made, made.client() as client:
        answer = post(client)
        assert answer.status_code == 500
        assert "answer itself" not in answer.text

    def opened(splits: tuple[str, ...], held: list[str]) -> Any:
        index = SimpleNamespace(splits=splits, store=SimpleNamespace(table=pa.table({"split": held})))
        return SimpleNamespace(library=SimpleNamespace(indexes={"": index}))

    for splits, held in ((("train",), ["train", "test"]), (("train", "test"), ["train"])):
        monkeypatch.setattr(shelf.Shelf, "open", lambda folder, s=splits, h=held: opened(s, h))
        with pytest.raises(RunError, match="test split"):
            open_shelf(tmp_path)
    monkeypatch.setattr(shelf.Shelf, "open", lambda folder: opened(("train",), ["train", "valid"]))
    assert open_shelf(tmp_path) is not None


def test_the_audit_log_holds_the_question_as_it_was_asked_and_reports_as_hashes(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "audit.jsonl")
    with running(Parrot(), trail=trail, beside=Beside(finder=Stand(), template=PLAIN)) as made:
        with made.client() as client:
            assert post(client, text="Where?").status_code == 200
        wanted = {"question": trail.salted("Where?"), "report": trail.salted("Small left effusion.")}
    trail.close()
    line = next(x for x in (tmp_path / "audit.jsonl").read_text().splitlines() if '"answered"' in x)
    assert wanted["question"] in line
    assert wanted["report"] in line
    assert "effusion" not in line


def test_an_image_that_the_encoder_cannot_read_is_refused_in_our_words() -> None:
    from sightline.errors import ImageError

    class Fussy(Stand):
        def find(self, *given: Any, **more: Any) -> Any:
            raise ImageError("the image has too many stripes", where="file /tmp/0", found="9")

    with running(Parrot(), beside=Beside(finder=Fussy())) as made, made.client() as client:
        answer = post(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "cannot_be_asked")
        assert answer.json()["error"]["message"] == "the image has too many stripes"


def test_a_backend_without_a_hash_is_not_taken_for_the_other_one() -> None:
    nameless = Parrot(identity=Identity(name="elsewhere"))
    with running(Parrot(), beside=Beside(before=Model(backend=nameless))) as made, made.client() as client:
        answer = client.post(CHAT, json={**question(), "model": "elsewhere"})
    assert (answer.headers["sightline-model"], answer.json()["sightline"]["model_sha256"]) == ("unknown",) * 2
    assert IDENTITY.sha256 not in answer.text


def test_an_image_is_found_by_its_pixels_alone() -> None:
    """The pixels that a finder is given are those of the data URL, black edges and all."""
    stand = Stand()
    data = png(20, 10, seed=5)
    with running(Parrot(), beside=Beside(finder=stand)) as made, made.client() as client:
        assert post(client, image=url(data)).status_code == 200
    import io

    right = np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255
    assert np.allclose(stand.asked[-1][1]["0"], right, atol=1e-6)
