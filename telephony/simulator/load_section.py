"""A load run as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from telephony.simulator.chart import Chart


@dataclass(frozen=True)
class LoadSection:
    """What the page says about a load run.

    Attributes:
        title: What was loaded, and how.
        verdict: What came out, in a sentence.
        passed: Whether that is as it should be.
        charts: Percentiles over time, over the number of calls, and whatever else was measured.
        facts: Figures that are no line.
    """

    title: str
    verdict: str
    passed: bool
    charts: Sequence[Chart]
    facts: Mapping[str, str] = field(default_factory=dict)
