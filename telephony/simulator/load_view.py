"""Load runs and searches as the page shows them, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from telephony.simulator.chart import Chart
from telephony.simulator.load_report import (
    LONGEST_GAP_MS,
    CapacityReport,
    LoadReport,
    Percentiles,
    Stretch,
)
from telephony.simulator.load_section import LoadSection


def load_lines(report: LoadReport) -> Iterator[str]:
    """What a run came to, for a person."""
    yield (
        f"{report.calls} calls, {report.most_at_once} at once: {report.passed} of "
        f"{report.judged} judged went by their scenario, {report.refused} refused, "
        f"{report.broken} broken, {report.unanswered} lines unanswered"
    )
    yield f"voice to voice  {_spread(report.voice_to_voice_ms)}"
    yield (
        f"gaps            {report.gaps} over {LONGEST_GAP_MS:g} ms in {report.audio_s:.0f} s of "
        f"audio; {_spread(report.gap_ms)}"
    )
    yield f"webhook         {_spread(report.webhook_ms)}"
    if report.errors:
        told = ", ".join(f"{count} x {code}" for code, count in report.errors.items())
        yield f"errors          {told}"
    if report.pass_hat:
        told = ", ".join(f"pass^{k} {share:.2f}" for k, share in enumerate(report.pass_hat, 1))
        yield f"in a row        {told}"
    yield f"own lateness    {_spread(report.lateness_ms)}"
    if not report.trustworthy:
        yield "The callers themselves were late: these figures are not the agent's alone."


def load_section(report: LoadReport, verdict: str, passed: bool) -> LoadSection:
    """A run for the page.

    Args:
        report: The run.
        verdict: What came out, in a sentence.
        passed: Whether that is as it should be.
    """
    title = f"Load: {report.callers} callers for {report.seconds:g} s"
    return LoadSection(title, verdict, passed, _charts(report), _facts(report))


def capacity_section(report: CapacityReport) -> LoadSection:
    """A search for the page; the charts are those of the last run within bounds, if any."""
    verdict = f"{report.largest} calls at once. {report.limit}."
    tries = sorted(report.tries, key=lambda one: one.callers)
    x = [float(one.callers) for one in tries]
    p95 = [one.report.voice_to_voice_ms for one in tries]
    charts = [
        Chart(
            "Voice to voice by the number of callers",
            "callers",
            "ms",
            x,
            {
                "p50": [value.p50 if value else None for value in p95],
                "p95": [value.p95 if value else None for value in p95],
            },
            limit=report.p95_ms,
        )
    ]
    held = [one.report for one in report.tries if one.held and one.callers == report.largest]
    facts = {} if not held else _facts(held[-1])
    title = f"Capacity: voice to voice within {report.p95_ms:g} ms at p95"
    return LoadSection(title, verdict, report.largest > 0, charts, facts)


def _charts(report: LoadReport) -> list[Chart]:
    over, by = report.over_time, report.by_calls
    charts = []
    if over:
        charts = [
            _voice("Voice to voice over time", "seconds", over),
            Chart(
                "Calls over time",
                "seconds",
                "calls",
                [stretch.at for stretch in over],
                {
                    "up": [float(stretch.calls) for stretch in over],
                    "refused": [float(stretch.refused) for stretch in over],
                    f"gaps over {LONGEST_GAP_MS:g} ms": [float(stretch.gaps) for stretch in over],
                },
            ),
        ]
    if len(by) > 1:
        charts.append(_voice("Voice to voice by the number of calls", "calls", by))
    return charts


def _voice(title: str, axis: str, stretches: Sequence[Stretch]) -> Chart:
    values = [stretch.voice_to_voice_ms for stretch in stretches]
    lines = {
        name: [getattr(value, name) if value is not None else None for value in values]
        for name in ("p50", "p95", "worst")
    }
    return Chart(title, axis, "ms", [stretch.at for stretch in stretches], lines)


def _facts(report: LoadReport) -> dict[str, str]:
    return {
        "calls": f"{report.calls}, of which {report.refused} refused, {report.broken} broken, "
        f"{report.cut_short} cut short by the end",
        "passed": f"{report.passed} of {report.judged}",
        "voice to voice": _spread(report.voice_to_voice_ms),
        f"gaps over {LONGEST_GAP_MS:g} ms": f"{report.gaps} in {report.audio_s:.0f} s of audio",
        "webhook": _spread(report.webhook_ms),
        "errors": ", ".join(f"{code}: {count}" for code, count in report.errors.items()) or "none",
        "lateness of the callers' own ticks": _spread(report.lateness_ms),
    }


def _spread(values: Percentiles | None) -> str:
    if values is None:
        return "-"
    return (
        f"p50 {values.p50:.4g}, p95 {values.p95:.4g}, p99 {values.p99:.4g}, "
        f"worst {values.worst:.4g} ms ({values.count})"
    )
