"""Which size and which pixel size: what a stack's header, the option and other files say, compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from py2rely_core.importers.formats.mdoc import Mdoc
from py2rely_core.maps.io import MapHeader, known_pixel_size, read_header
from py2rely_core.problems import Problem, ProblemError

#: Pixel sizes of one stack agree within this share.
SAME_PIXEL = 0.01
#: A calibrated pixel size differs from the microscope's own by less than this share.
CALIBRATED = 0.05
#: Sizes of one image at two binnings are in a whole ratio within this share: programs cut edges.
CUT = 0.02
#: Programs cut images to even sizes, pixels.
SAME_SIZE = 2


@dataclass(frozen=True)
class Stack:
    """A stack of tilt images.

    Attributes
    ----------
    path : Path
    header : MapHeader
    pixel_size : float
        Angstrom, the one that holds.
    notes : list of str
        Where the pixel size is from, unless it is the header's; and what is worth knowing.
    """

    path: Path
    header: MapHeader
    pixel_size: float
    notes: list[str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its images, pixels."""
        return self.header.shape[2], self.header.shape[1]

    @property
    def count(self) -> int:
        """Its sections."""
        return self.header.shape[0]


@dataclass(frozen=True)
class Said:
    """What another file says of the images of a stack: width and height, pixels, and Angstrom per pixel."""

    path: Path
    what: str
    size: tuple[int, int] | None = None
    pixel_size: float | None = None


def open_stack(path: Path, given: float | None = None, said: tuple[Said, ...] = ()) -> Stack:
    """A stack and its pixel size: `given`, else the header's, else another file's; all that are there must agree.

    Parameters
    ----------
    path : Path
    given : float or None
        ``--pixel-size``, Angstrom.
    said : tuple of Said
        What other files say of the same images, in the order of their rank.

    Raises
    ------
    ProblemError
        The stack cannot be read, its pixel size is unknown, or two sources contradict each other.
    """
    header = read_header(path)
    in_header = known_pixel_size(header.pixel_size)
    if given is not None and not 0.01 <= given <= 1000:
        what = f"{given:g} A is no possible pixel size."
        raise ProblemError(Problem(what, "--pixel-size", "Angstrom per pixel", "Correct --pixel-size."))
    if given and in_header and abs(in_header - given) > SAME_PIXEL * given:
        what = f"The header says {in_header:g} A per pixel."
        fix = "Correct --pixel-size: it is that of the images of the tilt series; or correct the header."
        raise ProblemError(Problem(what, str(path), f"--pixel-size {given:g}", fix))
    size, notes = (header.shape[2], header.shape[1]), []
    value = given or in_header
    for one in said:
        factor = _binning(size, one, path)
        theirs = one.pixel_size * factor if one.pixel_size else None
        if value is None and theirs:
            value = theirs
            notes.append(f"pixel size {theirs:g} A from {one.what} of {one.path.name}: the header does not say")
        elif value and theirs and abs(value - theirs) > CALIBRATED * value:
            source = "--pixel-size" if given else f"the header of {path.name}"
            what = f"The pixel size is {value:g} A in {source}, and {theirs:g} A after {one.what} of {one.path.name}."
            fix = "One of them is of other images: correct the header of the stack, or that file."
            raise ProblemError(Problem(what, f"{path} and {one.path}", "one pixel size", fix))
    if not value or value <= 0:
        text = (
            "1.0 A per pixel, which programs write when they do not know" if header.pixel_size > 0 else "no pixel size"
        )
        problem = Problem(f"The header has {text}.", str(path), "Angstrom per pixel > 0", "Give --pixel-size.")
        raise ProblemError(problem)
    if given and not in_header and header.pixel_size:
        notes.append(f"{path.name}: the header's {header.pixel_size:g} A is taken for unknown")
    return Stack(path, header, round(float(value), 6), notes)


def _binning(size: tuple[int, int], said: Said, stack: Path) -> float:
    """How many of the other file's pixels are one of the stack's."""
    if said.size is None:
        return 1.0
    for other in (said.size, said.size[::-1]):
        if all(abs(a - b) <= SAME_SIZE for a, b in zip(size, other, strict=True)):
            return 1.0
    for other in (said.size, said.size[::-1]):
        ratios = np.array(other) / np.array(size)
        for factor in (np.mean(ratios), 1 / np.mean(ratios)):
            whole = round(float(factor))
            if whole > 1 and (np.abs(ratios / np.mean(ratios) * factor - whole) < CUT * whole).all():
                return float(whole) if np.mean(ratios) > 1 else 1.0 / whole
    raise ProblemError(_other_size(size, said, stack, "the images of one tilt series"))


def same_size(stack: Stack, said: Said, may_be_turned: bool = False) -> None:
    """Another file is of images of the stack's own size.

    Raises
    ------
    ProblemError
        It is not: turned, binned, or another stack.
    """
    if said.size is None:
        return
    fits = [said.size, said.size[::-1]] if may_be_turned else [said.size]
    if not any(all(abs(a - b) <= SAME_SIZE for a, b in zip(stack.size, one, strict=True)) for one in fits):
        raise ProblemError(_other_size(stack.size, said, stack.path, "the stack that was aligned"))


