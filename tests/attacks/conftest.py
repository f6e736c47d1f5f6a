"""The report of the attacks, filled as they run and shown at the end."""

from __future__ import annotations

import pytest

from tests.attacks.report import Report

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[_REPORT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash.get(_REPORT, None)
    if report is None or not report.verdicts:
        return
    terminalreporter.section("attacks")
    for line in report.summary():
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"the whole table: {report.write()}")
