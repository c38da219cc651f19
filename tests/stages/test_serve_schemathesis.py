"""Requests that schemathesis makes up from the server's description, fitting and not: none is a fault of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import configuration

from serving import CHAT, IDENTITY, LEAK, Parrot, Running, png, running, url
from sightline import NOTICE
from sightline.serve.limits import Limits

Seen = Counter[tuple[str, int]]
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(hypothesis.HealthCheck),
    "phases": [hypothesis.Phase.generate],  # a case that fails is shown as it is
}


@pytest.fixture(autouse=True)
def _kept_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hypothesis keeps stands in no folder of the project."""
    configuration.set_hypothesis_home_dir(tmp_path_factory.getbasetemp() / "hypothesis")
    yield
    configuration.set_hypothesis_home_dir(None)


def helped(body: Any, count: int) -> Any:
    """Every other body with the right model, and every fourth with a real image: random ones never get that far."""
    if not isinstance(body, dict) or count % 2:
        return body
    made = {**body, "model": IDENTITY.name}
    if count % 4 == 0:
        shown = {"type": "image_url", "image_url": {"url": url(png())}}
        made["messages"] = [{"role": "user", "content": [shown, {"type": "text", "text": "Where?"}]}]
    return made


def flood(server: Running, cases: dict[str, int]) -> Seen:
    """Ask every route in both modes, so many times each (`*`: those that are not named); what came back."""
    seen: Seen = Counter()
    with server.client() as client:
        document = client.get("/openapi.json").json()
        assert {CHAT, "/v1/models", "/v1/models/{name}", "/health", "/metrics"} <= set(document["paths"])
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=server.url)
        for found in schema.get_all_operations():
            operation = found.ok()
            many = cases.get(operation.path, cases["*"])
            for mode in schemathesis.GenerationMode if many else ():
                probe(operation, mode, many, client, seen)
        assert server.door.inside == {}
    return seen


def probe(operation: Any, mode: Any, many: int, client: httpx.Client, seen: Seen) -> None:
    """Ask one route in one mode."""

    @hypothesis.settings(max_examples=many, **SETTINGS)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        sent = case.as_transport_kwargs()
        body: dict[str, Any] = {}
        if "json" in sent:
            body = {"json": helped(sent["json"], sum(seen.values()))}
        elif isinstance(sent.get("data"), bytes | str):
            body = {"content": sent["data"]}
        headers = {k: v for k, v in dict(sent.get("headers") or {}).items() if k.lower() == "content-type"}
        path = sent["url"].removeprefix(str(client.base_url).rstrip("/"))
        try:
            answer = client.request(sent["method"], path, params=sent.get("params"), headers=headers, **body)
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError, ValueError):
            return  # what httpx cannot write was never sent
        seen[operation.path, answer.status_code] += 1
        assert answer.status_code < 500, (operation.path, answer.text)
        assert answer.headers["sightline-notice"] == NOTICE
        if answer.status_code != 200:
            assert not LEAK.search(answer.text), (operation.path, answer.text)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:  # a route without parameters cannot be asked wrongly
        assert mode == schemathesis.GenerationMode.NEGATIVE


def test_no_request_is_a_fault_of_ours() -> None:
    with running(Parrot()) as server:
        seen = flood(server, {CHAT: 60, "*": 10})
    assert sum(seen.values()) >= 100
    assert seen[CHAT, 200] >= 5  # or nothing was tried behind the first check
    assert seen[CHAT, 422] >= 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_request_of_thousands_is_a_fault_of_ours() -> None:
    with running(Parrot()) as server:
        seen = flood(server, {CHAT: 2500, "/v1/models/{name}": 400, "*": 100})
    print(sorted(seen.items()))
    assert sum(seen.values()) >= 5000
    assert seen[CHAT, 200] >= 200
    assert seen[CHAT, 422] >= 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_request_is_a_fault_of_a_real_model(language: Path) -> None:
    import models  # with torch, which the tests above do without
    from sightline.serve.local import Local

    bundle = models.bundle(language)
    bundle.model.eval()
    with running(Local(bundle, IDENTITY, 4), limits=Limits(answer=4, usual=2)) as server:
        seen = flood(server, {CHAT: 250, "*": 0})
        assert server.backend.engine.failures == 0
        assert server.backend.engine.tokens >= 100
    print(sorted(seen.items()))
    assert sum(seen.values()) >= 300
    assert seen[CHAT, 200] >= 40