def _other_size(size: tuple[int, int], said: Said, stack: Path, expected: str) -> Problem:
    own, other = (f"{a} x {b}" for a, b in (size, said.size))
    what = f"The images are {own} pixels, and {other} after {said.what} of {said.path.name}"
    ratio = said.size[0] / size[0]
    if size[0] != size[1] and all(abs(a - b) <= SAME_SIZE for a, b in zip(size, said.size[::-1], strict=True)):
        what += ": the stack was turned, as aligned stacks are"
    elif abs(ratio - said.size[1] / size[1]) < 0.02 * ratio and abs(ratio - 1) > 0.05:
        what += f": the stack is binned {ratio:g} times" if ratio > 1 else f": the stack is {1 / ratio:g} times larger"
    fix = "Give the raw, unbinned stack that was aligned; shifts are in its pixels."
    return Problem(what + ".", f"{stack} and {said.path}", expected, fix)


def of_mdoc(mdoc: Mdoc) -> Said:
    """Image size and pixel size of an ``.mdoc``: from its head, else from its first section.

    Raises
    ------
    ProblemError
        Values are no numbers, or its sections say different pixel sizes.
    """
    values = mdoc.column("PixelSpacing", "the pixel size", 0.01, 1000)
    if values and max(values) - min(values) > SAME_PIXEL * min(values):
        section = mdoc.sections[int(np.argmax(np.abs(np.array(values) - np.median(values))))]
        what = f"Section {section.number} has another PixelSpacing than the others."
        raise section.values["PixelSpacing"].error(what, f"{np.median(values):g} A")
    pixel = values[0] if values else None
    if "PixelSpacing" in mdoc.header and mdoc.header["PixelSpacing"].text:
        head = mdoc.header["PixelSpacing"].number("the pixel size", 0.01, 1000)
        if pixel and abs(pixel - head) > SAME_PIXEL * head:
            what = f"PixelSpacing is {head:g} A at the head, and {pixel:g} A in the sections."
            raise mdoc.header["PixelSpacing"].error(what, "one pixel size")
        pixel = head
    size = None
    if "ImageSize" in mdoc.header and mdoc.header["ImageSize"].text:
        line = mdoc.header["ImageSize"]
        if len(line.words) != 2:
            raise line.error(f"ImageSize has {len(line.words)} values.", "width and height")
        size = tuple(word.integer("a size of the images", 1, 1e6) for word in line.words)
    return Said(mdoc.path, "PixelSpacing and ImageSize", size, pixel)


def tomogram_size(
    volume: Path | None, stack: Stack, rotation: float, thickness: int | None, where: str
) -> tuple[int, int, int]:
    """Size of the unbinned tomogram: from a reconstructed volume, else from the images and a thickness.

    Parameters
    ----------
    volume : Path or None
        A reconstruction of any binning, z first or (as AreTomo writes them when it does not flip) y first.
    stack : Stack
    rotation : float
        Of the tilt axis, degrees: images are turned by 90 degrees when it is nearer to x than to y.
    thickness : int or None
        Unbinned voxels.
    where : str
        The tilt series and its file, for messages.

    Raises
    ------
    ProblemError
        The volume is of other images, or there is neither volume nor thickness.
    """
    width, height = stack.size
    x, y = (height, width) if abs(np.sin(np.radians(rotation))) > np.sqrt(0.5) else (width, height)
    if thickness is not None and not 1 <= thickness <= 100_000:
        what = f"{thickness} voxels are no possible thickness."
        raise ProblemError(Problem(what, where, "unbinned voxels", "Correct --thickness."))
    if thickness:
        return x, y, int(thickness)
    if volume is None or not volume.is_file():
        fix = "Give --thickness (unbinned voxels), or put the reconstructed volume beside it."
        raise ProblemError(Problem("The size of the tomogram is not known.", where, "a volume or a thickness", fix))
    reconstructed = read_header(volume)
    voxel = known_pixel_size(reconstructed.pixel_size)
    # Without a voxel size the width tells the binning.
    binning = voxel / stack.pixel_size if voxel else x / reconstructed.shape[2]
    nz, ny, nx = (round(n * binning) for n in reconstructed.shape)
    near = 2 * binning + 2
    as_y = [edge for edge, other in ((ny, nz), (nz, ny)) if abs(edge - y) <= near and abs(other - y) > near]
    if abs(nx - x) > near or len(as_y) != 1:
        seen = f"{nx} x {ny} x {nz} unbinned voxels, images of {x} x {y} after turning"
        fix = "Give --thickness (unbinned voxels)."
        raise ProblemError(Problem("The volume does not fit its images.", f"{volume}: {seen}", "the same area", fix))
    return nx, as_y[0], nz if as_y[0] == ny else ny


def other_volume(volume: Path, stack: Stack, size: tuple[int, int, int]) -> str | None:
    """The size of a reconstruction in unbinned voxels, where it is not that of the tomogram; else None.

    Parameters
    ----------
    volume : Path
        Of any binning, z first or y first.
    stack : Stack
    size : tuple of int
        x, y, z of the unbinned tomogram, voxels.
    """
    header = read_header(volume)
    voxel = known_pixel_size(header.pixel_size)
    binning = voxel / stack.pixel_size if voxel else size[0] / header.shape[2]
    nz, ny, nx = (round(n * binning) for n in header.shape)
    near = 2 * binning + 2
    if any(all(abs(a - b) <= near for a, b in zip(one, size, strict=True)) for one in ((nx, ny, nz), (nx, nz, ny))):
        return None
    return f"{nx} x {ny} x {nz}"
