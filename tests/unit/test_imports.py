"""The import allowlist: which rule allows what, who is held to it, and what is said."""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.runner.imports import Allowlist, Guard, ImportNotAllowed, check_source

# A package that no other test knows, with a module that is loaded only when somebody asks for it.
FILES = {
    "cbx/__init__.py": "import json\nVALUE = 1\ndef late():\n    import cbx.deep.leaf\n    return cbx.deep.leaf.LEAF\n",
    "cbx/part.py": "PART = 2\n",
    "cbx/deep/__init__.py": "",
    "cbx/deep/leaf.py": "import socketserver\nLEAF = 3\n",
    "cby.py": "OTHER = 4\n",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages can be found, and nothing of them or of a guard is left afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    finders, original = list(sys.meta_path), builtins.__import__
    yield
    builtins.__import__ = original
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] in ("cbx", "cby")]:
        del sys.modules[name]


def check(source: str, *rules: str) -> None:
    check_source(ast.parse(source), Allowlist(rules))


def run(source: str, *rules: str) -> dict[str, Any]:
    """As user code under a guard, without the check of the source before it."""
    Guard(Allowlist(rules), lambda: None).install()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<execution 1>", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.mark.parametrize(
    ("rule", "allowed", "denied"),
    [
        ("os", ["os"], ["os.path", "o", "osx", "os.path.join"]),
        ("os.*", ["os", "os.path", "os.path.deep"], ["osx", "posix"]),
        ("os.path", ["os.path"], ["os", "os.path.deep", "os.pathx"]),
        ("xml.etree.*", ["xml.etree", "xml.etree.ElementTree"], ["xml", "xml.dom"]),
        ("*", ["os", "os.path", "anything.at.all"], []),
    ],
)
def test_a_rule_allows_exactly_its_names(rule: str, allowed: list[str], denied: list[str]) -> None:
    allowlist = Allowlist([rule])
    assert [name for name in allowed if not allowlist.allows(name)] == []
    assert [name for name in denied if allowlist.allows(name)] == []


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@settings(max_examples=100)
@given(st.lists(st.tuples(names, st.booleans()), max_size=4), names)
def test_a_name_is_allowed_if_and_only_if_one_rule_says_so(rules: list[tuple[str, bool]], name: str) -> None:
    allowlist = Allowlist([rule + ".*" * tree for rule, tree in rules])
    said = any(name == rule or (tree and name.startswith(f"{rule}.")) for rule, tree in rules)
    assert allowlist.allows(name) == said


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import json, socket",
        "import socket as json",
        "from socket import socket",
        "from socket import *",
        "def f():\n    def g():\n        import socket",
        "class A:\n    import socket",
        "if False:\n    import socket",
        "async def f():\n    async with x:\n        import socket",
        "try:\n    pass\nexcept ImportError:\n    import socket",
        "try:\n    pass\nexcept ImportError:\n    pass\nelse:\n    import socket",
        "try:\n    import socket\nfinally:\n    pass",
        "match 1:\n    case 1:\n        import socket",
        "import json.decoder",
    ],
)
def test_a_denied_import_anywhere_in_the_source_is_found_before_it_runs(source: str) -> None:
    with pytest.raises(ImportNotAllowed):
        check(source, "json")


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("import json", ["json"]),
        ("import os.path", ["os.path"]),
        ("import os.path", ["os.*"]),
        ("from os.path import join", ["os.path"]),
        ("from . import x", []),
        ("try:\n    import socket\nexcept ImportError:\n    socket = None", []),
        ("try:\n    import nothing_like_it\nexcept (ImportError, OSError):\n    pass", []),
        ("import socket", ["*"]),
        ("x = 'import socket'", []),
    ],
)
def test_a_source_whose_imports_are_allowed_or_guarded_passes(source: str, rules: list[str]) -> None:
    check(source, *rules)


def test_the_first_denied_import_in_the_source_is_the_one_named() -> None:
    with pytest.raises(ImportNotAllowed) as caught:
        check("import json\ndef f():\n    import socket\nimport ssl", "json")
    assert caught.value.name == "socket"


def test_the_message_names_the_module_and_what_is_allowed() -> None:
    with pytest.raises(ImportNotAllowed) as caught:
        check("import socket", "math", "json", "re.*")
    assert str(caught.value) == "Import of 'socket' is not allowed. Allowed imports: json, math, re.*."


def test_the_message_lists_what_is_near_where_something_is() -> None:
    with pytest.raises(ImportNotAllowed) as caught:
        check("import os", "math", "os.path", "os.nothing")
    assert str(caught.value) == "Import of 'os' is not allowed. Of os, these are allowed: os.nothing, os.path."


@pytest.mark.parametrize("rules", [(), ("nothing_like_it",), ("*",)])
@pytest.mark.parametrize("source", ["import nothing_like_it", "from nothing_like_it.sub import x"])
def test_what_is_not_installed_is_called_so_whatever_the_rules(source: str, rules: tuple[str, ...]) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'nothing_like_it.*': it is not installed") as caught:
        check(source, *rules)
    assert not isinstance(caught.value, ImportNotAllowed)


def test_a_denied_import_can_be_caught_as_an_import_error() -> None:
    assert issubclass(ImportNotAllowed, ImportError)


