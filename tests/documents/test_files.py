from __future__ import annotations

import os
from pathlib import Path

import pytest

from planner.documents.files import MAX_TEXT_BYTES, read_text, write_atomically
from planner.errors import BadInput, Unavailable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "PNG picture"),
        (b"\xff\xd8\xff\xe0abc", "JPEG picture"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04abc", "zip"),
        (b"abc\x00def", "binary"),
        (bytes(range(128, 256)) * 50, "not text"),
        (b"x" * (MAX_TEXT_BYTES + 1), "larger than 4 MB"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "capture.txt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words) as refusal:
        read_text(path)
    assert refusal.value.path == str(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_text(tmp_path / "nothing")
    with pytest.raises(BadInput, match="is a directory"):
        read_text(tmp_path)


def test_a_byte_order_mark_and_utf16_are_read(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / encoding
        path.write_bytes("GPU0 X é".encode(encoding))
        assert read_text(path).strip("\ufeff") == "GPU0 X é"


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    write_atomically(path, "one")
    with pytest.raises(BadInput, match="is there already"):
        write_atomically(path, "two")
    assert path.read_text() == "one"
    write_atomically(path, "two", force=True)
    assert path.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["box.yaml"]


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(BadInput, match="symbolic link"):
        write_atomically(link, "new", force=True)
    assert target.read_text() == "old"


def test_a_place_that_cannot_be_written_is_the_environments_fault(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be written"):
        write_atomically(tmp_path / "no" / "such" / "folder.yaml", "x")


def test_a_written_file_has_the_usual_mode(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = tmp_path / "box.yaml"
        write_atomically(path, "x")
        assert path.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)
