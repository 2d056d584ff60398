"""When a container is started again: the series of the kubelet's back-off, and rules by exit code."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cumulet.common import clock
from cumulet.instances.groups.restarts import begin_back_off, is_restarted, leave_back_off
from cumulet.instances.model.lifecycle import ExitCodes, RestartPolicy, RestartRule
from cumulet.instances.model.properties import ContainerProperties
from cumulet.instances.store.records import ContainerStatus, State


def ended(status: ContainerStatus, ago: float) -> ContainerStatus:
    """The status of a container that has ended some seconds ago."""
    finish = clock.rfc3339_micro(clock.now() - timedelta(seconds=ago))
    status.current_state = State("Terminated", "Error", finish, finish, 1)
    return status


def test_the_first_restart_is_immediate_and_the_others_wait_twice_as_long_each() -> None:
    status, waits = ContainerStatus(), []
    for _ in range(8):
        waits.append(round(begin_back_off(ended(status, 0))))
        leave_back_off(status)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_the_time_since_the_end_counts() -> None:
    status = ContainerStatus(back_off=20, back_off_left=clock.rfc3339_micro())
    assert round(begin_back_off(ended(status, 15))) == 5
    assert begin_back_off(ended(status, 25)) == 0


def test_a_container_that_ran_for_ten_minutes_begins_the_series_anew() -> None:
    before = clock.rfc3339_micro(clock.now() - timedelta(seconds=601))
    status = ContainerStatus(back_off=300, back_off_left=before)
    assert begin_back_off(ended(status, 0)) == 0
    leave_back_off(status)
    assert round(begin_back_off(ended(status, 0))) == 10


@pytest.mark.parametrize(
    ("group", "own", "code", "expected"),
    [
        ("Always", None, 0, True),
        ("OnFailure", None, 0, False),
        ("OnFailure", None, 1, True),
        ("Never", None, 1, False),
        ("Always", "Never", 1, False),
        ("Never", "OnFailure", 1, True),
    ],
)
def test_the_policy_of_a_container_has_precedence(
    group: RestartPolicy, own: RestartPolicy | None, code: int, expected: bool
) -> None:
    assert is_restarted(ContainerProperties(image="i", restart_policy=own), group, code) is expected


@pytest.mark.parametrize(("code", "expected"), [(42, True), (1, False), (0, False), (77, True)])
def test_a_rule_restarts_whatever_the_policy_says(code: int, expected: bool) -> None:
    rules = [
        RestartRule(action="Restart", exit_codes=ExitCodes(operator="In", values=[42])),
        RestartRule(action="Restart", exit_codes=ExitCodes(operator="NotIn", values=[0, 1, 42])),
    ]
    properties = ContainerProperties(image="i", restart_policy="Never", restart_policy_rules=rules)
    assert is_restarted(properties, "Always", code) is expected
