"""What the warnings of a run mean, in the words of someone who has seen them before."""

from __future__ import annotations

import re

#: Part of a warning's text, what it means, what can be done.
EXPLANATIONS = (
    (
        "limited by Nyquist",
        "The FSC never falls below 0.143 at this binning: the particles hold more detail than its pixels can show. "
        "The number is the finest detail that the pixel size allows, not a measurement.",
        "Go on to a finer binning (resolutions.binning_list). At bin 1 the data's own pixel size is the limit.",
    ),
    (
        "orientations were searched anew",
        "At the level before, half of the tilts did not find the same orientations as the other half, and finer pixels "
        "may show what tells them apart. Searches around wrong orientations stay there: this level searched all, from "
        "the template again where there is one.",
        "Nothing, if this level's orientations are consistent. It takes as long as a global search does: "
        "orientations.search_anew: no keeps searches local.",
    ),
    (
        "Orientations are not determined",
        "Half maps of particles that were aligned to one reference agree although all orientations are wrong: both "
        "have the reference's features, and the particle's outline. So each half of a particle's tilts was searched "
        "alone; where images hold an orientation, both halves find it. Here they do not, more than chance would.",
        "Do not interpret the map. Where this level's pixels do not yet show 10 A, a finer binning may help: the next "
        "level searches all orientations anew. Else more signal per particle does: more dose or tilts, "
        "thinner ice, better alignment; or a template with finer detail (refine3D.ini_high) where its shape is nearly "
        "round. See that the picks are particles. With known orientations (template matching, geometry) the average "
        "rests on these alone.",
    ),
    (
        "Orientations are consistent in part",
        "Each half of a particle's tilts was searched alone. Many particles have the same orientation from both "
        "halves, but not most of them: the others may be wrong, or false picks, or just have too little signal in "
        "half of their tilts.",
        "Classify (classification.run), and see whether the map has detail that the template did not have.",
    ),
    (
        "drew for them at random",
        "Classes begin with one map, and a class is drawn for each particle. Its map then holds its particles' own "
        "noise, which ties them to it where they are few and where fine shells are looked at.",
        "Begin with a coarser map (classification.low_pass), ask for fewer classes, or bring more particles. No class "
        "was left out.",
    ),
    (
        "not tested by their images",
        "After a classification, either half of a particle's tilts is compared with class averages of the other half "
        "set. RELION ended in that with an error: the classification itself is complete.",
        "Look at the classes before you rely on what was left out. The run.err that is named says what went wrong.",
    ),
    (
        "mask is too sharp",
        "RELION randomises the phases beyond a resolution and computes the FSC again. What correlates then comes from "
        "the mask alone, so the masked FSC flatters the map; RELION's corrected curve takes that off only in part.",
        "Widen the soft edge (mask_create.width_mask_edge) or extend the mask (mask_create.extend_inimask), and judge "
        "the map by its unmasked FSC until then.",
    ),
    (
        "not visible in any tilt",
        "The box of these particles lies outside of every tilt image, usually at a tomogram's edge. RELION leaves them "
        "out of the extraction.",
        "A few are normal. Many of them say that coordinates, pixel size or the tomogram's size do not fit together.",
    ),
    (
        "half set has only",
        "Each half map comes from few particles; its FSC is noisy and the resolution uncertain by several shells.",
        "Add particles, or read the resolution as a rough one.",
    ),
    (
        "coordinate conventions are present",
        "The particle file has centred coordinates, which RELION 5 uses, and corner-based ones, which it ignores. If "
        "the second ones are the newer, RELION works on stale positions.",
        "",
    ),
    (
        "from the centre to the edge",
        "Picks usually fill the tomogram. All of them near its centre is what coordinates in pixels, read as Angstrom, "
        "look like.",
        "",
    ),
    (
        "header says",
        "The pixel size in the stack's header is not the one in the STAR file. The STAR file's is used.",
        "",
    ),
    (
        "left a particle no pose",
        "RELION's prior on offsets counts search steps too far by the pixel size. With strong signal and large pixels "
        "the likely pose of a particle may then get no weight, and RELION ends. The refinement was repeated with a "
        "prior that makes up for that.",
        "",
    ),
    (
        "run with one thread per rank",
        "Each thread of a rank works with GPU memory of its own. One thread gives the same result, later.",
        "",
    ),
    (
        "knows no more than the template",
        "The template was given to the search to a low-pass, and beyond it the half maps have nothing in common. The "
        "map may be the template again, which noise gives as well as particles do: it is no evidence of the structure.",
        "Look at the picks and their number; begin with a template at a coarser low-pass (refine3D.ini_high), or "
        "without one (--run_denovo_generation), and see whether the same structure comes out.",
    ),
    (
        "resolution depends on direction",
        "Fourier components of some directions are known less far than others: particles are seen from preferred "
        "directions, or a wedge is open. Details along these directions are smeared, whatever the overall resolution.",
        "See the map of directions in the report. More particles in other orientations help; sharpening does not.",
    ),
    (
        "a wedge is open",
        "With a limited tilt range each particle lacks a wedge of directions, and particles in many orientations fill "
        "it. Here they do not: what is not sampled is empty in the map.",
        "Particles in other orientations. The point group's copies count already.",
    ),
    ("errors in reconstruction", "RELION 5.0.1 corrected how 5.0.0 reconstructs sub-tomogram averages.", ""),
)
#: Part of RELION's last lines, what it means, what can be done.
FAILURES = (
    (
        "zero sum of weights",
        "RELION found no orientation in which a particle fits the reference, also with a wide prior on offsets.",
        "Check the reference's contrast and pixel size. With known orientations, allow a wider search "
        "(initial_reference.known_sigma_ang, or known_search 'global'); with a box of few pixels, begin at a finer "
        "binning. Then start the same command with -resume.",
    ),
    (
        "No space left on device",
        "A disk is full: the one of the work directory, or of the temporary files.",
        "Make room, or set another work directory (-work-dir) or TMPDIR; then start the same command with -resume.",
    ),
    (
        "CUDA driver version is insufficient",
        "The GPU's driver is older than the CUDA version that RELION was built with.",
        "Update the driver or use a RELION of an earlier CUDA; then start the same command with -resume.",
    ),
    (
        "no CUDA-capable device",
        "RELION was told to use a GPU, and sees none.",
        "Correct 'gpus', or leave it out to compute on the CPU; then start the same command with -resume.",
    ),
)
_KNOWN = tuple((re.compile(re.escape(part), re.IGNORECASE), meaning, cure) for part, meaning, cure in EXPLANATIONS)


def explain_failure(lines: list[str]) -> dict[str, str]:
    """What RELION's last lines mean: ``explanation`` and ``to_do``; empty where they are not known."""
    text = "\n".join(lines)
    found = (row for row in FAILURES if row[0].lower() in text.lower())
    return next(({"explanation": meaning, "to_do": cure} for _, meaning, cure in found), {})


def explain(text: str) -> dict[str, str]:
    """What a warning means.

    Returns
    -------
    dict
        ``explanation`` and, where something more than the warning's own advice can be done, ``to_do``; empty for a
        warning that says all itself.
    """
    for pattern, meaning, cure in _KNOWN:
        if pattern.search(text):
            return {"explanation": meaning} | ({"to_do": cure} if cure else {})
    return {}