# ------------------------------------------------------------------------------------------- while user code runs


@pytest.mark.usefixtures("packages")
def test_an_allowed_package_may_import_what_it_needs() -> None:
    assert run("import cbx\nvalue = cbx.late()", "cbx")["value"] == 3


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ("import cby", []),
        ("import cbx.part", ["cbx"]),
        ("from cbx import part", ["cbx"]),
        ("from cbx import VALUE, part", ["cbx"]),
        ("from cbx.deep import leaf", ["cbx", "cbx.deep"]),
        ("__import__('cby')", []),
        ("__import__('cbx', fromlist=['part'])", ["cbx"]),
        ("eval('__import__(\"cby\")')", []),
        ("import importlib\nimportlib.import_module('cby')", ["importlib"]),
        ("import importlib\nimportlib.import_module('cbx.part')", ["importlib", "cbx"]),
        ("import importlib.util\nimportlib.util.find_spec('cby')", ["importlib.*"]),
        ("import cbx\ncbx.late()\nimport cbx.deep.leaf", ["cbx"]),  # loaded by the package, still not the user's
    ],
)
def test_user_code_is_held_to_the_list_however_it_imports(source: str, rules: list[str]) -> None:
    with pytest.raises(ImportNotAllowed):
        run(source, *rules)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("source", "rules", "value"),
    [
        ("from cbx import VALUE as value", ["cbx"], 1),
        ("from cbx import part\nvalue = part.PART", ["cbx", "cbx.part"], 2),
        ("from cbx.deep import leaf\nvalue = leaf.LEAF", ["cbx.*"], 3),
        ("import cbx.deep.leaf as leaf\nvalue = leaf.LEAF", ["cbx.*"], 3),
        ("import importlib\nvalue = importlib.import_module('cby').OTHER", ["importlib", "cby"], 4),
        ("try:\n    import cby\nexcept ImportError as e:\n    value = type(e).__name__", [], "ImportNotAllowed"),
        ("try:\n    import nope_x\nexcept ImportError as e:\n    value = type(e).__name__", [], "ModuleNotFoundError"),
        ("from os import path\nvalue = path.__name__", ["os", "os.path"], "posixpath"),
        ("from collections import abc\nvalue = abc.__name__", ["collections", "collections.abc"], "collections.abc"),
    ],
)
def test_what_is_allowed_is_imported(source: str, rules: list[str], value: object) -> None:
    assert run(source, *rules)["value"] == value


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    "source",
    [
        "import cbx.part\nvalue = cbx.part.PART",
        "import cbx.part as p\nvalue = p.PART",
        "from cbx.part import PART as value",
    ],
)
def test_a_rule_for_a_submodule_alone_lets_it_be_imported(source: str) -> None:
    check(source, "cbx.part")
    assert run(source, "cbx.part")["value"] == 2


@pytest.mark.usefixtures("packages")
def test_the_guard_is_put_back_where_user_code_removed_it() -> None:
    guard = Guard(Allowlist([]), lambda: None)
    guard.install()
    sys.meta_path.remove(guard)
    builtins.__import__ = importlib.__import__
    guard.install()
    assert builtins.__import__ == guard.import_module
    assert sys.meta_path[0] is guard
    guard.install()
    assert sys.meta_path.count(guard) == 1


@pytest.mark.usefixtures("packages")
def test_code_that_is_not_the_users_is_not_held_to_the_list() -> None:
    Guard(Allowlist([]), lambda: None).install()
    assert importlib.import_module("cby").OTHER == 4
    import cbx.part  # type: ignore[import-not-found]  # this test is no user code

    assert cbx.part.PART == 2


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    "source",
    ["import cby", "from cby import OTHER", "import cbx.deep.leaf", "__import__('cby')", "import importlib"],
)
def test_each_import_is_told_before_the_code_can_use_it(source: str) -> None:
    heard: list[set[str]] = []
    guard = Guard(Allowlist(["*"]), lambda: heard.append({n for n in sys.modules if n.startswith("cb")}))
    guard.install()
    exec(compile(f"{source}\nheard_by_now = len(heard)", "<execution 1>", "exec"), namespace := {"heard": heard})
    assert namespace["heard_by_now"] >= 1
    assert heard[-1] == {n for n in sys.modules if n.startswith("cb")}


@pytest.mark.usefixtures("packages")
def test_an_import_that_is_denied_or_fails_is_not_told() -> None:
    heard: list[str] = []
    Guard(Allowlist(["cbx"]), lambda: heard.append("told")).install()
    for source in ("import cby", "import nothing_like_it"):
        with pytest.raises(ImportError):
            exec(compile(source, "<execution 1>", "exec"), {})
    assert heard == []


@pytest.mark.usefixtures("packages")
def test_a_module_that_a_library_imports_inside_a_function_is_told_too() -> None:
    heard: list[bool] = []
    Guard(Allowlist(["cbx"]), lambda: heard.append("cbx.deep.leaf" in sys.modules)).install()
    exec(compile("import cbx\nbefore = len(heard)\ncbx.late()", "<execution 1>", "exec"), space := {"heard": heard})
    assert not any(heard[: space["before"]])
    assert heard[-1]
