"""Whether and how the best map is sharpened, and what came of it.

The B-factor is the slope of the Guinier plot, the logarithm of the amplitudes against the squared frequency, between
``postprocess.autob_lowres`` and the resolution (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013). At lower
resolution than about 10 A the plot follows the particle's shape, and its slope is no B-factor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from py2rely_core.data.tables import read_star
from py2rely_core.problems import ProblemError
from py2rely_core.relion.outputs.averages import read_fsc
from py2rely_core.relion.outputs.job import bad_output, check_map, write_numbers

#: Fewer shells than these make no line.
LEAST_SHELLS = 5
#: What ``relion_postprocess`` writes for a shell without amplitude.
NO_AMPLITUDE = -99.0
#: Columns of RELION's Guinier plot, with short names.
COLUMNS = {
    "rlnResolutionSquared": "frequency_squared",
    "rlnLogAmplitudesOriginal": "original",
    "rlnLogAmplitudesMTFCorrected": "mtf_corrected",
    "rlnLogAmplitudesWeighted": "weighted",
    "rlnLogAmplitudesSharpened": "sharpened",
}


def sharpen_by(postprocess: Path, lowest: float, given: float | None) -> tuple[str, str]:
    """The flag with which ``relion_postprocess`` sharpens a map, and why; an empty one where it should not.

    Parameters
    ----------
    postprocess : Path
        The map's post-processing.
    lowest : float
        The lowest resolution of a Guinier plot's straight part, Angstrom.
    given : float or None
        A B-factor that is used as it is, square Angstrom.
    """
    if given:
        return f"--adhoc_bfac {given:g}", "The B-factor was given."
    resolution = json.loads((postprocess / "job.json").read_text())["resolution"]
    if resolution >= lowest:
        return "", f"The resolution, {resolution:.1f} A, is not better than {lowest:g} A: a B-factor cannot be told."
    shells = read_fsc(postprocess)[0]["resolution"]
    used = int(((shells <= lowest) & (shells >= resolution)).sum())
    if used < LEAST_SHELLS:
        return "", f"Only {used} shells lie between {lowest:g} A and {resolution:.1f} A: too few for a B-factor."
    why = f"The slope of the Guinier plot from {lowest:g} A to {resolution:.1f} A, {used} shells."
    return f"--auto_bfac --autob_lowres {lowest:g}", why


def check_sharpening(job: Path, best: Path, settings: dict[str, Any], grid: tuple[int, float]) -> None:
    """Prove a sharpened map, or note why there is none; with the Guinier plot.

    Parameters
    ----------
    job : Path
        Gets ``job.json``; holds ``postprocess.mrc`` where a B-factor was found or given.
    best : Path
        The map's own post-processing.
    settings : dict
        ``lowest``, ``given`` and ``mtf``, as in the plan.
    grid : (int, float)
        Box and pixel size.
    """
    flag, why = sharpen_by(best, settings["lowest"], settings["given"])
    done = job if flag else best
    general, plot = _read(job, done / "postprocess.star")
    b_factor = float(general["rlnBfactorUsedForSharpening"]) if flag else None
    if flag:
        check_map(job, job / "postprocess.mrc", *grid)
    fitted = flag.startswith("--auto_bfac")
    warnings = []
    if fitted and b_factor >= 0:
        why = f"The Guinier plot rises: a B-factor of {b_factor:.0f} A^2 would blur the map."
        (job / "postprocess.mrc").unlink()
        flag, warnings = "", [f"The map is not sharpened. {why}"]
    write_numbers(
        job,
        box=grid[0],
        pixel_size=grid[1],
        sharpening={
            "sharpened": bool(flag),
            "b_factor": round(b_factor, 2) if flag else None,
            "source": ("Guinier plot" if fitted else "given") if flag else "none",
            "why": why,
            "mtf": settings["mtf"] if flag else "",
            "slope": float(general["rlnFittedSlopeGuinierPlot"]) if fitted else None,
            "intercept": float(general["rlnFittedInterceptGuinierPlot"]) if fitted else None,
            "correlation": float(general["rlnCorrelationFitGuinierPlot"]) if fitted else None,
            "lowest": settings["lowest"],
            "guinier": plot,
        },
        warnings=warnings,
    )


def _read(job: Path, path: Path) -> tuple[pd.Series, dict[str, list[float | None]]]:
    """The general row of RELION's post-processing, and its Guinier plot by :data:`COLUMNS`."""
    try:
        blocks = read_star(path)
    except ProblemError as error:
        raise bad_output(job, f"postprocess.star cannot be read: {error}") from error
    table = blocks["guinier"].astype(float)
    table = table.where(table > NO_AMPLITUDE)
    plot = {
        short: table[label].round(6).astype(object).where(table[label].notna(), None).tolist()
        for label, short in COLUMNS.items()
        if label in table
    }
    return blocks["general"].iloc[0], plot
