"""``python -m orchestrator.demo``: a ``CodeAgent`` plans a party, every step shown as it happens.

With ``OPENAI_API_KEY`` set it asks the model ``CELLBLOCK_MODEL`` (at ``OPENAI_BASE_URL``, if that is set). Without, a
script stands in for the model: its words are given, but its code really runs in the sandbox, and what comes out is
computed there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rich.console import Console

from orchestrator.agents import CodeAgent, LogLevel
from orchestrator.agents.printer import RunPrinter
from orchestrator.config import Config
from orchestrator.errors import CellblockError
from orchestrator.models import Model, OpenAIServerModel, ScriptedModel

TASK = """
Alfred needs to prepare for the party. Here are the tasks:
1. Prepare the drinks - 30 minutes
2. Decorate the mansion - 60 minutes
3. Set up the menu - 45 minutes
4. Prepare the music and playlist - 45 minutes

If we start right now, at what time will the party be ready?
"""

SCRIPT = (
    """Thought: I take the tasks and their minutes out of the text.
<code>
import re

tasks = '''1. Prepare the drinks - 30 minutes
2. Decorate the mansion - 60 minutes
3. Set up the menu - 45 minutes
4. Prepare the music and playlist - 45 minutes'''
minutes = {name: int(number) for name, number in re.findall(r"\\d+\\. (.+) - (\\d+) minutes", tasks)}
for name, number in minutes.items():
    print(f"{number:3} min  {name}")
</code>""",
    """Thought: One after the other, they take the sum of these.
<code>
total = sum(minutes.values())
print(f"{len(minutes)} tasks, {total} minutes in all")
total
</code>""",
    """Thought: I add that to the time now.
<code>
import datetime

start = datetime.datetime.now(datetime.timezone.utc)
ready = start + datetime.timedelta(minutes=total)
print("start", start.isoformat(timespec="seconds"))
final_answer(f"If we start now, at {start:%H:%M} UTC, the party is ready at {ready:%H:%M} UTC, {total} minutes later.")
</code>""",
)


def choose_model(config: Config, env: Mapping[str, str]) -> tuple[Model, str]:
    """The model, and a line that says which one it is."""
    if not env.get("OPENAI_API_KEY"):
        return ScriptedModel(SCRIPT), "Model: a script (OPENAI_API_KEY is not set); its code runs in a real sandbox."
    place = f" at {env['OPENAI_BASE_URL']}" if env.get("OPENAI_BASE_URL") else ""
    model = OpenAIServerModel(config.model, api_base=env.get("OPENAI_BASE_URL"), api_key=env["OPENAI_API_KEY"])
    return model, f"Model: {config.model}{place}"


def main() -> int:
    """Runs the task; 0 if it was answered, 1 if the sandbox or the model failed."""
    console = Console()
    try:
        model, line = choose_model(Config.load(), os.environ)
        console.print(line, markup=False, highlight=False)
        printer = RunPrinter(console)
        with CodeAgent([], model, additional_authorized_imports=["datetime"], verbosity_level=LogLevel.OFF) as agent:
            for event in agent.run(TASK, stream=True):
                printer.show(event)
    except CellblockError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
