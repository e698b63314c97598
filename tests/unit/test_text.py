"""Foreign text files: encodings, line endings, numbers; and what is no text or no number is said with its line."""

from __future__ import annotations

import gzip

import mrcfile
import numpy as np
import pytest

from py2rely_core.data.text import read_text
from py2rely_core.importers.text import Word, read_lines, read_numbers
from py2rely_core.problems import ProblemError

TEXT = "-3.0 1\n0.0 2\n3.0 3\n"


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_encoding_and_line_ending_is_the_same_text(tmp_path, encoding, newline):
    path = written(tmp_path / "a.txt", TEXT.replace("\n", newline).encode(encoding))
    assert read_text(path, "a list") == TEXT
    table = read_numbers(path, "a list", ("angle", "order"))
    assert table["angle"].tolist() == [-3, 0, 3]
    assert table.index.tolist() == [1, 2, 3]


def test_letters_of_other_encodings_stand_in_comments(tmp_path):
    path = written(tmp_path / "a.txt", "# 5 \xb5m\n1 2\n".encode("latin-1"))
    assert read_numbers(path, "a list", ("a", "b")).to_numpy().tolist() == [[1, 2]]


def test_lines_know_where_they_are(tmp_path):
    lines = read_lines(written(tmp_path / "a.txt", "\n# c\n a = 1,  2\n\nb\n"), "a list", "#")
    assert [line.line for line in lines] == [3, 5]
    assert [word.integer("x") for word in lines[0].after("=").fields()] == [1, 2]
    assert [word.text for word in lines[0].split("=")] == ["a", "1,  2"]


@pytest.mark.parametrize(
    "text",
    ["", "nan", "inf", "-", ".", "1,5", "1_0", "0x10", "1.2.3", "1e", "12.5-3.25", "****", "\u0663", "1e400", "1e12"],
)
def test_what_is_no_number_is_said_with_its_line(tmp_path, text):
    with pytest.raises(ProblemError) as error:
        Word(text, tmp_path / "a.tlt", 7).number("a tilt angle")
    (problem,) = error.value.problems
    assert problem.where == f"{tmp_path}/a.tlt, line 7"
    assert repr(text) in problem.what
    assert "a tilt angle" in problem.what
    assert problem.expected
    if text:
        path = written(tmp_path / "a.txt", f"1 2\n3 {text}\n")
        with pytest.raises(ProblemError, match="line 2"):
            read_numbers(path, "a list", ("a", "b"))


def test_limits_and_whole_numbers(tmp_path):
    word = Word("95.5", tmp_path, 1)
    assert word.number("an angle", -100, 100) == 95.5
    with pytest.raises(ProblemError, match="-90 to 90"):
        word.number("an angle", -90, 90)
    with pytest.raises(ProblemError, match="whole number"):
        word.integer("a section")
    assert Word("3.0", tmp_path, 1).integer("a section") == 3


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("1 2\n1 2 3\n", "line 2"), ("1 2\n1\n", "line 2"), ("1\n", "line 1"), ("1 2 3 4\n", "line 1"),
        ("", "no values"), ("# only\n", "no values"),
    ],
)  # fmt: skip
def test_rows_of_other_widths(tmp_path, content, text):
    with pytest.raises(ProblemError, match=text):
        read_numbers(written(tmp_path / "a.txt", content), "a list", ("a", "b", "c"), least=2)


def test_separators_and_headers(tmp_path):
    path = written(tmp_path / "a.csv", "Number, Angle\n1, -3.5\n2,0\n")
    table = read_numbers(
        path, "a list", ("number", "angle"), separators=r"[,\s]+", header=lambda line: line.text[0].isalpha()
    )
    assert table["angle"].tolist() == [-3.5, 0]


def test_other_kinds_of_files_are_named(tmp_path):
    mrcfile.write(tmp_path / "a.mrc", np.ones((4, 8, 8), np.float32))
    cases = {
        tmp_path / "a.mrc": "a map or an image stack",
        written(tmp_path / "a.gz", gzip.compress(b"1 2")): "gzip",
        written(tmp_path / "a.bin", bytes(range(256))): "binary file",
        written(tmp_path / "late.txt", b"1 2\n" * 3000 + b"\0"): "binary file",
        tmp_path / "none.txt": "it is missing",
        tmp_path: "cannot be read",
    }
    for path, text in cases.items():
        with pytest.raises(ProblemError) as error:
            read_lines(path, "a list of angles")
        assert text in str(error.value), (path, error.value)
        assert str(path) in str(error.value)
    with pytest.raises(ProblemError, match="too large"):
        read_text(written(tmp_path / "big.txt", "1 2\n" * 100), "a list", largest=100)
