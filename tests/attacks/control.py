"""The positive controls, all of one place in one go: what each payload does where nothing guards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.sandbox.lockdown import LABEL_CREATED, LABEL_DEADLINE, LABEL_OWNER, Owner
from orchestrator.stack import engine
from tests.archives import READABLE, packed
from tests.attacks import case as cases
from tests.attacks.case import Case, Place
from tests.attacks.images import OPEN, SECRET
from tests.attacks.target import Listeners, fill_in

SECONDS = 240  # for all of one place
_DRIVER = Path(__file__).with_name("driver.py")
# In the order of linux/capability.h.
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ"),
)  # newer ones are part of SYS_ADMIN, and old engines do not know them
_TMPFS = "rw,exec,size=512m,mode=1777"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a payload did there: what it wrote, and how it ended."""

    text: str
    ending: str


@dataclass(frozen=True, slots=True)
class Controls:
    """What every payload did, by the case's id."""

    seen: dict[str, Seen]

    def judge(self, case: Case) -> str:
        """Nothing if the attack works there; else what was seen instead."""
        seen = self.seen[case.id]
        if case.control.ending:
            return "" if seen.ending == case.control.ending else f"{seen.ending}: {seen.text[-2000:]}"
        return "" if re.search(_shows(case), seen.text) else f"{seen.ending}: {seen.text[-2000:]}"

    def is_absent(self, case: Case) -> bool:
        """This machine has not got what is attacked."""
        return bool(case.control.absent and re.search(case.control.absent, self.seen[case.id].text))


def _shows(case: Case) -> str:
    if case.control.shows:
        return case.control.shows
    return {"secret": SECRET.decode(), "open": OPEN.decode()}.get(case.canary, cases.WORD)


def run_controls(all_cases: Iterable[Case], image: str, listeners: Listeners, folder: Path) -> Controls:
    """Runs the payloads of both places."""
    jobs: dict[Place, list[dict[str, Any]]] = {Place.UNGUARDED: [], Place.HOST: []}
    host_file = {Place.UNGUARDED: Path("/tmp/canary-h"), Place.HOST: folder / "canary-h"}
    for case in all_cases:
        if case.control.place in jobs:
            place = case.control.place
            steps = case.control.steps or case.steps
            filled = [fill_in(step, case.canary, listeners, host_file[place]) for step in steps]
            is_deaf = case.control.ending == cases.IGNORED_THERE
            hangs = is_deaf or case.control.ending == cases.HEARD_THERE
            jobs[place].append({"name": case.id, "steps": filled, "hangs": hangs, "is_deaf": is_deaf})
    found = _in_container(image, jobs[Place.UNGUARDED]) + _on_host(folder, jobs[Place.HOST])
    return Controls({entry["name"]: Seen(entry["text"], entry["ending"]) for entry in found})


def _results(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]


def _on_host(folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not jobs:
        return []
    (folder / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, str(_DRIVER), str(folder / "jobs.json"), str(folder)],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    return _results(done.stdout)


def _in_container(image: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As open as a container can be: root, privileged, nothing filtered or masked. Only the network is missing."""
    if not jobs:
        return []
    client = engine.connect().api
    container = client.create_container_from_config(_unguarded(image))["Id"]
    try:
        files = {"driver.py": _DRIVER.read_bytes(), "jobs.json": json.dumps(jobs).encode()}
        archive = packed({f"control/{name}": (content, READABLE) for name, content in files.items()})
        client.put_archive(container, "/", archive.getvalue())
        client.start(container)
        status = client.wait(container, timeout=SECONDS)["StatusCode"]
        output = client.logs(container, stdout=True, stderr=False)
        assert status == 0, client.logs(container, stdout=False, stderr=True)[-2000:]
        return _results(output)
    finally:
        client.remove_container(container, force=True)
        client.close()


def _unguarded(image: str) -> dict[str, Any]:
    now = int(time.time())
    return {
        "Image": image,
        "Entrypoint": [
            "/opt/py/bin/python3",
            "-B",
            "-X",
            "utf8",
            "/control/driver.py",
            "/control/jobs.json",
            "/workspace",
        ],
        "Cmd": [],
        "User": "0:0",
        "Env": ["PYTHONPATH=/opt/py/site-packages", "OPENBLAS_NUM_THREADS=1"],
        "NetworkDisabled": True,
        "Labels": {LABEL_OWNER: str(Owner.me()), LABEL_CREATED: str(now), LABEL_DEADLINE: str(now + SECONDS)},
        "HostConfig": {
            "NetworkMode": "none",
            # Not "Privileged", which an engine that is itself in a container may not be able to give.
            "CapAdd": _capabilities(),
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "Tmpfs": {"/workspace": _TMPFS, "/tmp": _TMPFS, "/branches": _TMPFS},
            "Memory": 1 << 30,
            "MemorySwap": 1 << 30,
            "PidsLimit": 2048,
            "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
        },
    }


def _capabilities() -> list[str]:
    """All that this machine lets anybody have."""
    with open("/proc/self/status") as file:
        (bounding,) = (int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return [name for bit, name in enumerate(_CAPABILITIES) if bounding >> bit & 1]
