"""Names of tilt series as other programs write them: what they put before and after, and which one is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

#: Endings of files that are named after a tilt series.
_FILE = r"\.(?:tomostar|mrcs?|map|rec|st|ali|preali|tif|tiff|hdf|em|mdoc|aln|xml|star|cbox|coords|tbl|txt|mod|json|csv)"
#: What programs add to the name of what they make of a tilt series. A flipped, turned or trimmed tomogram is not among
#: them: its coordinates are in another frame.
_ADDED = (
    r"[_-](?:rec|vol|ali|aligned|preali|full|full_rec|tomo|tomogram|3d|sirt|sart|wbp|fbp|\d+iter|sirt[_-]?\d+|"
    r"bin_?\d+(?:\.\d+)?|binned|\d+(?:\.\d+)?(?:apx|angpix|a|ang)|ctf|dctf|phaseflip|deconv|dose[_-]?filt|filt|filtered|"
    r"denoised|denoise|cryocare|isonet|topaz|corrected|evn|odd|even|particles|picks|coords|labels|uncertain)"
)
_BEFORE = r"(?:rec|tomo|tomogram|aligned|ali)[_-]"
_STEPS = tuple(
    re.compile(pattern, re.IGNORECASE) for pattern in (rf"{_FILE}$", rf"{_ADDED}$", rf"^{_BEFORE}(?=.)")
)  # fmt: skip


def stems(name: str) -> list[str]:
    """A name, and what is left of it when directories and what programs add are taken away, one after the other."""
    found = [name, PurePosixPath(name.replace("\\", "/")).name or name]
    while True:
        shorter = next((text for step in _STEPS if (text := step.sub("", found[-1])) and text != found[-1]), None)
        if shorter is None:
            return list(dict.fromkeys(found))
        found.append(shorter)


def match(names: Iterable[str], known: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Which known name each name means.

    A name means the known one that is the same; else the only one that is the same when what programs add is taken
    away from both, as little as possible.

    Parameters
    ----------
    names, known : iterable of str

    Returns
    -------
    matched : dict of str to str
        Names that mean exactly one.
    several : dict of str to list of str
        Names that could mean several, and which.
    """
    known = list(dict.fromkeys(known))
    there, by_stem = set(known), {}
    for one in known:
        for stem in stems(one):
            by_stem.setdefault(stem, []).append(one)
    matched: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found = stems(name)
        same = next((stem for stem in found if stem in there), None)
        if same is not None:
            matched[name] = same
            continue
        candidates = next((by_stem[stem] for stem in found if stem in by_stem), [])
        if len(candidates) == 1:
            matched[name] = candidates[0]
        elif candidates:
            several[name] = candidates
    return matched, several
