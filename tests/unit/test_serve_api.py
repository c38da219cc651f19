"""The API as OpenAI's own client speaks it: answers, streams, log-probabilities, models; and what Sightline adds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from serving import IDENTITY, TOKEN, Parrot, Running, question, running
from sightline import NOTICE
from sightline.serve.backend import Failed
from sightline.serve.meter import Meter
from sightline.serve.sure import Held

HELD = Held(threshold=0.8, of="choices", alpha=0.05, promise="kept")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Parrot(choices={"yes": -0.1, "no": -2.4}), token=TOKEN, held=HELD) as made:
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


def asked(**more: Any) -> dict[str, Any]:
    """The same request, as the client's arguments; fields that it does not know go into the body as they are."""
    own = question(**more)
    extra = {name: own.pop(name) for name in ("sightline",) if name in own}
    return {**own, "extra_body": extra} if extra else own


def test_an_answer_in_one_piece(server: Running, client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        **asked(logprobs=True, top_logprobs=1, max_tokens=9, seed=5, temperature=0.5)
    )
    choice = made.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "Small left effusion.")
    assert (made.model, made.object, choice.finish_reason) == (IDENTITY.name, "chat.completion", "stop")
    assert made.system_fingerprint == IDENTITY.sha256[:16]
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (7, 4, 11)
    assert choice.logprobs is not None
    first = (choice.logprobs.content or [])[0]
    assert (first.token, first.logprob, first.bytes) == ("Small", -0.25, list(b"Small"))
    assert (first.top_logprobs[0].token, first.top_logprobs[0].logprob) == ("Large", -1.5)
    got = server.backend.asked[-1]
    assert (got.limit, got.seed, got.temperature, got.top, got.sight) == (9, 5, 0.5, 1, "clean")
    assert got.messages[0].parts == (0, "Is there an effusion?")
    own: Any = made.model_extra or {}
    assert own["sightline"]["notice"] == NOTICE
    assert own["sightline"]["model_sha256"] == IDENTITY.sha256
    assert (own["sightline"]["seed"], own["sightline"]["sure"]["verdict"]) == (
        5,
        "uncalibrated",
    )  # it was drawn


def test_how_sure_stands_beside_the_answer(client: openai.OpenAI) -> None:
    own: Any = client.chat.completions.create(**asked()).model_extra
    p = math.exp(-0.1) / (math.exp(-0.1) + math.exp(-2.4))
    wanted = {"kind": "choices", "confidence": pytest.approx(p), "verdict": "given", "threshold": 0.8}
    assert own["sightline"]["sure"] == wanted
    assert own["sightline"]["choices"] == {"yes": -0.1, "no": -2.4}


def test_what_it_would_say_without_the_image_has_no_verdict(server: Running, client: openai.OpenAI) -> None:
    own: Any = client.chat.completions.create(**asked(sightline={"image": "black"})).model_extra
    assert (own["sightline"]["image"], own["sightline"]["sure"]["verdict"]) == ("black", "uncalibrated")
    assert server.backend.asked[-1].sight == "black"


def test_a_stream(client: openai.OpenAI) -> None:
    events = list(
        client.chat.completions.create(
            **asked(stream=True, stream_options={"include_usage": True}, logprobs=True)
        )
    )
    texts = [e.choices[0].delta.content for e in events if e.choices and e.choices[0].delta.content]
    assert texts == ["Small", " left", " effusion", "."]
    assert events[0].choices[0].delta.role == "assistant"
    assert {e.id for e in events} == {events[0].id}
    assert [e.choices[0].finish_reason for e in events if e.choices][-1] == "stop"
    assert events[1].choices[0].logprobs.content[0].logprob == -0.25
    assert events[-1].usage.total_tokens == 11
    assert events[-2].model_extra["sightline"]["sure"]["verdict"] == "given"


def test_a_stream_on_the_wire(server: Running) -> None:
    with server.client(headers={"authorization": f"Bearer {TOKEN}"}) as http:
        answer = http.post("/v1/chat/completions", json=question(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["sightline-notice"] == NOTICE
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(e.startswith("data: {") for e in events[:-2])
    assert len(server.door.inside) == 0


def test_models_and_one_of_them(client: openai.OpenAI) -> None:
    made = client.models.list().data
    assert [m.id for m in made] == [IDENTITY.name]
    assert made[0].model_extra["sightline"]["family"] == "llava"  # type: ignore[index]
    assert client.models.retrieve(IDENTITY.name).id == IDENTITY.name
    with pytest.raises(openai.NotFoundError, match="another model's name"):
        client.models.retrieve("gpt-4")


def test_refusals_are_the_clients_own_errors(server: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**asked() | {"model": "gpt-4"})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked(image="http://example.org/a.png"))
    assert (caught.value.code, caught.value.param) == ("image_url", "messages.content.image_url.url")
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong-wrong-wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_an_answer_that_fails_says_so_in_one_piece_and_in_a_stream() -> None:
    with running(Parrot(fails=True)) as made, made.client() as http:
        whole = http.post("/v1/chat/completions", json=question())
        assert (whole.status_code, whole.json()["error"]["code"]) == (502, "failed")
        stream = http.post("/v1/chat/completions", json=question(stream=True))
        assert json.loads(stream.text.removeprefix("data: "))["error"]["code"] == "failed"
        assert made.door.inside == {}
    assert [json.loads(line)["ended"] for line in made.log.lines] == ["failed", "failed"]


def test_a_backend_that_is_not_there_says_so_in_one_piece_and_in_a_stream() -> None:
    class Gone(Parrot):
        async def ask(self, question: Any) -> Any:
            raise Failed("the server is stopping")

    with running(Gone()) as made, made.client() as http:
        for stream in (False, True):
            answer = http.post("/v1/chat/completions", json=question(stream=stream))
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "failed")
        assert made.door.inside == {}


def test_a_limit_ends_an_answer(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(**asked(max_completion_tokens=2))
    assert (made.choices[0].message.content, made.choices[0].finish_reason) == ("Small left", "length")


def test_a_conversation_with_an_earlier_image(server: Running, client: openai.OpenAI) -> None:
    own = asked()
    own["messages"][0]["content"].insert(0, {**own["messages"][0]["content"][0], "when": "prior"})
    own["messages"] += [{"role": "assistant", "content": "No."}, {"role": "user", "content": "Any change?"}]
    own["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert client.chat.completions.create(**own).choices[0].message.content == "Small left effusion."
    got = server.backend.asked[-1]
    assert [p.when for p in got.pictures] == ["prior", "current"]
    assert [m.role for m in got.messages] == ["system", "user", "assistant", "user"]
    assert got.messages[1].parts == (0, 1, "Is there an effusion?")


def test_figures_for_prometheus(server: Running) -> None:
    with server.client(headers={"authorization": f"Bearer {TOKEN}"}) as http:
        text = http.get("/metrics").text
    assert 'sightline_requests_total{route="/v1/chat/completions",status="200"}' in text
    assert 'sightline_request_seconds_bucket{route="/v1/chat/completions",le="+Inf"}' in text
    assert "# TYPE sightline_inside gauge\nsightline_inside 0\n" in text
    names = [line.split()[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names))


def test_figures_that_only_grow_are_told_to_the_last_digit() -> None:
    text = Meter().text({"tokens_total": 123_456_789, "busy_seconds_total": 1234567.25, "rows": 3})
    assert "sightline_tokens_total 123456789\n" in text
    assert "sightline_busy_seconds_total 1234567.25\n" in text
    assert "sightline_rows 3\n" in text
