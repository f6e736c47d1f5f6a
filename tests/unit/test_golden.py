"""What the engine made, compared with what was asked for: any change of a setting is found, and no spelling is one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import Limits
from orchestrator.errors import IsolationError, SettingIgnored
from orchestrator.sandbox.golden import MAX_SHOWN, MUST_BE_EMPTY, Difference, differences, require_as_asked
from orchestrator.sandbox.lockdown import create_body
from tests.unit.ready import SESSION

BODY = create_body(SESSION, Limits())
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def docker_20_10(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of Docker 20.10 to inspect, for a container that was made as asked."""
    host = copy.deepcopy(body["HostConfig"])
    (mount,) = host["Mounts"]
    config = {name: copy.deepcopy(value) for name, value in body.items() if name != "HostConfig"}
    del mount["ReadOnly"]  # false is left out
    return {
        "Id": "f00",
        "Image": body["Image"],
        "ExecIDs": None,
        "State": {"Status": "created", "Running": False},
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount["Source"],
                "Destination": mount["Target"],
                "Mode": "",
                "RW": True,
                "Propagation": "rprivate",
            }
        ],
        "NetworkSettings": {"Ports": {}, "Networks": {}},
        "Config": {
            **config,
            "Domainname": "",
            "AttachStdin": False,
            "StdinOnce": False,
            "Env": [*config["Env"], PATH],
            "Labels": {**config["Labels"], "cellblock.base": "b"},
            "Volumes": None,
            "OnBuild": None,
        },
        "HostConfig": {
            "Runtime": "runc",
            **host,
            "Binds": None,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "none", "Config": {}},
            "VolumesFrom": None,
            "GroupAdd": None,
            "DeviceRequests": None,
            "OomKillDisable": False,
            "UsernsMode": "",
            "CpuRealtimePeriod": 0,
            "ShmSize": 67108864,
            "ConsoleSize": [0, 0],
        },
    }


def a_newer_one(body: dict[str, Any]) -> dict[str, Any]:
    """The same in other words: other order, null for empty, names with a prefix, more paths and limits, new fields."""
    answer = docker_20_10(body)
    host, config = answer["HostConfig"], answer["Config"]
    for name in ("CapAdd", "CapDrop"):
        host[name] = sorted(cap if cap == "ALL" else f"CAP_{cap}" for cap in host[name])
    host["MaskedPaths"] = sorted([*host["MaskedPaths"], "/sys/devices/system/cpu/cpu0/thermal_throttle"])
    host["ReadonlyPaths"] = [*reversed(host["ReadonlyPaths"]), "/proc/fs"]
    host["SecurityOpt"] = list(reversed(host["SecurityOpt"]))
    host["Ulimits"] = [{"Name": "nproc", "Soft": 1, "Hard": 1}, *reversed(host["Ulimits"])]
    host["Tmpfs"] = {place: ",".join(sorted(options.split(","))) for place, options in host["Tmpfs"].items()}
    host["Devices"] = None
    host["Annotations"] = {}
    host["OomKillDisable"] = None
    host["Mounts"][0]["ReadOnly"] = False
    host["Mounts"][0]["BindOptions"]["CreateMountpoint"] = False
    del host["PidMode"], host["UTSMode"], config["OnBuild"], config["Tty"]
    config["Healthcheck"]["Interval"] = 0
    answer["NetworkSettings"] = {"Networks": {"none": {"NetworkID": ""}}}
    answer["Mounts"].append({"Type": "tmpfs", "Source": "", "Destination": "/tmp", "RW": True})
    answer["ImageManifestDescriptor"] = {"digest": "sha256:x"}
    answer["State"]["Health"] = None
    return answer


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value that is no container of values, and of every list and mapping."""
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from leaves(part, (*path, key))


def at(root: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        root = root[key]
    return root


def place_of(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where inspect has what the create call has there."""
    return path if path[0] == "HostConfig" else ("Config", *path)


ASKED = [path for path in leaves(BODY) if path != ("HostConfig",)]
OTHER = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 40), st.text(max_size=8), st.lists(st.text(max_size=3), max_size=2)
)


