"""`sightline serve` as a process of its own, as `make serve` starts it: both models answer, options count, it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

import small
from serving import CHAT, TOKEN, png, url
from sightline import NOTICE
from sightline.serve.trail import verify

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--port",
    "0",
    "--slots",
    "3",
    "--max-tokens",
    "2",
    "--temperature",
    "0.5",
    "--audit",
    "audit.jsonl",
)


@dataclass
class Begun:
    """The command, what it said when it began, and the folder that it runs in."""

    process: subprocess.Popen[str]
    said: list[str]
    folder: Path

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=self.said[1].split()[1], headers=headers, timeout=60, trust_env=False)


@pytest.fixture(scope="module")
def begun(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    folder = tmp_path_factory.mktemp("runs")
    small.run(language, folder)
    (folder / "token").write_text(f"{TOKEN}\n")
    words = ["serve", "tiny/aligned", "--before", "tiny/taught", "--token-file", "token", *OPTIONS]
    process = subprocess.Popen(
        [sys.executable, "-c", "from sightline.cli import main; main()", *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield Begun(process, [process.stdout.readline().rstrip("\n") for _ in range(4)], folder)
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_both_models_answer_and_options_count(begun: Begun) -> None:
    assert re.fullmatch(r"tiny/aligned, sha256 [0-9a-f]{16}", begun.said[0])
    assert begun.said[2:] == ["a token is needed", NOTICE]
    parts = [
        {"type": "image_url", "image_url": {"url": url(png(64, 64))}},
        {"type": "text", "text": "Is there a left effusion?"},
    ]
    with begun.client() as client:
        assert client.get("/v1/models", headers={"authorization": ""}).status_code == 401
        assert "Sightline" in client.get("/").text
        about = client.get("/page/about.json").json()
        assert (about["model"], about["before"]["model"]) == ("tiny/aligned", "tiny/taught")
        for name in ("tiny/aligned", "tiny/taught"):
            asked = {"model": name, "messages": [{"role": "user", "content": parts}]}
            answer = client.post(CHAT, json=asked).json()
            assert answer["model"] == name
            assert 0 <= answer["usage"]["completion_tokens"] <= 2
            assert answer["sightline"]["temperature"] == 0.5
            assert answer["sightline"]["notice"] == NOTICE


def test_it_ends_when_it_is_told_to(begun: Begun) -> None:
    """The last test of this file with the server."""
    begun.process.send_signal(signal.SIGTERM)
    out, err = begun.process.communicate(timeout=60)
    assert (begun.process.returncode, out.endswith("stopped\n")) == (0, True)
    assert "Traceback" not in err
    assert "effusion" not in err
    lines = verify(begun.folder / "audit.jsonl")
    assert [line["event"] for line in lines] == ["began", "answered", "answered", "ended"]
    assert [line["temperature"] for line in lines[1:3]] == [0.5, 0.5]


def test_make_serve_is_the_next_step_and_serves_what_the_quickstart_makes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert commands[:2] == ["quickstart", "serve"]
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    rule = made.split("\nserve: setup")[1].split("\n\n")[0]
    words = shlex.split(rule.strip().splitlines()[-1])
    assert words[1:3] == ["$(BIN)/sightline", "serve"]
    recipe = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8"))
    stages = {f"runs/{recipe['name']}/{name}": each["stage"] for name, each in recipe["stages"].items()}
    assert words[4] == "--before"
    assert [stages[words[3]], stages[words[5]]] == ["align", "sft"]
    assert "sightline run recipes/quickstart.yaml" in rule  # where it is not there yet
