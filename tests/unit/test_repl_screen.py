"""What is written where, and what a terminal is protected from."""

from __future__ import annotations

import io

import pytest

from orchestrator.repl.screen import MAX_VALUE, Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_terminal_gets_colours_and_no_sequence_of_the_codes() -> None:
    terminal = Terminal()
    screen = Screen(terminal, terminal)
    screen.output("stdout", "\x1b[2Jplain\x07\n")
    screen.output("stderr", "\x1b]0;title\x07red\n")
    screen.failure("Trace\x9bback\n")
    screen.value("'\u202e'")
    assert terminal.getvalue() == (
        "plain\\x07\n\x1b[31mred\n\x1b[0m\x1b[31mTrace\\x9bback\x1b[0m\n'\\u202e'\n"  # and nothing else
    )


def test_sequences_cut_between_pieces_reach_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(terminal, terminal)
    for piece in ("\x1b", "[2J", "\x1b]0;", "title\x07"):
        screen.output("stderr", piece)
    assert "\x1b" not in terminal.getvalue()
    assert "\x07" not in terminal.getvalue()


def test_a_pipe_gets_what_was_written_and_each_its_own() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out, err)
    screen.output("stdout", "\x1b[1mbold\x1b[0m\ud800\n")
    screen.output("stderr", "oops\n")
    screen.note("a note")
    screen.say("an answer")
    assert out.getvalue() == "\x1b[1mbold\x1b[0m?\nan answer\n"
    assert err.getvalue() == "oops\na note\n"


def test_what_follows_an_unfinished_line_begins_a_new_one() -> None:
    out = io.StringIO()
    screen = Screen(out, out)
    screen.output("stdout", "a")
    screen.output("stdout", "b")
    screen.value("3")
    screen.output("stdout", "c")
    screen.table(("name", "type"), [("x", "int")])
    screen.finish_line()
    assert [line.rstrip() for line in out.getvalue().splitlines()] == ["ab", "3", "c", "name  type", "x     int"]


def test_a_long_value_is_cut_on_a_terminal_alone() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Screen(stream, stream).value("x" * (MAX_VALUE + 1000))
    assert terminal.getvalue() == "x" * MAX_VALUE + "… (1,000 more characters)\n"
    assert pipe.getvalue() == "x" * (MAX_VALUE + 1000) + "\n"


def test_names_in_a_table_drive_no_terminal_and_are_no_markup() -> None:
    out = Terminal()
    Screen(out, out).table(("name",), [("[red]x\x1b[2J\x9b",)])
    assert "[red]x\\x9b" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
