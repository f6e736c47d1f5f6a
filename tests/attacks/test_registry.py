"""The list of attacks is whole: every id of the corpus is run, held elsewhere by tests that exist, or cannot apply."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.attacks import case as cases
from tests.attacks.case import Case, Layer, NotHere, Place
from tests.attacks.native import library, program
from tests.attacks.registry import CASES, CORPUS, NOT_HERE

ROOT = Path(__file__).parents[2]
PLACEHOLDERS = {cases.CANARY, cases.REACHED, cases.PORT, cases.UDP_PORT, cases.ABSTRACT, cases.HOST_FILE}


def corpus_id(id: str) -> str:
    """``IMP-05b/open`` -> ``IMP-05``."""
    found = re.fullmatch(r"([A-Z]+-\d+)[a-z]?(/open)?", id)
    assert found, id
    return found[1]


def test_every_id_of_the_corpus_has_its_place() -> None:
    here = {corpus_id(case.id) for case in CASES}
    elsewhere = {entry.id for entry in NOT_HERE}
    assert set(CORPUS) - here - elsewhere == set()
    assert elsewhere - set(CORPUS) == set()


def test_no_id_and_no_name_is_used_twice() -> None:
    everything = [*CASES, *NOT_HERE]
    for names in ([entry.id for entry in everything], [entry.name for entry in everything]):
        assert [name for name, times in Counter(names).items() if times > 1] == []


@pytest.mark.parametrize("entry", NOT_HERE, ids=lambda entry: entry.id)
def test_what_is_not_run_here_says_why_or_names_tests_that_exist(entry: NotHere) -> None:
    assert entry.reason or entry.tests
    for test in entry.tests:
        file, _, name = test.partition("::")
        assert name in functions(file), f"{test} is not there"


@functools.cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_says_what_it_must(case: Case) -> None:
    if case.held_by in (Layer.POLICY, Layer.NOTHING):
        assert case.note, "why it is no breach that it gets there"
    if case.control.place is Place.NOWHERE:
        assert case.control.reason, "why there is no control"
    if case.control.steps:
        assert case.control.reason, "why the control is another"
    for step in (*case.steps, *case.control.steps):
        assert cases.WORD not in step, "what shows that it got there must not stand in what a traceback shows"
        assert set(re.findall(r"\{[A-Z]+\}", step)) <= PLACEHOLDERS
    assert bool(case.canary) is any(cases.CANARY in step for step in case.steps)


def test_the_column_without_policy_and_landlock_is_the_one_that_tells() -> None:
    """What is held there is held by the container, the users, the runner or the host, and is no promise of a policy."""
    walls = {Layer.HOST, Layer.CONTAINER, Layer.USERS, Layer.SUPERVISOR, Layer.RUNNER}
    bare = cases.Cell(policy=False, landlock=False)
    assert all(case.is_held(bare) is (case.held_by in walls) for case in CASES)


def test_machine_code_made_by_hand_is_elf() -> None:
    assert program(b"x").startswith(b"\x7fELF")
    assert b"name\0" in library("name", b"\xc3")
