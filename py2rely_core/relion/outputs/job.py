"""What every check of a RELION job's output uses; and its numbers for the workflow and the report: ``job.json``."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py2rely_core.maps.io import read_map
from py2rely_core.maps.masks import is_degenerate
from py2rely_core.problems import ExitCode, Problem, ProblemError
from py2rely_core.relion.run import commands, last_lines

if TYPE_CHECKING:
    import pandas as pd


#: In a job through the tilt series: those that it went on without, and the particles that it was left with.
LOST, KEPT = "lost.json", "kept.star"


def lost_of(job: Path) -> list[dict[str, Any]]:
    """Tilt series that a job lost, each with ``tilt_series``, ``particles`` (how many) and ``reason``."""
    return json.loads((job / LOST).read_text())["lost"] if (job / LOST).is_file() else []


def lost_text(lost: list[dict[str, Any]]) -> str:
    """Which tilt series were left out, and why, in one line."""
    count = f"{len(lost)} tilt series {'was' if len(lost) == 1 else 'were'} left out"
    return f"{count}: {'; '.join(one_line(one) for one in lost)}"


def one_line(lost: dict[str, Any]) -> str:
    """A lost tilt series, its particles and the reason."""
    return f"{lost['tilt_series']} ({lost['particles']} particles): {lost['reason']}"


def kept_particles(job: Path, particles: Path) -> Path:
    """The particle set that a job worked on: the one that it was given, or what was left of it."""
    return job / KEPT if (job / KEPT).is_file() else particles


def write_numbers(job: Path, **numbers: Any) -> None:
    """Write ``job.json``: the job's name, the numbers, and what it took."""
    ran = commands(job)
    wall = time.time() - ran[0]["started"] if ran else 0.0
    numbers |= {"job": str(job), "relion_seconds": round(sum(one["seconds"] for one in ran), 3)}
    numbers["wall_seconds"] = round(wall, 3)
    if ran:
        numbers["started"] = round(ran[0]["started"], 3)
        numbers["cpu_seconds"] = round(sum(one.get("cpu_seconds", 0.0) for one in ran), 3)
        numbers["peak_memory"] = max(one.get("peak_memory", 0.0) for one in ran)
    continued = [one["continued_after_iteration"] for one in ran if "continued_after_iteration" in one]
    numbers |= {"continued_after_iteration": continued[-1]} if continued else {}
    changed = [one["because"] for one in ran if "because" in one]
    numbers |= {"warnings": [*numbers.get("warnings", []), *changed]} if changed else {}
    lost = lost_of(job)
    numbers |= {"lost": lost, "warnings": [*numbers.get("warnings", []), f"{lost_text(lost)}."]} if lost else {}
    numbers["commands"] = [shlex.join(one["command"]) for one in ran]
    (job / "job.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n")


def bad_output(job: Path, what: str) -> ProblemError:
    """The program said that all is well, and it is not."""
    fix = "RELION did not report this failure: read run.out and run.err; then run the same command with -resume."
    where = f"{job}\n{last_lines(job)}"
    return ProblemError(Problem(f"{job}: {what}", where, "complete output", fix), ExitCode.BAD_OUTPUT)


def particles_of(job: Path, path: Path) -> pd.DataFrame:
    """The particle table of a job's output, which must be there and not empty."""
    from py2rely_core.data.tables import read_star  # with pandas, which checks of maps do without

    if not path.is_file():
        raise bad_output(job, f"{path.name} was not written.")
    try:
        table = read_star(path).get("particles")
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read: {error}") from error
    if table is None or table.empty:
        raise bad_output(job, f"{path.name} holds no particles.")
    return table


def check_map(job: Path, path: Path, box: int | None = None, pixel_size: float | None = None) -> None:
    """A map that is there, finite, not constant, and on the planned grid."""
    try:
        result = read_map(path)
    except ProblemError as error:
        raise bad_output(job, f"{path.name} cannot be read ({error.problems[0].what})") from error
    reason = is_degenerate(result.data)
    if reason:
        raise bad_output(job, f"{path.name} is no map: {reason}.")
    if box and result.data.shape != (box,) * 3:
        raise bad_output(job, f"{path.name} has the shape {result.data.shape}, not a box of {box}.")
    if pixel_size and abs(result.pixel_size - pixel_size) > 2e-3 * pixel_size:
        raise bad_output(job, f"{path.name} has {result.pixel_size:g} A per pixel, not {pixel_size:g}.")


def check_maps(job: Path, names: list[str], box: int | None, pixel_size: float | None) -> None:
    """Maps of a job, each on the planned grid."""
    for name in names:
        check_map(job, job / name, box, pixel_size)
    write_numbers(job, box=box, pixel_size=pixel_size)


def grid_of(extract: Path) -> tuple[int, float]:
    """Box and pixel size of extracted particles."""
    from py2rely_core.data.tables import read_star

    optics = read_star(extract / "particles.star")["optics"].iloc[0]
    return int(optics["rlnImageSize"]), float(optics["rlnImagePixelSize"])


def row_count(path: Path) -> int:
    """How many particles a file holds; 0 where there is none."""
    from py2rely_core.data.tables import read_star

    return len(read_star(path).get("particles", [])) if path.is_file() else 0
