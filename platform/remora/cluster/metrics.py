"""Publishes what hosts and registry measure of themselves as Ray metrics, every few seconds.

Ray's node agent exports them to Prometheus under the names of ``runtime.measures``, with ``ray_`` before them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ray.util.metrics import Counter, Gauge, Histogram

from remora.runtime.measures import LATENCY_S, Measure

T = TypeVar("T")
PUBLISH_S = 2.0
"""Seconds between publications."""


class Publisher(Generic[T]):
    """Publishes the measures of one thing from a thread of its own, which no handler can block.

    Args:
        measures: What to publish.
        source: What is measured.
        tags: Tags of all of them.
        samples: Latencies in seconds, emptied as they are published.
    """

    def __init__(
        self, measures: Sequence[Measure[T]], source: T, tags: dict[str, str], samples: deque[float] | None = None
    ) -> None:
        self._source = source
        self._samples = samples if samples is not None else deque()
        self._publish = [self._publication(measure, tuple(tags)) for measure in measures]
        self._tags = tags
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remora-metrics", daemon=True)
        self._log = logging.getLogger("remora.metrics")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was counted since the last publication is not published."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(PUBLISH_S):
            try:
                for publish in self._publish:
                    publish()
            except Exception:  # noqa: BLE001 - whatever Ray raises: figures are not worth a host
                self._log.exception("metrics were not published")

    def _publication(self, measure: Measure[T], keys: tuple[str, ...]) -> Callable[[], None]:
        if measure.kind == "counter":
            return self._counter(measure, Counter(measure.name, measure.meaning, tag_keys=keys))
        if measure.kind == "gauge":
            gauge: Any = Gauge(measure.name, measure.meaning, tag_keys=keys)
            return lambda: gauge.set(measure.read(self._source), tags=self._tags)
        histogram: Any = Histogram(measure.name, measure.meaning, boundaries=list(LATENCY_S), tag_keys=keys)
        return lambda: self._observe(histogram)

    def _counter(self, measure: Measure[T], counter: Any) -> Callable[[], None]:  # noqa: ANN401 - Ray's types are not read
        published = 0.0

        def publish() -> None:
            nonlocal published
            now = measure.read(self._source)
            if now > published:
                counter.inc(now - published, tags=self._tags)
                published = now

        return publish

    def _observe(self, histogram: Any) -> None:  # noqa: ANN401 - as above
        for _ in range(len(self._samples)):
            histogram.observe(self._samples.popleft(), tags=self._tags)
