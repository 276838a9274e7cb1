"""Verdicts over several calls."""

import itertools

import pytest

from telephony.simulator.suite_report import (
    Attempt,
    ExitStatus,
    Outcome,
    ScenarioReport,
    SuiteReport,
    pass_hat,
)


@pytest.mark.parametrize(("passed", "made"), [(0, 3), (2, 3), (3, 3), (4, 7), (0, 0)])
def test_pass_hat_k_is_the_share_of_all_choices_of_k_calls_that_all_passed(passed, made):
    calls = [True] * passed + [False] * (made - passed)
    counted = []
    for k in range(1, made + 1):
        choices = list(itertools.combinations(calls, k))
        counted.append(sum(map(all, choices)) / len(choices))

    assert pass_hat(passed, made) == pytest.approx(counted)


def suite(*rows):
    scenarios = [
        ScenarioReport(
            name=f"scenario {n}",
            file="s.yaml",
            attempts=[attempt.model_copy(update={"number": i}) for i, attempt in enumerate(row, 1)],
        )
        for n, row in enumerate(rows)
    ]
    return SuiteReport(target="http://a", started_at=0, seconds=1, scenarios=scenarios)


SKIPPED = Attempt(number=1, skipped="no time")
ERROR = Attempt(number=1, error="ValueError: records")


def test_calls_that_were_skipped_count_neither_for_nor_against_a_scenario(call_report):
    passed, failed = (Attempt(number=1, call=call_report(holds=holds)) for holds in (True, False))

    report = suite([passed, failed, SKIPPED], [passed, passed, passed], [SKIPPED, SKIPPED])

    assert [scenario.pass_hat for scenario in report.scenarios] == [[0.5, 0.0], [1, 1, 1], []]
    assert report.pass_hat == [0.75, 0.5]
    assert (report.made, report.passed) == (5, 4)
    assert report.counts == {"passed": 4, "failed": 1, "error": 0, "skipped": 3}


@pytest.mark.parametrize(
    ("kinds", "outcome", "status"),
    [
        ("passed passed", Outcome.PASSED, ExitStatus.PASSED),
        ("passed skipped", Outcome.SKIPPED, ExitStatus.OUT_OF_BUDGET),
        ("failed skipped", Outcome.FAILED, ExitStatus.FAILED),
        ("passed error skipped", Outcome.ERROR, ExitStatus.FAILED),
    ],
)
def test_what_went_wrong_outranks_what_did_not_happen(call_report, kinds, outcome, status):
    attempts = {
        "passed": Attempt(number=1, call=call_report()),
        "failed": Attempt(number=1, call=call_report(holds=False)),
        "skipped": SKIPPED,
        "error": ERROR,
    }

    report = suite([attempts[kind] for kind in kinds.split()])

    assert report.outcome is outcome
    assert report.exit_status is status


def test_a_report_reads_back_and_derives_its_verdicts_anew(call_report):
    report = suite([Attempt(number=1, call=call_report(holds=False)), SKIPPED])
    text = report.model_dump_json().replace('"outcome":"failed"', '"outcome":"passed"')

    again = SuiteReport.model_validate_json(text)

    assert again == report
    assert again.outcome is Outcome.FAILED
