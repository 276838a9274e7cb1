"""The other end of the line: a Twilio on loopback, scripted callers, reports."""

from telephony.simulator.commands import rehearse, simulate
from telephony.simulator.rehearsal import run_directory, run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario, load_scenario
from telephony.simulator.target import Target

__all__ = [
    "CallReport",
    "Scenario",
    "Target",
    "load_scenario",
    "rehearse",
    "run_directory",
    "run_scenario",
    "simulate",
]
