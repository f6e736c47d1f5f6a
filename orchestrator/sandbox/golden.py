"""What the engine was asked for, compared with what it says it made: before the container is started.

The create call is built from constants (``lockdown``). The engine's answer to ``inspect`` has the same fields and many
more; engines differ in what they add, in order and in spelling. So each setting that was asked for is compared, by a
rule where equality is not the point, and a list of further fields must be empty: those that would give the container
something of the host's. Fields that neither knows are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SettingIgnored

Rule = Callable[[Any, Any], bool]  # asked, found -> is that what was asked for?

# Must be empty, absent, zero or false, unless asked for. By the engine's own names, as in the create call.
MUST_BE_EMPTY = tuple(
    [
        f"HostConfig.{name}"
        for name in (
            *("Binds", "VolumesFrom", "VolumeDriver", "Devices", "DeviceCgroupRules", "DeviceRequests", "GroupAdd"),
            *("Links", "ExtraHosts", "PortBindings", "PublishAllPorts", "Privileged", "PidMode", "UTSMode"),
            *("UsernsMode", "Sysctls", "Cgroup", "CgroupParent", "Capabilities", "OomKillDisable", "StorageOpt"),
            *("Annotations", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
        )
    ]
    + [f"Config.{name}" for name in ("Volumes", "OnBuild", "MacAddress", "AttachStdin", "StdinOnce")]
    + ["NetworkSettings.Ports", "ExecIDs", "State.Running"]
)
BUILDERS_VARIABLES = frozenset({"PATH"})  # an image without any variable gets this one
MAX_SHOWN = 120  # characters of a value in a message: a system call filter has ten thousand
# What a person can do about the ones that kernels are known for.
HINTS = {
    "HostConfig.MemorySwap": "this kernel does not count swap: boot it with swapaccount=1, or with cgroup version 2",
    "HostConfig.PidsLimit": "this kernel has no pids control group",
    "HostConfig.NanoCpus": "this kernel has no CPU bandwidth control",
}
_ABSENT = None
_ENV = "Config.Env"


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that the engine ignored, changed, or added."""

    setting: str
    asked: Any
    found: Any

    def __str__(self) -> str:
        hint = f" ({HINTS[self.setting]})" if self.setting in HINTS else ""
        return f"{self.setting}: asked for {_shown(self.asked)}, found {_shown(self.found)}{hint}"


def differences(
    body: Mapping[str, Any], inspected: Mapping[str, Any], image_env: Collection[str] = ()
) -> tuple[Difference, ...]:
    """Where the engine's answer to ``inspect`` is not what ``body``, the create call's, asked for.

    ``image_env`` are the variables that the image brings along: the engine adds them.
    """
    asked = dict(_settings(body))
    found = {
        "Config": _mapping(inspected.get("Config")),
        "HostConfig": _mapping(inspected.get("HostConfig")),
        "NetworkSettings": _mapping(inspected.get("NetworkSettings")),
        "State": _mapping(inspected.get("State")),
        "": inspected,
    }

    def look(setting: str) -> Any:
        room, _, name = setting.rpartition(".")
        return found[room].get(name, _ABSENT)

    wrong = [
        Difference(setting, value, look(setting))
        for setting, value in asked.items()
        if setting != _ENV and not _is_as_asked(setting, value, look(setting))
    ]
    wrong += [
        Difference(setting, _ABSENT, look(setting))
        for setting in MUST_BE_EMPTY
        if setting not in asked and look(setting)
    ]
    if not _variables_as_asked(body, look(_ENV), image_env):
        wrong.append(Difference(_ENV, body.get("Env"), look(_ENV)))
    return tuple(wrong + list(_of_the_whole(body, inspected)))


def require_as_asked(body: Mapping[str, Any], inspected: Mapping[str, Any], image_env: Collection[str] = ()) -> None:
    """Raises SettingIgnored, naming every setting that is not as asked for, unless all are."""
    if wrong := differences(body, inspected, image_env):
        raise SettingIgnored("the engine did not make the container as asked: " + "; ".join(map(str, wrong)))


def _is_as_asked(setting: str, asked: Any, found: Any) -> bool:
    rule = _RULES.get(setting, same)
    return (type(found) is type(asked) or _is_empty(found)) and rule(asked, found)


def _variables_as_asked(body: Mapping[str, Any], found: Any, image_env: Collection[str]) -> bool:
    """All that were asked for, and no others but those of the image."""
    if not isinstance(found, list) and not _is_empty(found):
        return False
    asked, variables = set(body.get("Env") or ()), set(map(str, _list(found)))
    more = variables - asked - set(image_env)
    return asked <= variables and {entry.partition("=")[0] for entry in more} <= BUILDERS_VARIABLES


