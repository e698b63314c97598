"""The site's settings: which files hold them, and how they are read and written.

A ``site.config`` is a Nextflow configuration. What is written here is a ``params`` block and perhaps ``workDir``; every
other line belongs to whoever wrote it, and stays.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from py2rely_core.parameters.table import CONFIGURATION
from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest

#: What a site may set, by the names of the run's parameters.
SETTINGS = ("cpus", "num_gpus", *CONFIGURATION)
REQUESTS = ("gres", "gpus")
Value = str | int | float | bool
_LINE = re.compile(r"^(\s*)(\w+)\s*=\s*(.*?)\s*(//[^'\"]*)?$")


def own_file() -> Path:
    """The user's own file."""
    return Path.home() / ".config/py2rely/site.config"


def shared_file() -> Path:
    """The installation's file, beside ``nextflow.config``."""
    return Path(__file__).resolve().parents[2] / "site.config"


def used_files() -> list[Path]:
    """The files that a run reads, as they are there: a later one wins, and the one that is named stands alone."""
    named = os.environ.get("PY2RELY_SITE_CONFIG")
    places = [Path(named)] if named else [shared_file(), own_file()]
    return [path for path in places if path.is_file()]


def used_settings() -> dict[str, Value]:
    """What the files of :func:`used_files` set together."""
    return {name: value for path in used_files() for name, value in read_settings(path.read_text()).items()}


def read_settings(text: str) -> dict[str, Value]:
    """The settings of a file's ``params`` block, as far as they are plain values."""
    found: dict[str, Value] = {}
    for line in _params_block(text.splitlines())[1]:
        match = _LINE.match(line)
        value = _parsed(match[3]) if match else None
        if match and value is not None and match[2] in SETTINGS:
            found[match[2]] = value
    return found


def write_settings(path: Path, settings: Mapping[str, Value], work_dir: str | None = None) -> None:
    """Set values in a file; everything else in it stays as it is.

    Parameters
    ----------
    path : Path
        Made, with its directory, when it is missing.
    settings : mapping
        Names of :data:`SETTINGS` to values.
    work_dir : str, optional
        Directory for Nextflow's work, below which each user has one.

    Raises
    ------
    ProblemError
        A name or a value is wrong, or the file cannot be written.
    """
    check_settings(settings)
    lines = path.read_text().splitlines() if path.is_file() else ["// Settings of this site: see docs/clusters.md."]
    start, block = _params_block(lines)
    if start is None:
        start, block = len(lines) + 1, []
        lines += ["params {", "}"]
    length = len(block)
    for name, value in settings.items():
        line = f"    {name} = {_groovy(value)}"
        same = [n for n, old in enumerate(block) if (match := _LINE.match(old)) and match[2] == name]
        if same:
            block[same[0]] = line
        else:
            block.append(line)
    lines[start : start + length] = block
    if work_dir:
        lines = [line for line in lines if not line.startswith("workDir")]
        user = "${System.getenv('USER') ?: 'py2rely'}"
        lines.append(f'workDir = "{work_dir.rstrip("/")}/{user}/py2rely-work"')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        fix = "Write your own file (without --shared), or ask whoever looks after the installation."
        raise ProblemError(Problem(f"The settings cannot be written: {error}.", str(path), "", fix)) from error


def check_settings(settings: Mapping[str, Value]) -> None:
    """Raise ProblemError for settings that do not exist or cannot be."""
    problems = [
        Problem(f"There is no setting '{name}'.", "", ", ".join(SETTINGS), nearest(name, SETTINGS))
        for name in settings
        if name not in SETTINGS
    ]
    if settings.get("gpu_request", "gres") not in REQUESTS:
        problems.append(Problem(f"gpu_request is '{settings['gpu_request']}'.", "", " or ".join(REQUESTS)))
    image = str(settings.get("image", ""))
    if image and "://" not in image and not Path(image).is_file():
        problems.append(Problem("The image is missing.", image, "an Apptainer image", "Build one with 'make image'."))
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)


def imported_settings(path: Path) -> dict[str, Value]:
    """The settings of another file: a ``site.config``, or the JSON file of py2rely with its two shell snippets.

    Raises
    ------
    ProblemError
        The file is missing, or has neither form.
    """
    if not path.is_file():
        raise ProblemError(Problem("The file is missing.", str(path), "site.config or JSON", "Correct the path."))
    text = path.read_text()
    if not text.lstrip().startswith("{"):
        found = read_settings(text)
    else:
        try:
            snippets = json.loads(text)
        except ValueError as error:
            raise ProblemError(Problem(f"This is not JSON: {error}.", str(path), "", "Correct it.")) from error
        found = load_commands(snippets.get("python_load"), snippets.get("relion_load"))
    if not found:
        expected = "a params block with settings, or python_load and relion_load"
        raise ProblemError(Problem("The file sets nothing.", str(path), expected, "Give another file."))
    return found


def load_commands(python: object, relion: object) -> dict[str, Value]:
    """The setting that runs both snippets before a step, the one for Python first; none when both are empty."""
    load = "\n".join(text for one in (python, relion) if (text := str(one or "").strip()))
    return {"relion_load": load} if load else {}


def _params_block(lines: list[str]) -> tuple[int | None, list[str]]:
    """Where the lines within the first ``params { }`` start, and these lines."""
    start = next((n + 1 for n, line in enumerate(lines) if re.match(r"\s*params\s*\{\s*$", line)), None)
    if start is None:
        return None, []
    end = next((n for n in range(start, len(lines)) if lines[n].strip().startswith("}")), len(lines))
    return start, lines[start:end]


def _groovy(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _parsed(text: str) -> Value | None:
    if text in ("true", "false"):
        return text == "true"
    if len(text) > 1 and text[0] == text[-1] == "'":
        return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text[1:-1])
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return None