@pytest.mark.parametrize("answer", [docker_20_10, a_newer_one])
def test_what_was_made_as_asked_has_no_difference(answer: Any) -> None:
    assert differences(BODY, answer(BODY)) == ()
    require_as_asked(BODY, answer(BODY))


@pytest.mark.parametrize("answer", [docker_20_10, a_newer_one])
def test_a_system_call_filter_and_a_runtime_are_settings_like_others(answer: Any) -> None:
    body = create_body(replace(SESSION, runtime="runsc"), Limits())
    profile = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ["x" * 5000]})
    body["HostConfig"]["SecurityOpt"].append(f"seccomp={profile}")
    assert differences(body, answer(body)) == ()
    for name, value in (("Runtime", "runc"), ("SecurityOpt", ["no-new-privileges:true"])):
        changed = answer(body)
        changed["HostConfig"][name] = value
        (found,) = differences(body, changed)
        assert found.setting == f"HostConfig.{name}"
        assert len(str(found)) < 3 * MAX_SHOWN


@settings(max_examples=400)
@given(st.sampled_from(ASKED), OTHER)
def test_any_change_of_any_setting_is_found(path: tuple[Any, ...], other: Any) -> None:
    asked = at(BODY, path)
    both_empty = not asked and not other and type(other) is not int and path[-1] != "Init"
    if both_empty or (type(other) is type(asked) and other == asked):
        return  # that is no change
    changed = docker_20_10(BODY)
    *above, last = place_of(path)
    try:
        at(changed, tuple(above))[last] = other
    except (KeyError, IndexError):  # what is left out where it is false
        at(changed, tuple(above[:-1]))[above[-1]] = {last: other}
    named = [found.setting.partition(".")[2] for found in differences(BODY, changed)]
    assert set(named) & set(place_of(path))


@settings(max_examples=200)
@given(st.sampled_from([path for path in ASKED if at(BODY, path) or path[-1] == "Init"]))
def test_anything_that_was_asked_for_and_is_not_there_is_found(path: tuple[Any, ...]) -> None:
    changed = docker_20_10(BODY)
    *above, last = place_of(path)
    del at(changed, tuple(above))[last]
    assert differences(BODY, changed)


@settings(max_examples=100)
@given(
    st.sampled_from(["CapAdd", "CapDrop", "SecurityOpt", "Mounts", "Devices"]),
    st.sampled_from(["SYS_ADMIN", "seccomp=unconfined", "apparmor=unconfined", {"Type": "bind", "Source": "/"}]),
)
def test_anything_more_in_a_list_is_found(name: str, more: Any) -> None:
    changed = docker_20_10(BODY)
    changed["HostConfig"][name] = [*changed["HostConfig"][name], more]
    assert f"HostConfig.{name}" in {found.setting for found in differences(BODY, changed)}


@pytest.mark.parametrize(
    ("found", "image_env", "as_asked"),
    [
        ([PATH], (), True),
        (None, (), True),
        ([PATH, "TZ=UTC"], (PATH, "TZ=UTC"), True),
        ([PATH, "TZ=elsewhere"], (PATH, "TZ=UTC"), False),
        ([PATH, "LD_PRELOAD=/x"], (PATH,), False),
        ({"TZ": "UTC"}, (), False),
    ],
)
def test_variables_are_those_that_were_asked_for_and_the_images(
    found: Any, image_env: tuple[str, ...], as_asked: bool
) -> None:
    answer = docker_20_10(BODY)
    answer["Config"]["Env"] = found
    assert (differences(BODY, answer, image_env) == ()) == as_asked


DANGEROUS = {
    "Binds": ["/:/host"],
    "VolumesFrom": ["other"],
    "Devices": [{"PathOnHost": "/dev/kvm"}],
    "DeviceRequests": [{"Driver": "nvidia"}],
    "GroupAdd": ["docker"],
    "UsernsMode": "host",
    "Sysctls": {"kernel.msgmax": "1"},
    "CgroupParent": "/other",
    "OomKillDisable": True,
    "Privileged": True,
    "PortBindings": {"80/tcp": [{}]},
    "PublishAllPorts": True,
    "Annotations": {"run.oci.keep_original_groups": "1"},
    "CpuRealtimeRuntime": 950000,
}


