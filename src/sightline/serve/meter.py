"""Figures for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

EDGES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """Counts requests by route and status, and how long they took. One event loop uses it."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(EDGES) + 1))
        self.seconds: dict[str, float] = defaultdict(float)
        self.cancelled = 0

    def note(self, route: str, status: int, seconds: float) -> None:
        """A request is done."""
        self.requests[route, status] += 1
        self.buckets[route][bisect_left(EDGES, seconds)] += 1
        self.seconds[route] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """Everything, and further figures by name; names that end with `_total` only grow."""
        lines = ["# TYPE sightline_requests_total counter"]
        lines += [
            f'sightline_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        lines.append("# TYPE sightline_request_seconds histogram")
        for route, buckets in sorted(self.buckets.items()):
            total = 0
            for edge, count in zip([*map(str, EDGES), "+Inf"], buckets, strict=True):
                total += count
                lines.append(f'sightline_request_seconds_bucket{{route="{route}",le="{edge}"}} {total}')
            lines.append(f'sightline_request_seconds_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            lines.append(f'sightline_request_seconds_count{{route="{route}"}} {total}')
        for name, value in {"cancelled_total": self.cancelled, **gauges, "memory_bytes": memory()}.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE sightline_{name} {kind}", f"sightline_{name} {value:.15g}"]
        return "\n".join(lines) + "\n"


def memory() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
