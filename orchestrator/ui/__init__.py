"""An agent in the browser. Gradio is imported when a page is made, not before."""

from orchestrator.ui.gradio_ui import GradioUI

__all__ = ["GradioUI"]
