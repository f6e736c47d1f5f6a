"""Which prompt templates only put given texts together, so that they may come from anybody. No I/O.

Jinja's sandbox keeps a template from the objects of this process, but not from running for ever or filling the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, TemplateError, nodes

MAX_LOOPS = 2  # in each other: tools, and the arguments of each
MAX_FILTERS = 2  # one after the other: a list of names, joined
MAX_LITERAL = 100  # characters of a text that a filter is given, such as a separator
MAX_ALL_FILTERS = 100  # of one template: each may work on a text of a megabyte
MAX_NESTING = 30  # of anything: Python's compiler has limits of its own, and no good errors for them

_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.If,
    nodes.For,
    nodes.Filter,
    nodes.Test,
    nodes.Const,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Compare,
    nodes.Operand,
    nodes.CondExpr,
    nodes.Call,
    nodes.Tuple,
)
_METHODS = frozenset({"items", "keys", "values", "to_code_prompt", "to_tool_calling_prompt"})
_LISTS = frozenset({"items", "keys", "values"})
_FILTERS = frozenset(
    {"capitalize", "default", "first", "join", "last", "length", "list", "lower", "string", "title", "trim", "upper"}
)
_TESTS = frozenset({"defined", "undefined", "none", "string", "mapping", "sequence", "true", "false"})


def odd_templates(templates: Mapping[str, Any] | None, place: str = "prompt_templates") -> Iterator[str]:
    """The names of those that do more."""
    for name, part in (templates or {}).items():
        if isinstance(part, Mapping):
            yield from odd_templates(part, f"{place}.{name}")
        elif isinstance(part, str) and not is_plain(part):
            yield f"{place}.{name}"


@functools.lru_cache(maxsize=256)
def is_plain(template: str) -> bool:
    """Whether it has texts, names, attributes, conditions and loops over what an agent has, and nothing else.

    What is no template at all is plain: it will be refused when it is rendered.
    """
    try:
        tree = Environment().parse(template)  # noqa: S701 - it is not rendered
        return _is_plain(tree, 0, 0) and len(list(tree.find_all(nodes.Filter))) <= MAX_ALL_FILTERS
    except TemplateError:
        return True
    except RecursionError:
        return False


def _is_plain(node: nodes.Node, loops: int, depth: int) -> bool:
    if not isinstance(node, _PLAIN) or depth > MAX_NESTING:
        return False
    match node:
        case nodes.For():
            loops += 1
            fits = loops <= MAX_LOOPS and not node.recursive and _is_call(node.iter, _LISTS)
        case nodes.Call():
            fits = _is_call(node, _METHODS)
        case nodes.Filter():  # takes time, but gives nothing that would count: not again and again
            fits = not loops and node.name in _FILTERS and _filters(node) <= MAX_FILTERS and _is_bare(node)
        case nodes.Compare():  # the same
            fits = not loops
        case nodes.Test():
            fits = node.name in _TESTS and _is_bare(node)
        case nodes.Getattr():
            fits = not node.attr.startswith("_")
        case _:
            fits = True
    return fits and all(_is_plain(child, loops, depth + 1) for child in node.iter_child_nodes())


def _is_call(node: nodes.Node, methods: frozenset[str]) -> bool:
    if not isinstance(node, nodes.Call) or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return False
    return isinstance(node.node, nodes.Getattr) and node.node.attr in methods


def _filters(node: nodes.Node | None) -> int:
    """How many follow each other."""
    return 1 + _filters(node.node) if isinstance(node, nodes.Filter) else 0


def _is_bare(node: nodes.Filter | nodes.Test) -> bool:
    """Whether it is given short texts at most."""
    texts = all(isinstance(one, nodes.Const) and len(str(one.value)) <= MAX_LITERAL for one in node.args)
    return texts and not (node.kwargs or node.dyn_args or node.dyn_kwargs)
