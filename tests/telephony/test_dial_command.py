"""``glm-voice dial``: what it says about arguments that cannot be used."""

import argparse

import pytest

from telephony.outbound.command import add_arguments, parse_retries, run


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_rules_are_read_by_outcome():
    assert parse_retries(["busy=300,1800", "no-answer=60"]) == {
        "busy": (300.0, 1800.0),
        "no-answer": (60.0,),
    }


@pytest.mark.parametrize("rule", ["busy", "busy=", "busy=soon", "asleep=60", "busy=-1"])
def test_a_rule_that_is_none_is_named(rule):
    with pytest.raises(ValueError, match="--retry"):
        parse_retries([rule])


def test_without_a_token_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("GLM_OPERATOR_TOKEN", raising=False)
    with pytest.raises(ValueError, match="GLM_OPERATOR_TOKEN"):
        run(options("+15550100003"))


def test_a_gateway_that_is_not_there_is_named(unused_tcp_port):
    with pytest.raises(ValueError, match="cannot be reached"):
        run(options("+15550100003", "--token", "x", "--url", f"http://127.0.0.1:{unused_tcp_port}"))


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"calls\.csv"):
        run(options(str(tmp_path / "calls.csv"), "--token", "x"))
