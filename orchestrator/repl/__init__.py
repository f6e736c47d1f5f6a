"""``cellblock repl``: an interactive session in a sandbox, with checkpoints and branches.

``main`` begins and ends it, ``session`` runs what was typed, ``commands`` does what begins with ``%``.
"""

from orchestrator.repl.main import repl

__all__ = ["repl"]
