"""Fixtures of the hostile executor's tests."""

from __future__ import annotations

import pytest

from orchestrator.sandbox import files, link, state


@pytest.fixture
def short_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for a request, where it is half a minute in real life."""
    monkeypatch.setattr(files, "REQUEST_DEADLINE", 0.5)
    monkeypatch.setattr(files, "FILE_DEADLINE", 0.5)
    monkeypatch.setattr(state, "STATE_DEADLINE", 0.5)
    monkeypatch.setattr(link, "ATTACH_DEADLINE", 0.5)
