"""What a paper says about a run: Table 1, and a paragraph of methods with the references that it needs.

Only what the run knows. A value that it does not know is blank, and a step that it did not do is not told.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from py2rely_core.data.inputs import Inputs
from py2rely_core.exporters.run import Source, optics_of
from py2rely_core.exporters.series import dose_of, tilt_angles, tilt_scheme

#: Stands for a value that the run does not know.
BLANK = ""
REFERENCES = {
    "relion": "Scheres SHW (2012) RELION: implementation of a Bayesian approach to cryo-EM structure determination. "
    "J Struct Biol 180, 519-530. doi:10.1016/j.jsb.2012.09.006",
    "tomography": "Burt A et al. (2024) An image processing pipeline for electron cryo-tomography in RELION-5. "
    "FEBS Open Bio 14, 1788-1804. doi:10.1002/2211-5463.13873",
    "polishing": "Zivanov J et al. (2022) A Bayesian approach to single-particle electron cryo-tomography in "
    "RELION-4.0. eLife 11, e83724. doi:10.7554/eLife.83724",
    "nextflow": "Di Tommaso P et al. (2017) Nextflow enables reproducible computational workflows. "
    "Nat Biotechnol 35, 316-319. doi:10.1038/nbt.3820",
    "gold": "Scheres SHW, Chen S (2012) Prevention of overfitting in cryo-EM structure determination. "
    "Nat Methods 9, 853-854. doi:10.1038/nmeth.2115",
    "fsc": "Rosenthal PB, Henderson R (2003) Optimal determination of particle orientation, absolute hand, and "
    "contrast loss in single-particle electron cryomicroscopy. J Mol Biol 333, 721-745. doi:10.1016/j.jmb.2003.07.013",
    "randomised": "Chen S et al. (2013) High-resolution noise substitution to measure overfitting and validate "
    "resolution in 3D structure determination by single particle electron cryomicroscopy. Ultramicroscopy 135, 24-35. "
    "doi:10.1016/j.ultramic.2013.06.004",
}


@dataclass(frozen=True)
class Map:
    """What is measured on the map that is given away.

    Attributes
    ----------
    box : int
        Voxels.
    pixel_size : float
        Angstrom.
    contour : float
        Recommended level.
    b_factor : float or None
        Used for sharpening, square Angstrom; 0 for none, None where it is not known.
    """

    box: int
    pixel_size: float
    contour: float
    b_factor: float | None


@dataclass(frozen=True)
class Row:
    """A line of Table 1; the value is blank where the run does not know it."""

    group: str
    item: str
    value: str


def table_one(source: Source, inputs: Inputs, measured: Map) -> list[Row]:
    """Table 1 of a paper, as journals ask for it for a map from sub-tomogram averaging.

    Parameters
    ----------
    source : Source
    inputs : Inputs
        Tables of the result.
    measured : Map
    """
    final, level = source.final, source.level
    used = [inputs.tilt_series[name].tilts for name in dict.fromkeys(inputs.particles["rlnTomoName"].astype(str))]
    doses = [dose for tilts in used if (dose := dose_of(tilts))]
    angles = [found for tilts in used if len(found := tilt_angles(tilts))]
    defocus = [tilts[label].to_numpy(dtype=float) for tilts in used
               for label in ("rlnDefocusU", "rlnDefocusV") if label in tilts]  # fmt: skip
    schemes = [tilt_scheme(tilts) for tilts in used]
    resolution = final["resolution"]
    bound = "at Nyquist, " if final["nyquist_limited"] else ""
    data, work, result = "Data collection", "Data processing", "Map"
    rows = [
        (data, "Microscope", BLANK),
        (data, "Detector (operation mode)", BLANK),
        (data, "Magnification", BLANK),
        (data, "Voltage (kV)", _values(optics_of(inputs, "rlnVoltage"))),
        (data, "Spherical aberration (mm)", _values(optics_of(inputs, "rlnSphericalAberration"))),
        (data, "Amplitude contrast (as used)", _values(optics_of(inputs, "rlnAmplitudeContrast"))),
        (data, "Energy filter, slit width (eV)", BLANK),
        (data, "Pixel size of the tilt series (A)", _values(optics_of(inputs, "rlnTomoTiltSeriesPixelSize"))),
        (data, "Defocus range (um)", _range([values / 1e4 for values in defocus], 2)),
        (data, "Tilt range (degrees)", _range(angles, 1)),
        (data, "Tilt increment (degrees)", _spread([float(np.median(np.diff(one))) for one in angles if len(one) > 1])),
        (data, "Tilt scheme", ", ".join(dict.fromkeys(schemes)) if all(schemes) else BLANK),
        (data, "Images per tilt series", _spread([len(tilts) for tilts in used])),
        (data, "Electron exposure per image (e/A^2)", _spread([dose for dose, _ in doses])),
        (data, "Electron exposure in all (e/A^2)", _spread([total for _, total in doses])),
        (data, "Acquisition software", BLANK),
        (work, "Tilt series given, used", f"{source.dataset['tilt_series'] or ''}, {len(used)}".strip(", ")),
        (work, "Particles given", _number(source.dataset["particles_in"])),
        (work, "Particles in the map", _number(len(inputs.particles))),
        (work, "Symmetry imposed", source.dataset["symmetry"]),
        (work, "Binning of the map", _number(final["binning"])),
        (work, "Resolution, masked (A)", BLANK if resolution is None else f"{bound}{resolution:.2f}"),
        (work, "Resolution, unmasked (A)", _unmasked(source)),
        (work, "FSC threshold", "0.143"),
        (work, "Same orientation from either half of the tilts", _orientations(level["orientations"])),
        (work, "Resolution range, local (A)", _local(source)),
        (result, "Box (voxels)", _number(measured.box)),
        (result, "Voxel size (A)", f"{measured.pixel_size:.4g}"),
        (result, "Mask", f"soft, threshold {level['mask']['threshold']:.4g}" if level["mask"] else BLANK),
        (result, "Sharpening B-factor (A^2)", _sharpening(measured.b_factor)),
        (result, "Recommended contour level", f"{measured.contour:.3g}"),
        ("Deposition", "EMDB", BLANK),
        ("Deposition", "EMPIAR", BLANK),
    ]  # fmt: skip
    return [Row(*row) for row in rows]


def _orientations(found: dict[str, Any] | None) -> str:
    """Of how many particles; what was not tested is not known."""
    if not found or found["judged"] is None:
        return BLANK
    return f"{found['within']} of {found['judged']} (within {found['degrees']:g} degrees; {found['judgement']})"


def _unmasked(source: Source) -> str:
    """Of the level's own result; a step of polishing does not note it."""
    value, nyquist = source.level["resolution"]["unmasked"], 2 * source.level["pixel_size"]
    if value is None or source.best_step:
        return BLANK
    return f"at Nyquist, {value:.2f}" if value <= nyquist else f"{value:.2f}"


