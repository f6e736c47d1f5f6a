"""What payloads begin with: how they come by modules that the policy does not let them import."""

from __future__ import annotations

OS = "import random\nos = random._os\n"
MODULE = "import random\n{0} = random._os.sys.modules['{0}']\n"
THREADING = "import queue\nthreading = queue.threading\n"
# The runner's own objects, found by its frames: its channel to the supervisor, and the nonce of the execution.
STEAL = """
import statistics
frame = statistics.sys._getframe()
while not hasattr(frame.f_locals.get('self'), '_channel'): frame = frame.f_back
me = frame.f_locals['self']
channel, nonce = me._channel, me._calls.nonce
"""
