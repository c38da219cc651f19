"""The backend that asks another server: one of ours stands in for it, and one that is broken."""

from __future__ import annotations

import asyncio
import io
import json
import math
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving import IDENTITY, TOKEN, Parrot, Running, png, question, running, url
from sightline.errors import ModelError
from sightline.serve.remote import Remote, _choices, _read

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def far() -> Iterator[Running]:
    """The other server: it wants a token."""
    with running(Parrot(), token=TOKEN) as made:
        yield made


@pytest.fixture(scope="module")
def near(far: Running) -> Iterator[Running]:
    with running(Remote(f"{far.url}/v1", IDENTITY.name, TOKEN, 4)) as made:
        yield made


def test_an_answer_comes_through_in_one_piece_and_as_a_stream(far: Running, near: Running) -> None:
    with near.client() as client:
        made = client.post(CHAT, json=question(max_tokens=9, logprobs=True, seed=4)).json()
        stream = client.post(CHAT, json=question(stream=True)).text
    assert made["choices"][0]["message"]["content"] == "Small left effusion."
    assert made["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert made["sightline"]["model_sha256"] == "unknown"
    assert made["sightline"]["sure"] == {
        "kind": "sequence",
        "confidence": pytest.approx(math.exp(-0.25)),
        "verdict": "uncalibrated",
    }
    assert [t["token"] for t in made["choices"][0]["logprobs"]["content"]] == [
        "Small",
        " left",
        " effusion",
        ".",
    ]
    texts = [json.loads(e[6:])["choices"] for e in stream.split("\n\n")[:-2]]
    assert "".join(c[0]["delta"].get("content", "") for c in texts) == "Small left effusion."
    asked = far.backend.asked[0]
    assert (asked.limit, asked.seed, asked.top, asked.messages[0].parts) == (
        9,
        4,
        20,
        (0, "Is there an effusion?"),
    )


def test_as_many_likely_tokens_are_told_as_were_asked_for(far: Running) -> None:
    """The other server is always asked for 20, to know yes from no."""
    remote = Remote(f"{far.url}/v1", IDENTITY.name, TOKEN, 1)
    with running(remote) as made, made.client() as client:
        for top, told in ((None, 0), (0, 0), (1, 1)):
            more = {} if top is None else {"top_logprobs": top}
            answer = client.post(CHAT, json=question(logprobs=True, **more)).json()
            content = answer["choices"][0]["logprobs"]["content"]
            assert [len(token["top_logprobs"]) for token in content] == [told] * 4
    assert far.backend.asked[-1].top == 20


def test_lines_of_a_stream_may_have_no_blank_behind_the_colon() -> None:
    said = ['data:{"choices": [{"delta": {"content": "Clear."}}]}', ": a comment", "", "data:[DONE]"]

    class Answer:
        async def aiter_lines(self) -> AsyncIterator[str]:
            for line in said:
                yield line

    async def heard() -> list[Any]:
        return [told async for told in _read(Answer(), 0)]  # type: ignore[arg-type]

    piece, end = asyncio.run(heard())
    assert (piece.text, end.reason) == ("Clear.", "stop")


def test_the_image_goes_out_as_pixels_only_and_black_where_it_is_not_to_be_seen(
    far: Running, near: Running
) -> None:
    secret = png()
    secret = secret[:33] + text_chunk(b"PatientName\0Maier") + secret[33:]
    with near.client() as client:
        client.post(CHAT, json=question(image=url(secret)))
        client.post(CHAT, json=question(image=url(secret), sightline={"image": "black"}))
    clean, black = (q.pictures[0] for q in far.backend.asked[-2:])
    assert float(np.abs(clean.pixels - np.asarray(decoded(), np.float32) / 255).max()) < 1e-6
    assert float(black.pixels.max()) == 0.0
    assert black.pixels.shape == clean.pixels.shape


def decoded() -> Any:
    return Image.open(io.BytesIO(png())).convert("RGB")


def text_chunk(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + b"tEXt" + data + struct.pack(">I", zlib.crc32(b"tEXt" + data))


def test_a_server_that_fails_or_is_gone_is_no_fault_of_ours(far: Running, near: Running) -> None:
    far.backend.fails = True
    with near.client() as client:
        broken = client.post(CHAT, json=question())
        far.backend.fails = False
        assert (broken.status_code, broken.json()["error"]["code"]) == (502, "failed")
        assert client.post(CHAT, json=question()).status_code == 200
    with running(Remote("http://127.0.0.1:9/v1", "m", "", 1)) as lost, lost.client() as client:
        gone = client.post(CHAT, json=question() | {"model": "m"})
        assert (gone.status_code, gone.json()["error"]["message"]) == (
            502,
            "the other server could not be asked",
        )
        assert "127.0.0.1" not in gone.text
        assert "sightline_remote_failures_total 1\n" in client.get("/metrics").text


def test_what_it_cannot_do_is_refused(near: Running) -> None:
    asked = question()
    asked["messages"][0]["content"][0]["when"] = "prior"
    with near.client() as client:
        assert client.post(CHAT, json=asked).json()["error"]["code"] == "prior"
    with pytest.raises(ModelError, match="no URL"):
        Remote("localhost:9000", "m", "", 1)


def test_yes_against_no_is_known_where_both_are_among_the_likeliest() -> None:
    first = {"token": " Yes", "logprob": -0.5, "top_logprobs": [
        {"token": " Yes", "logprob": -0.5}, {"token": "yes", "logprob": -2.0}, {"token": " No", "logprob": -1.5}
    ]}  # fmt: skip
    found = _choices(first)
    assert found == {
        "yes": pytest.approx(math.log(math.exp(-0.5) + math.exp(-2.0))),
        "no": pytest.approx(-1.5),
    }
    assert _choices({**first, "top_logprobs": first["top_logprobs"][:2]}) == {}
    assert _choices({**first, "token": " Small"}) == {}
