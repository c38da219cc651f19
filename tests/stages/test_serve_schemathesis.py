"""5,000 requests that schemathesis makes up from the server's description, fitting and not: none is a fault of ours."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx
import pytest

from serving import IDENTITY, Parrot, png, running, url
from sightline import NOTICE

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

LEAK = re.compile(r"0x[0-9a-f]{6,}|Traceback|File \"|site-packages|sightline/serve", re.IGNORECASE)
CASES = {
    "/v1/chat/completions": 2500,
    "/v1/models": 20,
    "/v1/models/{name}": 400,
    "/health": 20,
    "/metrics": 20,
}


def helped(body: Any, count: int) -> Any:
    """Every other body with the right model, and every fourth with a real image: random ones never get that far."""
    if not isinstance(body, dict) or count % 2:
        return body
    made = {**body, "model": IDENTITY.name}
    if count % 4 == 0:
        shown = {"type": "image_url", "image_url": {"url": url(png())}}
        made["messages"] = [{"role": "user", "content": [shown, {"type": "text", "text": "Where?"}]}]
    return made


def test_no_request_is_a_fault_of_ours() -> None:
    seen: Counter[tuple[str, int]] = Counter()
    settings = {
        "deadline": None,
        "database": None,
        "derandomize": True,
        "suppress_health_check": list(hypothesis.HealthCheck),
    }
    with running(Parrot()) as server, server.client() as client:
        document = client.get("/openapi.json").json()
        assert set(document["paths"]) == set(CASES)
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=server.url)
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in schemathesis.GenerationMode:
                probe(operation, mode, client, seen, settings)
        assert server.door.inside == {}
    print(sorted(seen.items()))
    assert sum(seen.values()) >= 5000
    assert [key for key in seen if key[1] >= 500] == []
    assert seen["/v1/chat/completions", 200] >= 100  # or nothing was tried behind the first check
    assert seen["/v1/chat/completions", 422] >= 500


def probe(
    operation: Any, mode: Any, client: httpx.Client, seen: Counter[tuple[str, int]], settings: dict[str, Any]
) -> None:
    """Ask one route in one mode."""

    @hypothesis.settings(max_examples=CASES[operation.path], **settings)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        sent = case.as_transport_kwargs()
        body = {"json": helped(sent["json"], sum(seen.values()))} if "json" in sent else {}
        headers = {k: v for k, v in dict(sent.get("headers") or {}).items() if k.lower() == "content-type"}
        path = sent["url"].removeprefix(str(client.base_url).rstrip("/"))
        try:
            answer = client.request(sent["method"], path, params=sent.get("params"), headers=headers, **body)
        except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError, ValueError):
            return  # what httpx cannot write was never sent
        seen[operation.path, answer.status_code] += 1
        assert answer.status_code < 500, (operation.path, answer.text)
        assert answer.headers["sightline-notice"] == NOTICE
        assert not LEAK.search(answer.text)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        assert (
            mode == schemathesis.GenerationMode.NEGATIVE
        )  # a route without parameters cannot be asked wrongly
