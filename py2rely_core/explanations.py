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
    ("errors in reconstruction", "RELION 5.0.1 corrected how 5.0.0 reconstructs sub-tomogram averages.", ""),
)
_KNOWN = tuple((re.compile(re.escape(part), re.IGNORECASE), meaning, cure) for part, meaning, cure in EXPLANATIONS)


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
