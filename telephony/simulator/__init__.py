"""The other end of the line: a Twilio on loopback, scripted callers, reports."""

from telephony.simulator.commands import Outputs, rehearse, simulate
from telephony.simulator.rehearsal import run_directory, run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario, load_scenario
from telephony.simulator.suite import Plan, collect, run_suite
from telephony.simulator.suite_report import SuiteReport
from telephony.simulator.target import Target

__all__ = [
    "CallReport",
    "Outputs",
    "Plan",
    "Scenario",
    "SuiteReport",
    "Target",
    "collect",
    "load_scenario",
    "rehearse",
    "run_directory",
    "run_scenario",
    "run_suite",
    "simulate",
]
