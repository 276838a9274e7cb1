"""The other end of the line: a Twilio on loopback, scripted callers, reports."""

from telephony.simulator.callee import Callee, PhoneBook, load_phone_book
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.commands import Outputs, rehearse, simulate
from telephony.simulator.loading import load_scenarios
from telephony.simulator.loopback import Loopback, running_twilio
from telephony.simulator.network import Network, Stall
from telephony.simulator.rehearsal import run_directory, run_scenario
from telephony.simulator.report import CallReport
from telephony.simulator.scenario import Scenario, load_scenario
from telephony.simulator.suite import Plan, collect, run_suite
from telephony.simulator.suite_report import SuiteReport
from telephony.simulator.target import Target

__all__ = [
    "CallReport",
    "Callee",
    "Loopback",
    "LoopbackTwilio",
    "Network",
    "Outputs",
    "PhoneBook",
    "Plan",
    "Scenario",
    "Stall",
    "SuiteReport",
    "Target",
    "collect",
    "load_phone_book",
    "load_scenario",
    "load_scenarios",
    "rehearse",
    "run_directory",
    "run_scenario",
    "run_suite",
    "running_twilio",
    "simulate",
]