@pytest.mark.parametrize(("name", "value"), DANGEROUS.items())
def test_what_nobody_asked_for_is_found_if_it_is_dangerous(name: str, value: Any) -> None:
    changed = docker_20_10(BODY)
    changed["HostConfig"][name] = value
    (found,) = differences(BODY, changed)
    assert (found.setting, found.found) == (f"HostConfig.{name}", value)


@pytest.mark.parametrize("setting", MUST_BE_EMPTY)
def test_every_field_of_the_list_is_looked_at(setting: str) -> None:
    room, _, name = setting.rpartition(".")
    changed = docker_20_10(BODY)
    (changed[room] if room else changed)[name] = ["x"]
    assert setting in {found.setting for found in differences(BODY, changed)}


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (lambda answer: answer.update(Image="sha256:other"), "Image"),
        (lambda answer: answer["Config"].update(Image="other:latest"), "Config.Image"),
        (lambda answer: answer["Mounts"][0].update(Source="/"), "Mounts"),
        (lambda answer: answer["Mounts"][0].update(Destination="/x"), "Mounts"),
        (lambda answer: answer["Mounts"].append({"Type": "volume", "Destination": "/v"}), "Mounts"),
        (lambda answer: answer["Mounts"].append({"Type": "tmpfs", "Destination": "/more"}), "Mounts"),
        (lambda answer: answer["Mounts"].clear(), "Mounts"),
        (lambda answer: answer["NetworkSettings"].update(Networks={"bridge": {}}), "NetworkSettings.Networks"),
        (
            lambda answer: answer["NetworkSettings"].update(Networks={"none": {}, "bridge": {}}),
            "NetworkSettings.Networks",
        ),
        (lambda answer: answer["State"].update(Running=True), "State.Running"),
        (lambda answer: answer["Config"].update(Env=[PATH, "HTTP_PROXY=http://proxy"]), "Config.Env"),
        (lambda answer: answer["Config"].update(Volumes={"/data": {}}), "Config.Volumes"),
        (lambda answer: answer["HostConfig"].update(Init=None), "HostConfig.Init"),
        (lambda answer: answer["HostConfig"].update(Memory=True), "HostConfig.Memory"),
    ],
)
def test_what_inspect_tells_in_other_words_is_compared_too(change: Any, setting: str) -> None:
    answer = docker_20_10(BODY)
    change(answer)
    assert [found.setting for found in differences(BODY, answer)] == [setting]


@pytest.mark.parametrize("answer", [{}, {"Config": None, "HostConfig": []}, {"HostConfig": {"Mounts": 5, "Tmpfs": []}}])
def test_an_answer_without_sense_differs_in_everything(answer: dict[str, Any]) -> None:
    found = {each.setting for each in differences(BODY, answer)}
    assert {"HostConfig.Memory", "HostConfig.CapDrop", "HostConfig.Tmpfs", "HostConfig.Mounts", "Config.User"} <= found


def test_the_error_names_every_setting_and_what_can_be_done() -> None:
    changed = docker_20_10(BODY)
    changed["HostConfig"].update(PidsLimit=0, MemorySwap=-1)
    with pytest.raises(SettingIgnored) as caught:
        require_as_asked(BODY, changed)
    assert isinstance(caught.value, IsolationError)
    text = str(caught.value)
    assert "HostConfig.PidsLimit: asked for 128, found 0 (this kernel has no pids control group)" in text
    assert "HostConfig.MemorySwap: asked for 536870912, found -1" in text
    assert "swapaccount=1" in text


def test_a_difference_is_short_however_long_the_setting_is() -> None:
    assert len(str(Difference("x", "a" * 100_000, ["b"] * 100_000))) < 3 * MAX_SHOWN
    assert str(Difference("HostConfig.Binds", None, ["/:/"])) == "HostConfig.Binds: asked for nothing, found ['/:/']"
