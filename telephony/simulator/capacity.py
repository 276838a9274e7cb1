"""How many calls an agent answers well: a search by load runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from telephony.simulator.load_report import CapacityReport, LoadReport, Try, judge

RunCalls = Callable[[int], Awaitable[LoadReport]]
"""A load run with so many callers."""


async def find_capacity(
    run: RunCalls,
    p95_ms: float,
    *,
    most: int = 512,
    repeat: int = 1,
    progress: Callable[[str], None] | None = None,
) -> CapacityReport:
    """Find the largest number of calls that are all answered well.

    That is: voice-to-voice time within the bound at p95, no gap over 60 ms, no call refused or
    broken, no line without an answer. The number is doubled until it does not hold, then the gap
    between what held and what did not is halved until it is a twentieth or one call.

    Args:
        run: Makes a load run.
        p95_ms: The bound, in milliseconds.
        most: More are not tried.
        repeat: Runs in a row that a number has to stand.
        progress: Told what each run came to.

    Returns:
        The number, and every run.

    Raises:
        ValueError: The bound, ``most`` or ``repeat`` is not positive.
    """
    for name, value in (("p95", p95_ms), ("most", most), ("repeat", repeat)):
        if not value > 0:
            raise ValueError(f"{name}: expected more than 0, got {value:g}")
    tries: list[Try] = []

    async def holds(calls: int) -> bool:
        for _ in range(repeat):
            report = await run(calls)
            why_not = judge(report, p95_ms)
            held = why_not is None
            tries.append(Try(callers=calls, held=held, why_not=why_not, report=report))
            if progress is not None:
                progress(f"{calls} calls: {why_not or 'within bounds'}")
            if not held:
                return False
        return True

    good, bad = 0, most + 1
    calls = 1
    while calls < bad:
        if await holds(calls):
            good = calls
            calls = min(2 * calls, most) if calls < most else bad
        else:
            bad = calls
    while bad - good > max(1, good // 20) and bad <= most:
        middle = (good + bad) // 2
        if await holds(middle):
            good = middle
        else:
            bad = middle
    failed = [one for one in tries if not one.held and one.callers == bad]
    limit = f"{bad} calls: {failed[0].why_not}" if failed else f"{most} calls were the most to try"
    return CapacityReport(
        p95_ms=p95_ms, repeat=repeat, largest=good, limit=limit, tries=tuple(tries)
    )