def _settings(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if name != "HostConfig":
            yield f"Config.{name}", value
    for name, value in body.get("HostConfig", {}).items():
        yield f"HostConfig.{name}", value


def _of_the_whole(body: Mapping[str, Any], inspected: Mapping[str, Any]) -> Iterator[Difference]:
    """What ``inspect`` tells in other words than the create call."""
    image = inspected.get("Image")
    if image != body["Image"]:  # asked for by id
        yield Difference("Image", body["Image"], image)
    asked = sorted(_mount_point(mount) for mount in body["HostConfig"].get("Mounts", ()))
    found = sorted(
        (str(m.get("Type")), str(m.get("Source")), str(m.get("Destination")), bool(m.get("RW")))
        for m in map(_mapping, _list(inspected.get("Mounts")))
        if not (m.get("Type") == "tmpfs" and m.get("Destination") in body["HostConfig"].get("Tmpfs", {}))
    )
    if asked != found:
        yield Difference("Mounts", asked, found)
    networks = set(_mapping(_mapping(inspected.get("NetworkSettings")).get("Networks")))
    if not networks <= {body["HostConfig"].get("NetworkMode")}:
        yield Difference("NetworkSettings.Networks", [], sorted(networks))


def _mount_point(mount: Mapping[str, Any]) -> tuple[str, str, str, bool]:
    return str(mount["Type"]), str(mount["Source"]), str(mount["Target"]), not mount["ReadOnly"]


# ------------------------------------------------------------------------------------------------------------- rules


def same(asked: Any, found: Any) -> bool:
    """Equal, and of one type; engines leave out what is empty or false, or write null."""
    if _is_empty(asked):
        return _is_empty(found)
    return type(asked) is type(found) and bool(asked == found)


def exactly(asked: Any, found: Any) -> bool:
    """Not even left out: what stands there then is the engine's own default."""
    return bool(asked == found)


def contains(asked: Any, found: Any) -> bool:
    """A mapping that has all that was asked for; engines fill in more."""
    return isinstance(found, Mapping) and all(
        contains(value, found.get(key)) if isinstance(value, Mapping) else same(value, found.get(key))
        for key, value in asked.items()
    )


def at_least(asked: Any, found: Any) -> bool:
    """A list that has all that was asked for, in any order; each further entry restricts more."""
    return isinstance(found, list) and set(asked) <= set(map(str, found))


def same_set(asked: Any, found: Any) -> bool:
    """The same entries, in any order."""
    return sorted(map(str, asked)) == sorted(map(str, _list(found)))


def same_capabilities(asked: Any, found: Any) -> bool:
    """The same capabilities, with CAP_ or without, in any order."""
    return _capabilities(asked) == _capabilities(_list(found))


def same_tmpfs(asked: Any, found: Any) -> bool:
    """The same places, each with the same options, in any order."""
    return isinstance(found, Mapping) and {place: sorted(options.split(",")) for place, options in asked.items()} == {
        place: sorted(str(options).split(",")) for place, options in found.items()
    }


def same_mounts(asked: Any, found: Any) -> bool:
    """As many mounts, each with all that was asked for."""
    found = _list(found)
    return len(asked) == len(found) and all(contains(one, other) for one, other in zip(asked, found, strict=True))


def limits_held(asked: Any, found: Any) -> bool:
    """Every limit that was asked for; an engine may have limits of its own besides."""
    by_name = {str(limit.get("Name")): limit for limit in map(_mapping, _list(found))}
    return all(contains(limit, by_name.get(limit["Name"])) for limit in asked)


_RULES: Mapping[str, Rule] = {
    "Config.Labels": contains,  # the image has some
    "Config.Healthcheck": contains,
    "HostConfig.CapAdd": same_capabilities,
    "HostConfig.CapDrop": same_capabilities,
    "HostConfig.SecurityOpt": same_set,
    "HostConfig.MaskedPaths": at_least,
    "HostConfig.ReadonlyPaths": at_least,
    "HostConfig.Tmpfs": same_tmpfs,
    "HostConfig.Mounts": same_mounts,
    "HostConfig.Ulimits": limits_held,
    "HostConfig.RestartPolicy": contains,
    "HostConfig.LogConfig": contains,
    "HostConfig.Init": exactly,
}


def _capabilities(names: Any) -> list[str]:
    return sorted({str(name).upper().removeprefix("CAP_") for name in names})


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
