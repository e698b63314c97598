"""The bytes of other programs' text files as text: any encoding and line ending, and what is no text is named."""

from __future__ import annotations

import codecs
from pathlib import Path

from py2rely_core.problems import Problem, ProblemError

#: Text files that are read whole, word by word, are far smaller, bytes.
LARGEST = 64 * 2**20
#: As much of a file as tells what it is, bytes.
LOOKED_AT = 4096
#: First bytes of files that are given in place of text, and what they are.
BINARY = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"II+\x00": "a TIFF image",
    b"\x89PNG": "a PNG image",
    b"\x93NUMPY": "a numpy file",
    b"%PDF": "a PDF document",
    b"SQLite format 3": "a SQLite database",
    b"EMAN": "a file of EMAN",
}
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path, kind: str, largest: int | None = LARGEST) -> str:
    r"""The text of a file, with ``\n`` between its lines.

    UTF-8 and UTF-16 are told by their marks or their zeros; what is neither is taken for Latin-1, whose letters stand
    in comments and titles only.

    Parameters
    ----------
    path : Path
    kind : str
        What the file should be, with its article, for messages.
    largest : int or None
        Bytes above which it cannot be such a file; None for any size.

    Raises
    ------
    ProblemError
        It is missing, cannot be read, is too large, or is no text; what it looks like is said.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(LOOKED_AT)
            what = binary_kind(start)
            size = path.stat().st_size
            if what:
                raise ProblemError(_other(path, f"This is {what}, not {kind}.", kind))
            if largest is not None and size > largest:
                raise ProblemError(_other(path, f"The file is too large for {kind}: {size / 2**20:.0f} MB.", kind))
            content = start + file.read()
    except OSError as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        problem = Problem(f"A file cannot be read: {reason}.", str(path), kind, "Correct the path, or copy it again.")
        raise ProblemError(problem) from error
    try:
        text = content.decode(_encoding(start))
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\0" in text:
        raise ProblemError(_other(path, f"This is a binary file, not {kind}.", kind))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def binary_kind(start: bytes) -> str | None:
    """What a binary file is, by its first bytes (at least 1024, where it has them); None for text."""
    for magic, name in BINARY.items():
        if start.startswith(magic):
            return name
    if start[208:212] in (b"MAP ", b"MAP\0"):
        return "a map or an image stack (MRC)"
    known = any(start.startswith(bom) for bom, _ in _BOMS) or _encoding(start) != "utf-8"
    return "a binary file" if b"\0" in start and not known else None


def _encoding(start: bytes) -> str:
    for bom, name in _BOMS:
        if start.startswith(bom):
            return name
    # UTF-16 without a mark: every other byte of plain text is zero.
    even, odd = start[0:256:2], start[1:256:2]
    if len(odd) > 1 and not any(odd) and all(even):
        return "utf-16-le"
    if len(odd) > 1 and not any(even) and all(odd):
        return "utf-16-be"
    return "utf-8"


def _other(path: Path, what: str, kind: str) -> Problem:
    return Problem(what, str(path), kind, "Give the file that is meant, or remove this one if nothing is meant.")


def decoded(content: bytes) -> str:
    r"""The text of the first bytes of a file, with ``\n`` between its lines; a letter that is cut is replaced."""
    text = content.decode(_encoding(content), errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
