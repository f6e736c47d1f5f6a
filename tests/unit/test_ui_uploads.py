"""Uploaded files: hostile names stay inside the folder, types and sizes are bounded, agents are given contents."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.sandbox.names import wrong_name
from orchestrator.ui import uploads
from orchestrator.ui.uploads import Handover, UploadFolder, safe_name
from tests.unit.pictures import PNG


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    (tmp_path / "sent").mkdir()
    return tmp_path / "sent"


def file(folder: Path, name: str, data: bytes = b"x") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("..\\..\\boot.TXT", "boot.txt"),
        ("/abs/x.md", "x.md"),
        (".hidden.txt", "hidden.txt"),
        ("-rf.txt", "rf.txt"),
        ("a\0b\nc;$(id).pdf", "a_b_c_id_.pdf"),
        ("Bericht – März 2026.pdf", "Bericht_März_2026.pdf"),
        ("<img src=x onerror=1>.png", "img_src_x_onerror_1_.png"),
        ("\u202egnp.txt", "gnp.txt"),
        ("..", "file"),
        ("", "file"),
        ("x" * 500 + ".csv", "x" * 76 + ".csv"),
    ],
)
def test_names_are_made_safe(given_name: str, kept: str) -> None:
    assert safe_name(given_name) == kept


@given(st.text(max_size=300))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    kept = safe_name(name)
    assert Path("/f", kept).name == kept
    assert kept not in ("", ".", "..")
    assert not kept.startswith((".", "-"))
    assert len(kept) <= uploads.MAX_NAME
    assert not set(kept) & set("/\\\0\n <>&\"'`$;|*?~:")


def test_files_are_kept_in_a_folder_of_the_visitors_own_until_it_is_cleared(tmp_path: Path, sent: Path) -> None:
    one, two = UploadFolder(tmp_path / "up"), UploadFolder(tmp_path / "up")
    for folder in (one, two, one):
        folder.take([file(sent, "a.txt", b"hi")])
    places = {path.parent for path in (tmp_path / "up").rglob("*.txt")}
    assert len(places) == 2
    assert sorted(path.name for path in (tmp_path / "up").rglob("*.txt")) == ["a.txt", "a.txt", "a_2.txt"]
    assert all(stat.S_IMODE(place.stat().st_mode) == 0o700 for place in places)
    one.clear()
    assert len(list((tmp_path / "up").rglob("*.txt"))) == 1
    one.clear()
    assert one.take([file(sent, "a.txt")])[0].name == "a.txt"


@pytest.mark.parametrize("name", ["x.exe", "x", "x.txt.sh", "png", "x.svg"])
def test_other_types_are_not_taken(tmp_path: Path, sent: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="are not taken"):
        UploadFolder(tmp_path / "up").take([file(sent, "ok.txt"), file(sent, name)])
    assert not (tmp_path / "up").exists()


def test_numbers_and_sizes_are_bounded(tmp_path: Path, sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = UploadFolder(tmp_path / "up")
    with pytest.raises(ConfigError, match="at most 8"):
        folder.take([file(sent, f"{n}.txt") for n in range(9)])
    with pytest.raises(ConfigError, match="a picture may have"):
        folder.take([file(sent, "x.png", PNG + b"\0" * uploads.MAX_PICTURE)])
    half = b"x" * (uploads.MAX_VALUES // 2 + 1)
    with pytest.raises(ConfigError, match="together"):
        folder.take([file(sent, "a.txt", half), file(sent, "b.pdf", half)])
    monkeypatch.setattr(uploads, "MAX_KEPT", 100)
    folder.take([file(sent, "a.txt", b"x" * 80)])
    with pytest.raises(ConfigError, match="start over"):
        folder.take([file(sent, "a.txt", b"x" * 80)])


@given(st.text(max_size=20))
def test_any_name_of_a_file_makes_a_variable(name: str) -> None:
    """One that a sandbox takes: some of what a pattern calls a letter, Python does not take in a name."""
    variable = UploadFolder(Path("/nowhere"))._variable(safe_name(name))
    assert wrong_name(variable, "variable") == ""


def test_a_number_that_is_no_digit_makes_a_variable(tmp_path: Path, sent: Path) -> None:
    (kept,) = UploadFolder(tmp_path / "up").take([file(sent, "\U00010107.csv", b"a")])
    assert (kept.name, kept.variable) == ("\U00010107.csv", "file___csv")


def test_an_agent_is_given_contents_by_names_of_variables(tmp_path: Path, sent: Path) -> None:
    folder = UploadFolder(tmp_path / "up", taken=["file_data_csv"])
    kept = folder.take(
        [
            file(sent, "data.csv", b"\xef\xbb\xbfa,b\n"),
            file(sent, "latin.txt", b"\xe4"),
            file(sent, "paper.pdf", b"%PDF"),
            file(sent, "photo.png", PNG),
        ]
    )
    handed = Handover.of("Look", kept)
    assert handed.additional_args == {"file_data_csv_2": "a,b\n", "file_latin_txt": b"\xe4", "file_paper_pdf": b"%PDF"}
    assert [image.data for image in handed.images] == [PNG]
    for line in ("Look", "- data.csv (7 bytes): its contents are in the variable file_data_csv_2, as text"):
        assert line in handed.task
    assert f"- photo.png ({len(PNG)} bytes): a picture" in handed.task
    assert str(tmp_path) not in handed.task


def test_a_message_without_files_is_as_it_was() -> None:
    assert Handover.of("do it", []) == Handover("do it")


def test_a_picture_that_is_none_is_not_taken(tmp_path: Path, sent: Path) -> None:
    kept = UploadFolder(tmp_path / "up").take([file(sent, "x.png", b"<script>")])
    with pytest.raises(ConfigError, match="no picture, whatever its name says"):
        Handover.of("", kept)
