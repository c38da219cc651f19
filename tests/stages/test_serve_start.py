"""From a trained stage to a server: what is opened, what it is called, what it was taught, and what may not begin."""

from __future__ import annotations

import base64
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import small
from serving import TOKEN, Parrot, running
from sightline import cli, runs
from sightline.errors import RunError
from sightline.models import checkpoint
from sightline.serve import sources
from sightline.serve.local import Local
from sightline.serve.opening import How, open_model
from sightline.serve.server import Settings, serve
from sightline.serve.trail import verify


@pytest.fixture(scope="module")
def taught(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage `taught` of the small recipe."""
    return small.taught(language, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a command in this process; its exit code and what it said on standard error."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sightline", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_stage_as_it_is_served(taught: Path) -> None:
    opened = open_model(sources.find(taught), How())
    assert opened.identity.name == "tiny/taught"
    assert opened.identity.sha256 == runs.digest(checkpoint.fingerprint(taught / "model"))
    assert opened.identity.facts == {"family": "llava", "precision": "float32"}
    assert str(taught) not in str(opened.identity)
    assert opened.held is None
    assert opened.about["report"] == "Describe the findings."
    assert "Is there a left effusion?" in opened.about["questions"]
    assert len(opened.about["questions"]) == 6
    assert (
        open_model(sources.find(taught / "model"), How(precision="bfloat16")).identity.name == "tiny/taught"
    )


def test_a_threshold_of_another_precision_is_named(taught: Path, tmp_path: Path) -> None:
    stage = shutil.copytree(taught.parent, tmp_path / "tiny") / "taught"
    assert open_model(sources.find(stage), How()).note == ""
    entry = {"threshold": 0.75, "of": "choices", "alpha": 0.1, "promise": "kept"}
    section = {"stage": "x", "generate": {"precision": "bfloat16"}}
    with runs.start(
        stage.parent / "evaluate", section=section, seed=0, version=1, parents={"taught": stage}
    ) as run:
        runs.write_json(run.work / "abstain.json", {"models": {"taught": entry}})
    said = "note: a threshold was calibrated in bfloat16; --precision bfloat16 shows verdicts"
    exact = open_model(sources.find(stage), How())
    assert (exact.held, exact.note) == (None, said)
    half = open_model(sources.find(stage), How(precision="bfloat16"))
    assert (half.held.threshold if half.held else None, half.note) == (0.75, "")


def test_an_answer_of_a_trained_stage(taught: Path) -> None:
    opened = open_model(sources.find(taught), How())
    image = next((taught.parent / "data" / "images").glob("*.png")).read_bytes()
    content = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(image).decode()}"},
        },
        {"type": "text", "text": "Is there a left effusion?"},
    ]
    asked = {"model": "tiny/taught", "messages": [{"role": "user", "content": content}], "max_tokens": 4}
    with (
        running(Local(opened.bundle, opened.identity, 2), about=opened.about) as made,
        made.client() as client,
    ):
        answer = client.post("/v1/chat/completions", json=asked).json()
        about = client.get("/page/about.json").json()
    assert answer["sightline"]["model_sha256"] == opened.identity.sha256
    assert 1 <= answer["usage"]["completion_tokens"] <= 4
    assert (about["model"], about["report"], about["held"]) == ("tiny/taught", "Describe the findings.", None)


def test_what_may_not_begin_says_why_and_opens_nothing(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGHTLINE_TOKEN", raising=False)
    assert command("serve", "absent", "--host", "0.0.0.0") == (1, "\n".join([
        "run: the server would answer whoever reaches it",
        "  where:    --host",
        "  found:    0.0.0.0 without a token",
        "  expected: a token, or an address of this machine only such as 127.0.0.1",
        "  remedy:   put a long random text into a file and give it with --token-file, or set SIGHTLINE_TOKEN",
        "",
    ]))  # fmt: skip
    (tmp_path / "token").write_text("short\n")
    code, said = command("serve", "absent", "--token-file", tmp_path / "token")
    assert (code, "the token is too short" in said) == (1, True)
    monkeypatch.setenv("SIGHTLINE_TOKEN", TOKEN)
    code, said = command("serve", tmp_path, "--host", "0.0.0.0")
    assert (code, "this is not a saved model" in said) == (1, True)
    assert command("serve")[0] == 1
    assert "float32 or bfloat16" in command("serve", "absent", "--precision", "int3")[1]


def test_a_port_that_is_taken(taught: Path, tmp_path: Path) -> None:
    with running(Parrot()) as made:
        port = int(made.url.rpartition(":")[2])
        with pytest.raises(RunError, match="could not begin"):
            serve(
                Parrot(), Settings(port=port, log=None, audit=tmp_path / "audit.jsonl"), say=lambda text: None
            )
    assert [line["event"] for line in verify(tmp_path / "audit.jsonl")] == ["began", "ended"]