def _local(source: Source) -> str:
    """From the best to the worst 5 % of the voxels within the mask."""
    found = (source.dataset.get("map_analysis") or {}).get("local_resolution")
    return f"{found['best']:.1f} to {found['worst']:.1f} (of 90 % of the voxels)" if found else BLANK


def _sharpening(b_factor: float | None) -> str:
    if b_factor is None:
        return BLANK
    return f"{b_factor:.0f}" if b_factor else "none applied"


def _number(value: int | None) -> str:
    return BLANK if value is None else str(value)


def _values(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _range(parts: list[np.ndarray], digits: int) -> str:
    if not parts:
        return BLANK
    values = np.concatenate(parts)
    return f"{values.min():.{digits}f} to {values.max():.{digits}f}"


def _spread(values: list[float]) -> str:
    """One value where all are alike, else from the lowest to the highest."""
    if not values:
        return BLANK
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def as_markdown(rows: list[Row], title: str) -> str:
    """Table 1 as Markdown."""
    lines = [f"# Table 1: {title}", "", "| | |", "|---|---|"]
    for group, items in pd.Series(rows).groupby([row.group for row in rows], sort=False):
        lines += [f"| **{group}** | |", *(f"| {row.item} | {row.value} |" for row in items)]
    return "\n".join(lines) + "\n"


def as_csv(rows: list[Row]) -> str:
    """Table 1 as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "item", "value"])
    writer.writerows((row.group, row.item, row.value) for row in rows)
    return text.getvalue()


class _Cited:
    """References in the order in which they are cited."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, *keys: str) -> str:
        self.keys += [key for key in keys if key not in self.keys]
        return f"[{', '.join(str(self.keys.index(key) + 1) for key in keys)}]"


def methods(source: Source, inputs: Inputs, measured: Map) -> str:
    """A paragraph of methods, in Markdown, with its references.

    Parameters
    ----------
    source : Source
    inputs : Inputs
        Tables of the result.
    measured : Map
    """
    cited = _Cited()
    sentences = [
        *_software(source, cited), *_first_reference(source), *_levels(source), *_classes(source),
        *_polishing(source, cited), *_result(source, inputs, measured, cited),
    ]  # fmt: skip
    references = [f"{number}. {REFERENCES[key]}" for number, key in enumerate(cited.keys, start=1)]
    return "\n".join(["# Methods", "", " ".join(sentences), "", "## References", "", *references]) + "\n"


def _software(source: Source, cited: _Cited) -> list[str]:
    versions, dataset = source.results["versions"], source.dataset
    pixel = source.level["pixel_size"] / source.level["binning"]
    relion = f"RELION {versions['relion']}" if versions.get("relion") else "RELION 5"
    # References are numbered as they are read: RELION's before Nextflow's.
    programs = cited("relion", "tomography")
    nextflow = f" in Nextflow {versions['nextflow']} {cited('nextflow')}" if versions.get("nextflow") else ""
    given = [f"{dataset['particles_in']} particles" if dataset["particles_in"] else "",
             f"{dataset['tilt_series']} tilt series" if dataset["tilt_series"] else ""]  # fmt: skip
    program = f"py2rely-nf {versions['py2rely-nf']}" if versions.get("py2rely-nf") else "py2rely-nf"
    return [
        f"Sub-tomogram averaging was done with {relion} {programs}, run by {program}{nextflow}.",
        f"It began with {' from '.join(part for part in given if part)}, at a pixel size of {pixel:.4g} A."
        if any(given)
        else f"The pixel size was {pixel:.4g} A.",
    ]


def _first_reference(source: Source) -> list[str]:
    dataset, first = source.dataset, source.dataset["levels"][0]
    if dataset["start"] != "picks":
        return ["It began from particles with known orientations."]
    low_pass = f" (low-pass filtered to {first['low_pass']:.3g} A)" if first["low_pass"] else ""
    apart = dataset["parameters"].get("initial_reference", {}).get("independent_halves") == "yes"
    who = "each half set was" if apart else "all particles were"
    kinds = {
        "template": f"A template{low_pass} was the first reference, to which {who} aligned.",
        "denovo": f"The first reference was made de novo from the particles{low_pass}.",
    }
    return [kinds.get(dataset["initial_reference"], "The first reference came from the orientations given.")]


def _levels(source: Source) -> list[str]:
    dataset = source.dataset
    done = [level for level in dataset["levels"] if level["status"] == "complete"]
    steps = [f"binning {level['binning']} ({level['pixel_size']:.4g} A per pixel, box of {level['box']} pixels"
             + _reached(level) + ")"
             for level in done]  # fmt: skip
    refined = any(level["iterations"] for level in done)
    what = "refined independently" if refined else "averaged as they were oriented"
    sentences = [
        f"Half sets were {what} with {dataset['symmetry']} symmetry and a particle diameter of "
        f"{dataset['particle_diameter']:g} A, at {', '.join(steps)}."
    ]
    removed = sum(level["duplicates_removed"] for level in done)
    return sentences + ([f"{removed} duplicates were removed after the first refinement."] if removed else [])


def _reached(level: dict[str, Any]) -> str:
    masked = level["resolution"]["masked"]
    if masked is None:
        return ""
    return f", to Nyquist at {masked:.2f} A" if level["nyquist_limited"] else f", to {masked:.2f} A"


def _classes(source: Source) -> list[str]:
    sentences = []
    for level in source.dataset["levels"]:
        if level["classes"]:
            kept = [row for row in level["classes"] if row["kept"]]
            particles = sum(row["particles"] for row in kept)
            where = f"at binning {level['binning']} into {len(level['classes'])} classes"
            left = f"{particles} particles of {len(kept)} class{'es' if len(kept) > 1 else ''}"
            sentences.append(f"3D classification {where} left {left}.")
    return sentences


def _polishing(source: Source, cited: _Cited) -> list[str]:
    polishing = source.dataset["polishing"]
    if not polishing:
        return []
    words = {"ctf_refine": "CTF refinement", "polish": "Bayesian polishing", "refine": "refinement"}
    kept = [f"{words[step['step']]} (cycle {step['cycle']})" for step in polishing["cycles"] if step["accepted"]]
    tried = len(polishing["cycles"])
    text = f"Of {tried} steps of CTF refinement, Bayesian polishing and refinement {cited('polishing')}"
    return [f"{text}, {', '.join(kept)} made the map better and {'was' if len(kept) == 1 else 'were'} kept."
            if kept else f"{text}, none made the map better, and none was kept."]  # fmt: skip


def _result(source: Source, inputs: Inputs, measured: Map, cited: _Cited) -> list[str]:
    final = source.final
    sentences = [f"The final map is of {len(inputs.particles)} particles."]
    if final["resolution"] is not None:
        limited = " (the limit set by Nyquist, not a result)" if final["nyquist_limited"] else ""
        sentences.append(
            f"Its resolution is {final['resolution']:.2f} A{limited}, where the Fourier shell correlation of half maps "
            f"{cited('gold')} falls below 0.143 {cited('fsc')}, in a soft mask and corrected for it by phase "
            f"randomisation {cited('randomised')}."
        )
    found = source.level["orientations"]
    if found and found["judged"] is not None:
        sentences.append(found["text"])
    if measured.b_factor is not None:
        used = f"sharpened with a B-factor of {measured.b_factor:.0f} A^2" if measured.b_factor else "not sharpened"
        sentences.append(f"The map was weighted by its FSC and {used}.")
    return sentences
