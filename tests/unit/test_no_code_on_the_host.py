"""The host runs no text: ``exec`` and its like stand nowhere in orchestrator/ but where a reason is given here."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "orchestrator").rglob("*.py"))

RUNNING = frozenset({"exec", "eval", "compile", "__import__", "import_module"})
# Modules that run what they are given, or make objects of whatever class the data names.
LOADERS = frozenset(
    {"cloudpickle", "code", "codeop", "dill", "joblib", "jsonpickle", "marshal", "pickle", "runpy", "shelve"}
)

_TRUSTED = "a tool of the hub or of a text; refused without trust_remote_code=True"
_OWN_NAMES = "names of this package's own modules, from a table in the file"
REASONS: Mapping[tuple[str, str], str] = {
    ("__init__.py", "import_module"): _OWN_NAMES,
    ("agents/sharing/functions.py", "import_module"): "a callback that a saved agent names; asked for trust first",
    ("agents/sharing/registry.py", "import_module"): _OWN_NAMES,
    ("lazily.py", "import_module"): _OWN_NAMES,
    ("models/by_name.py", "import_module"): _OWN_NAMES,
    ("models/local.py", "import_module"): "the package of a local model, by a name that its class has",
    ("models/transformers.py", "eval"): "torch's: the model is to answer, not to learn",
    ("service/health.py", "import_module"): "packages of the extra, by names that stand there",
    ("tools/by_name.py", "import_module"): "MODULE:NAME: what the operator typed, or wrote into the settings",
    ("tools/loading.py", "compile"): _TRUSTED,
    ("tools/loading.py", "exec"): _TRUSTED,
    ("tools/source.py", "compile"): "whether a tool that is saved is Python; what comes of it is thrown away",
    ("ui/gradio_ui.py", "import_module"): "gradio, once the page is made",
}


def found_in(tree: ast.AST) -> Iterator[str]:
    """What of ``RUNNING`` and ``LOADERS`` is named, called or not; a shell counts too."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(name) | ast.Attribute(attr=name) if name in RUNNING and ast.unparse(node) != "re.compile":
                yield name
            case ast.Import(names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in LOADERS)
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in LOADERS:
                    yield module
                yield from (alias.name for alias in names if alias.name in RUNNING)
            case ast.keyword(arg="shell") | ast.Attribute(ast.Name("os"), "system" | "popen"):
                yield "a shell"


def test_the_host_runs_no_text_but_where_a_reason_is_given() -> None:
    found = {
        (str(file.relative_to(ROOT / "orchestrator")), name)
        for file in FILES
        for name in found_in(ast.parse(file.read_text("utf-8")))
    }
    assert found == set(REASONS)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("eval('1')", "eval"),
        ("run = exec", "exec"),
        ("builtins.eval(x)", "eval"),
        ("compile(x, '', 'exec')", "compile"),
        ("__import__(name)", "__import__"),
        ("from importlib import import_module as load", "import_module"),
        ("import pickle", "pickle"),
        ("from dill.source import x", "dill.source"),
        ("subprocess.run(x, shell=True)", "a shell"),
        ("os.system(x)", "a shell"),
    ],
)
def test_it_would_be_found(code: str, name: str) -> None:
    assert list(found_in(ast.parse(code))) == [name]


def test_patterns_are_no_code() -> None:
    assert list(found_in(ast.parse("re.compile('x')\nast.parse('x')\nast.literal_eval('1')"))) == []
