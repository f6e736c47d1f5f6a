"""A picture for tests that hand one on and never look at it."""

from __future__ import annotations

from orchestrator.media import AgentImage

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20  # begins like one; there is nothing to decode
PICTURE = AgentImage(PNG, "image/png")
