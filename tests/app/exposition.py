"""What `/metrics` says, for tests."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape", "scrape"]


@dataclass(frozen=True)
class Family:
    """A metric by the name that it is queried by: a counter's ends in `_total`."""

    name: str
    kind: str
    labels: frozenset[str]


class Scrape:
    """The samples of one exposition."""

    def __init__(self, text: str) -> None:
        self.families: list[Family] = []
        self.samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(text):
            suffix = "_total" if family.type == "counter" else ""
            names = {name for sample in family.samples for name in sample.labels}
            if family.type == "histogram":
                names.discard("le")
            self.families.append(Family(family.name + suffix, family.type, frozenset(names)))
            for sample in family.samples:
                series = self.samples.setdefault(sample.name, {})
                series[frozenset(sample.labels.items())] = sample.value

    def value(self, name: str, /, **labels: str) -> float:
        return self.samples[name][frozenset(labels.items())]

    def by(self, name: str, *labels: str) -> Mapping[tuple[str, ...], float]:
        """Sums of a name's samples by these labels, in their order; without those of 0."""
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for key, value in self.samples[name].items():
            sums[tuple(dict(key)[label] for label in labels)] += value
        return {key: value for key, value in sums.items() if value}

    def buckets(self, name: str, /, **labels: str) -> dict[str, float]:
        """A histogram's cumulative counts by upper bound."""
        return {
            dict(key)["le"]: value
            for key, value in self.samples[f"{name}_bucket"].items()
            if key >= labels.items()
        }


async def scrape(client: httpx.AsyncClient) -> Scrape:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return Scrape(response.text)
