"""The parameter file: pydantic models with the reference system's block and field names.

Booleans are ``"yes"``/``"no"`` in files and bool in Python. Lengths are Angstrom, angles degrees, boxes and mask
edges pixels at the level's binning. Fields that are :data:`KEPT` are written by the reference system.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.fields import FieldInfo

from py2rely_core.data.symmetry import parse_point_group
from py2rely_core.parameters.table import Written

#: What is said of a field that does nothing here.
KEPT = "read and written, without effect"
#: Levels that a run can have; subworkflows/ladder.nf has as many rungs.
MAX_LEVELS = 8


def _yes_no(value: object) -> object:
    return {"yes": True, "no": False, "true": True, "false": False}.get(str(value).strip().lower(), value)


def _numbers(value: object) -> object:
    """A list that may be written as text, such as ``"[4, 2, 1]"`` or ``"1,3"``; Nextflow makes a number of ``3``."""
    if isinstance(value, int):
        return [value]
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.strip("[] ").split(",") if part.strip()]


def _one(value: object) -> object:
    """A number, or the list of several."""
    found = _numbers(value)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


YesNo = Annotated[bool, BeforeValidator(_yes_no), PlainSerializer(lambda value: "yes" if value else "no")]
Classes = Annotated[list[int], BeforeValidator(_numbers)]
#: One number, or several that are tried side by side.
Numbers = Annotated[int | list[int], BeforeValidator(lambda value: value if isinstance(value, int) else _one(value))]
Binnings = Annotated[list[int], BeforeValidator(_numbers), PlainSerializer(str)]


def _splittable(value: str) -> str:
    shlex.split(value)  # a ValueError says which quotation is open
    return value


#: Words of a command line, with the quoting rules of a shell and none of its commands.
Words = Annotated[str, AfterValidator(_splittable)]


class Block(BaseModel):
    """A block of the recipe; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def _hand(value: float | None) -> float | None:
    if value not in (None, 1, -1):
        raise ValueError("it is 1 or -1; 'py2rely check-hand' finds out which")
    return value


def _text(value: Any) -> Any:
    """A number or a switch as the text that it was; or an error where nothing says what was written."""
    if isinstance(value, Written):
        return value.text
    if isinstance(value, float):
        raise ValueError(f"it is a name, and was written as the number {value:g}: put it in quotation marks")
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


#: A name that may look like a number.
Name = Annotated[str, BeforeValidator(_text)]


class Resolutions(Block):
    """Pixel size, box scaling and the binnings of the levels."""

    angpix: float = Field(1.54, description="unbinned pixel size, Angstrom")
    box_scaling: float = Field(2.0, description="smallest box, times particle_diameter")
    binning_list: Binnings = Field([4, 2, 1], description="binning of each level, descending")


class InitialModel(Block):
    """De novo model: ``relion_refine --grad --denovo_3dref``. Sampling and offsets (pixels) are fields of our own.

    With `do_run_C1` the symmetry is not imposed while the model is sought, only afterwards: slower, and it does not
    end in the average of both hands.
    """

    in_tomograms: str = Field("", description=KEPT)
    in_particles: str = Field("", description=KEPT)
    use_direct_entries: YesNo = Field(True, description=KEPT)
    nr_iter: int = Field(70, description="iterations, --iter")
    nr_classes: int = Field(1, description="models; the largest class goes on")
    tau_fudge: float = Field(4, description="--tau2_fudge")
    particle_diameter: float = Field(290, description="that of refine3D counts")
    sym_name: str = Field("C1", description="that of refine3D counts")
    do_run_C1: YesNo = Field(True, description="search without symmetry, impose it at the end")
    sampling: str = Field("15 degrees", description="angular sampling of the search, one of RELION's steps")
    offset_range: float = Field(6, description="search range of offsets, pixels")
    offset_step: float = Field(2, description="step of offsets, pixels")
    do_blush: YesNo = Field(False, description="Blush regularisation, --blush; needs RELION's relion_python_blush")
    nr_pool: int = Field(16, description="particles per pool, --pool")
    use_gpu: YesNo = Field(True, description="whether this step uses the GPUs that are given")
    gpu_ids: str = Field("", description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    other_args: Words = Field("", description="added to the program's command line")


class Reconstruct(Block):
    """``relion_tomo_reconstruct_particle``."""

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description="particle STAR file")
    do_use_direct_entries: YesNo = Field(True, description=KEPT)
    crop_size: int = Field(-1, description=KEPT)
    point_group: str = Field("C1", description="that of refine3D counts")
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    other_args: Words = Field("", description="added to the program's command line")


class PseudoSubtomo(Block):
    """``relion_tomo_subtomo``."""

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description="particle STAR file")
    do_use_direct_entries: YesNo = Field(True, description=KEPT)
    crop_size: int = Field(-1, description=KEPT)
    do_float16: YesNo = Field(True, description="images with 2 bytes per pixel, --float16")
    do_output_2dstacks: YesNo = Field(True, description="2D stacks instead of volumes, --stack2d")
    do_real_subtomo: YesNo = Field(
        False,
        description="at the first level, subtomograms in real space, cut out of tomograms that RELION makes, "
        "--real_subtomo; needs RELION 5.1",
    )
    max_dose: float = Field(-1, description="tilts with more dose are left out, e/A^2; -1: none")
    do_from2d: YesNo = Field(True, description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    nr_mpi: int = Field(3, description=KEPT)
    mpi_command: str = Field("", description=KEPT)
    other_args: Words = Field("", description="added to the program's command line")


class Alignment(Block):
    """What refinement and classification share.

    `ini_high` is the first reference's low-pass. Where it is not given, it is a third of the particle's diameter, at
    most 60 A, and of a template that is nearly a ball to this, the coarsest with which it is none any more.
    """

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description=KEPT)
    use_direct_entries: YesNo = Field(True, description=KEPT)
    ref_correct_greyscale: YesNo = Field(
        True,
        description="the first reference has relion_refine's grey scale; no: --firstiter_cc. Averages never have it: "
        "a refinement that begins with one always has that flag",
    )
    ini_high: float | None = Field(
        None, description="low-pass of the first reference, Angstrom; not given: by the particle's size and shape"
    )
    sym_name: str = Field("C1", description="point group")
    do_ctf_correction: YesNo = Field(True, description="--ctf")
    ctf_intact_first_peak: YesNo = Field(False, description="--ctf_intact_first_peak")
    particle_diameter: float = Field(290, description="of the spherical mask, Angstrom")
    do_zero_mask: YesNo = Field(True, description="--zero_mask")
    do_solvent_fsc: YesNo = Field(False, description=KEPT)
    sampling: str = Field("7.5 degrees", description="angular sampling of the global search, one of RELION's steps")
    offset_range: float = Field(5, description="search range of offsets, pixels")
    offset_step: float = Field(1, description="step of offsets, pixels")
    auto_local_sampling: str = Field("1.8 degrees", description="sampling from which on searches are local")
    relax_sym: str = Field("", description="symmetry to relax, --relax_sym")
    auto_faster: YesNo = Field(False, description="--auto_ignore_angles --auto_resol_angles")
    do_blush: YesNo = Field(False, description="Blush regularisation, --blush; needs RELION's relion_python_blush")
    nr_pool: int = Field(30, description="particles per pool, --pool")
    use_gpu: YesNo = Field(True, description="whether this step uses the GPUs that are given")
    gpu_ids: str = Field("", description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    do_combine_thru_disc: YesNo = Field(True, description="no: --dont_combine_weights_via_disc")
    other_args: Words = Field("", description="added to the program's command line")


class Refine3D(Alignment):
    """``relion_refine --auto_refine``."""

    solvent_correct_fsc: YesNo = Field(
        True, description="with a mask, resolution during refinement is that within it, --solvent_correct_fsc"
    )


class Class3D(Alignment):
    """``relion_refine`` with several classes; also the one-class alignment of the template."""

    ini_high: float | None = Field(
        None, description="particles are aligned to a template to 1.5 times this; not given: 2/3 of refine3D.ini_high"
    )
    nr_classes: Numbers = Field(1, description="classes, --K; several, such as 2,4,6, are tried side by side")
    tau_fudge: float = Field(3, description="--tau2_fudge")
    nr_iter: int = Field(15, description="iterations, --iter")
    do_fast_subsets: YesNo = Field(False, description="--fast_subsets")
    highres_limit: float = Field(-1, description="--strict_highres_exp, Angstrom; -1: none")
    dont_skip_align: YesNo = Field(False, description="align particles in the classification")
    do_local_ang_searches: YesNo = Field(True, description="only locally")
    sigma_angles: float = Field(5, description="range of local searches, degrees (three sigma)")
    allow_coarser: YesNo = Field(False, description="--allow_coarser_sampling")
    use_gpu: YesNo = Field(False, description="whether this step uses the GPUs that are given")
    sigma_tilt: float = Field(0, description="--sigma_tilt, degrees; 0: that of priors")


class SelectBlock(Block):
    """Kept: the reference system never reads it."""

    do_select_values: YesNo = Field(True, description=KEPT)
    select_label: str = Field("rlnClassNumber", description=KEPT)


class MaskCreate(Block):
    """``relion_mask_create``. Without `ini_threshold` the density gives the threshold. `lowpass_filter` is kept."""

    lowpass_filter: float = Field(20, description=KEPT)
    extend_inimask: int = Field(3, description="pixels by which the mask is extended")
    width_mask_edge: int = Field(5, description="soft edge to begin with, pixels; widened until the mask is proven")
    ini_threshold: float | None = Field(
        None, description="threshold of the density; not given: from the density itself"
    )
    other_args: Words = Field("", description="added to the program's command line")


class Classification(Block):
    """Whether, where and how particles are chosen by 3D classification; the classification itself is `class3D`.

    `binning` names the level whose refinement is followed by it, the first when it is not given. `selection` is
    ``auto`` (see ``judging.selection``) or ``manual``: the run then ends with the table until `keep_classes`
    says which classes go on, and `best_class` which of them the next reference is made from. `agreement` is the
    resolution, Angstrom, to which a class must agree with the best one; not given, it follows from the best class.
    `low_pass` is that of the refined map, which all classes begin with. A fine one holds each class where RELION's
    random draw put it (docs/classification.md); not given, it is a third of the particle's diameter, at most 60 A.
    """

    run: YesNo = Field(False, description="whether particles are classified")
    binning: int | None = Field(None, description="after which level's refinement; not given: the first")
    low_pass: float | None = Field(
        None,
        gt=0,
        description="of the map that classes begin with, Angstrom; not given: a third of the diameter, at most 60",
    )
    selection: Literal["auto", "manual"] = Field("auto", description="by the rule, or by you")
    of_classes: int | None = Field(
        None, description="with manual and several numbers of classes: the one that classes are named of"
    )
    keep_classes: Classes = Field([], description="with manual: the classes that go on")
    best_class: int | None = Field(None, description="the class of the next reference; not given: the first of them")
    agreement: float | None = Field(
        None,
        gt=0,
        description="Angstrom to which classes must agree with the best one; not given: from the best class",
    )
    min_share: float = Field(0.05, ge=0, lt=1, description="smallest share of the particles that a class may have")
    min_per_half: int = Field(25, ge=2, description="fewest particles of a half set that may remain")


class Slabs(Block):
    """Whether picks are chosen by 2D classification before anything else, and how: slabs of tomograms, and Class2D.

    Slabs are cut around the picks and summed along z; ``relion_refine`` classifies them, and the picks of the classes
    that are kept go on as they were. `selection` is ``auto`` (see ``judging.slab_classes``) or ``manual``: the run then
    ends with the table until `keep_classes` says which classes go on. Names of the classification's fields are those of
    ``py2rely slab class2d``.
    """

    run: YesNo = Field(False, description="whether picks are chosen by 2D classification")
    tomograms: str = Field(
        "",
        description="those that are there: a directory, or a label of the tilt-series table such as "
        "rlnTomoReconstructedTomogram; not given: RELION makes them, one at a time",
    )
    tomo_alg: Name = Field("", description="those of the copick project (--copick), of this type, such as denoised")
    voxel_spacing: float | None = Field(None, gt=0, description="of the copick project's tomograms, Angstrom")
    binning: float | None = Field(
        None, ge=1, description="of tomograms that are made; not given: a pixel is about a 20th of the diameter"
    )
    box: float | None = Field(None, gt=0, description="edge of the images, Angstrom; not given: twice the diameter")
    thickness: float | None = Field(
        None, gt=0, description="of the slabs along z, Angstrom; not given: 1.2 times the diameter"
    )
    invert: YesNo = Field(True, description="particles are dark in the tomograms")
    tomogram_args: Words = Field("", description="added to relion_tomo_reconstruct_tomogram, such as --ctf")
    class_algorithm: Literal["2DEM", "VDAM"] = Field("2DEM", description="VDAM: gradient-driven, --grad")
    nr_classes: int | None = Field(
        None, ge=2, description="--K; not given: one per 50 picks, from 8 to 100, but no fewer than 10 picks each"
    )
    nr_iter: int | None = Field(None, ge=1, description="--iter; not given: 25, with VDAM 200")
    second_classes: int = Field(0, ge=0, description="a second round on what was kept, with so many classes; 0: none")
    tau_fudge: float = Field(2, gt=0, description="--tau2_fudge")
    particle_diameter: float | None = Field(
        None, gt=0, description="of the circular mask, Angstrom; not given: 1.2 times that of refine3D"
    )
    do_ctf_correction: YesNo = Field(False, description="--ctf, with the defocus at the least tilt")
    ctf_intact_first_peak: YesNo = Field(False, description="--ctf_intact_first_peak")
    highres_limit: float = Field(-1, description="--strict_highres_exp, Angstrom; -1: none")
    dont_skip_align: YesNo = Field(True, description="align the images; no: --skip_align")
    psi_sampling: float = Field(6, gt=0, description="degrees, as in RELION's form: --psi_step is twice that")
    offset_range: float = Field(5, gt=0, description="search range of offsets, pixels")
    offset_step: float = Field(1, gt=0, description="pixels, as in RELION's form: --offset_step is twice that")
    center_class: YesNo = Field(True, description="--center_classes")
    nr_pool: int = Field(30, ge=1, description="particles per pool, --pool")
    use_gpu: YesNo = Field(True, description="whether this step uses the GPUs that are given")
    nr_threads: int = Field(16, ge=1, description="most threads")
    other_args: Words = Field("", description="added to the classification's command line")
    selection: Literal["auto", "manual"] = Field("auto", description="by the rule, or by you")
    keep_classes: Classes = Field([], description="with manual: the classes that go on")
    keep_not_judged: YesNo = Field(True, description="picks too near the border of their tomogram go on, too")
    min_share: float = Field(0.1, ge=0, lt=1, description="share of the judged picks that the rule must leave")
    min_particles: int = Field(50, ge=4, description="picks that the rule must leave")


class Polishing(Block):
    """Cycles of CTF refinement, Bayesian polishing and refinement at bin 1.

    At most `cycles`; they end after `patience` cycles in a row that brought nothing. `refine` says whether each cycle
    ends in a Refine3D.
    """

    cycles: int = Field(5, ge=0, le=10, description="most cycles; 0: none")
    patience: int = Field(2, ge=1, description="cycles in a row without improvement, after which they end")
    refine: YesNo = Field(True, description="whether each cycle ends with a refinement")


class CtfRefine(Block):
    """``relion_tomo_refine_ctf``. `focus_range` is searched to both sides, Angstrom."""

    in_tomograms: str = Field("", description=KEPT)
    use_direct_entries: YesNo = Field(True, description=KEPT)
    do_defocus: YesNo = Field(True, description="--do_defocus")
    focus_range: float = Field(3000, description="searched to both sides, Angstrom, --d0 --d1")
    do_reg_def: YesNo = Field(True, description="--do_reg_defocus")
    lambda_: float = Field(0.1, alias="lambda", description="strength of that regularisation, --lambda")
    do_scale: YesNo = Field(True, description="--do_scale")
    do_frame_scale: YesNo = Field(True, description="--per_frame_scale")
    do_tomo_scale: YesNo = Field(False, description="--per_tomogram_scale")
    do_even_aber: YesNo = Field(False, description="--do_even_aberrations")
    nr_even_aber: int = Field(4, description="--ne")
    do_odd_aber: YesNo = Field(False, description="--do_odd_aberrations")
    nr_odd_aber: int = Field(3, description="--no")
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    other_args: Words = Field("", description="added to the program's command line")


class BayesianPolish(Block):
    """``relion_tomo_align``. `max_error` is in pixels; with `do_shift_align` images are only shifted as a whole."""

    in_tomograms: str = Field("", description=KEPT)
    use_direct_entries: YesNo = Field(True, description=KEPT)
    max_error: float = Field(5, description="largest shift of an image, pixels, --r")
    do_motion: YesNo = Field(True, description="--motion")
    sigma_vel: float = Field(0.2, description="--s_vel")
    sigma_div: float = Field(5000, description="--s_div")
    do_sq_exp_ker: YesNo = Field(False, description="--sq_exp_ker")
    do_shift_align: YesNo = Field(False, description="shift images as a whole, --shift_only; then no motion")
    shift_align_type: Literal["Entire micrographs", "Only particles"] = Field(
        "Entire micrographs", description="Only particles: --shift_only_by_particles"
    )
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    other_args: Words = Field("", description="added to the program's command line")


class InitialReference(Block):
    """How the first reference is used.

    `template_iterations` of one-class Class3D align the particles to a template (0: straight into Refine3D), each half
    set to a reference of its own where `independent_halves` says so;
    `known_search` says whether known orientations are kept (local, with `known_sigma_ang` degrees) or searched anew.
    """

    template_iterations: int = Field(10, ge=0, description="iterations of the global alignment to a template; 0: none")
    independent_halves: YesNo = Field(
        True, description="half sets are aligned to the template apart; no: all particles together"
    )
    known_search: str = Field(
        "local",
        pattern="^(local|global)$",
        description="known orientations are kept (local), or searched anew (global)",
    )
    known_sigma_ang: float = Field(5.0, gt=0, description="width of that local search, degrees")


class Priors(Block):
    """Priors on tilt and in-plane angle, from ``rlnAngleTiltPrior`` and ``rlnAnglePsiPrior`` of the picks.

    For particles whose axis is known (in a membrane, along a filament) and whose rotation around it is not. They hold
    in every search that is not around known orientations; a `sigma_tilt` of ``class3D`` comes before the one here.
    """

    sigma_tilt: float = Field(0, ge=0, description="width of the prior on tilt, degrees, --sigma_tilt; 0: none")
    sigma_psi: float = Field(0, ge=0, description="width of the prior on psi, degrees, --sigma_psi; 0: none")
    keep_fixed: YesNo = Field(
        False, description="local searches stay around the priors, not the refined angles, --keep_priors_fixed"
    )


class Helix(Block):
    """Filaments: the mask is a tube along z, and helical symmetry, where it is given, is imposed on each reference.

    The symmetry is not searched. Half sets are split by filament where the picks name it (``rlnHelicalTubeID``).
    """

    inner_diameter: float = Field(-1, description="of the tube, Angstrom, --helical_inner_diameter; -1: none")
    outer_diameter: float = Field(-1, description="of the tube, Angstrom, --helical_outer_diameter; it must be given")
    nr_asu: int = Field(1, ge=1, description="asymmetric units that are new per box, --helical_nr_asu")
    twist: float = Field(0, description="degrees per unit, right-handed, --helical_twist_initial")
    rise: float = Field(0, ge=0, description="Angstrom per unit, --helical_rise_initial; 0: no helical symmetry")
    z_percentage: float = Field(
        0.3, gt=0, lt=1, description="share of the box along z that holds good density, --helical_z_percentage"
    )
    keep_tilt_prior_fixed: YesNo = Field(
        True, description="global searches keep the priors on tilt, --helical_keep_tilt_prior_fixed"
    )


class DoseWeighting(Block):
    """How the signal of images fades with their dose, in every step from extraction to polishing."""

    bfactor_per_dose: float = Field(
        0,
        ge=0,
        description="with this B-factor, A^2 per e/A^2 (rlnCtfBfactorPerElectronDose); "
        "0: what the tilt series say, or else RELION's curve of critical doses",
    )


class Duplicates(Block):
    """Particles closer than this fraction of the diameter are one particle; 0 keeps all."""

    distance_fraction: float = Field(
        0.3, ge=0, lt=1, description="particles closer than this share of the diameter are one; 0: keep all"
    )


class PostProcess(Block):
    """``relion_postprocess``, of every level's map and of the sharpened one at the end.

    Levels' maps are not sharpened unless it is asked for; whether the best map is, says `map_analysis.sharpening`.
    """

    do_auto_bfac: YesNo = Field(False, description="--auto_bfac for every level's map")
    autob_lowres: float = Field(
        10, description="--autob_lowres, Angstrom; maps that are not better have no B-factor of their own"
    )
    adhoc_bfac: float = Field(0, description="--adhoc_bfac, square Angstrom, negative; 0: none is given")
    fn_mtf: str = Field("", description="--mtf: the detector's MTF, a STAR file")
    mtf_angpix: float | None = Field(None, gt=0, description="--mtf_angpix, Angstrom; not given: resolutions.angpix")
    other_args: Words = Field("", description="added to the program's command line")


class MapAnalysis(Block):
    """What is found out about the best map at the end of a run; each step may be left out."""

    sharpening: YesNo = Field(True, description="sharpen it: by postprocess.adhoc_bfac, or by its Guinier plot")
    directions: YesNo = Field(True, description="resolution by direction, and how the particles sample directions")
    template: YesNo = Field(True, description="compare it with the template, where one was used")
    local_resolution: YesNo = Field(
        False, description="local resolution, and the map filtered by it: relion_postprocess"
    )
    particle_plot: YesNo = Field(False, description="resolution against the number of particles")
    locres_sampling: float = Field(25, gt=0, description="--locres_sampling, Angstrom between the points of it")


class Orientations(Block):
    """The test of orientations at the end of each level: each half of a particle's tilts is searched alone."""

    test: YesNo = Field(True, description="say of each level's map whether its orientations follow from the images")
    particles: int = Field(200, ge=20, description="most particles that are looked at, drawn at random")
    search_anew: YesNo = Field(
        True,
        description="after a level whose orientations are not consistent, where finer pixels may tell more, the next "
        "one searches all orientations, with refine3D's samplings",
    )


class Imports(Block):
    """How other programs' data are imported, where a run begins with them, and what is written back to copick.

    The fields are the options of ``py2rely import`` and ``py2rely export star2copick``. Voltage and hand of AreTomo's
    and IMOD's tilt series have no default; of a file that says them, they replace its own.
    """

    voltage: float | None = Field(None, description="kV; AreTomo and IMOD do not say it")
    hand: Annotated[float | None, AfterValidator(_hand)] = Field(
        None, description="rlnTomoHand, 1 or -1; AreTomo and IMOD do not say it"
    )
    spherical_aberration: float = Field(2.7, description="mm")
    amplitude_contrast: float = Field(0.07, description="share, 0 to 1")
    pixel_size: float | None = Field(
        None, gt=0, description="of the images, Angstrom; not given: their headers', with which it must agree"
    )
    thickness: int | None = Field(
        None, gt=0, description="of the tomograms, unbinned voxels; not given: that of a volume beside the alignment"
    )
    dose_per_tilt: float | None = Field(None, gt=0, description="of an image, e/A^2; where no file has the dose")
    total_dose: float | None = Field(None, gt=0, description="of a tilt series, e/A^2; where no file has the dose")
    prefix: Name = Field("", description="put before the names of AreTomo's and IMOD's tilt series")
    ignore_placement: YesNo = Field(False, description="leave out SHIFT, XAXISTILT, WIDTH, SLICE of IMOD's tilt.com")
    project: str = Field("", description="where the paths in a file of Warp hold; not given: its directory")
    units: str = Field(
        "auto", description="of coordinates: auto, centred (Angstrom), angstrom or pixel (from a corner)"
    )
    voxel_size: float | None = Field(
        None,
        gt=0,
        description="of the pixels of coordinates, Angstrom; of a copick project: only runs with this voxel spacing",
    )
    doc: str = Field("", description="names of the tomograms of a Dynamo table (.doc), where it does not lie beside it")
    tomogram: Name = Field("", description="of a particle file that does not name it")
    user_id: Name = Field("", description="of the copick picks; not given: the only one")
    session_id: Name = Field("", description="of the copick picks; not given: the only one")
    run_ids: Name = Field("", description="copick runs, separated by commas; not given: all")
    authors: Name = Field("", description="of picks of the data portal, separated by commas; not given: all")
    run_prefix: Name = Field("", description="put before the names of copick runs: then they are tilt-series names")
    run_remove: Name = Field("", description="text in names of copick runs that tilt-series names do not have")
    skip_unknown: YesNo = Field(False, description="leave out particles without a tilt series")
    drop_duplicates: YesNo = Field(False, description="keep the first of particles at one place")
    export_user_id: Name = Field("relion", description="user of the picks that are written")
    export_session_id: Name = Field("99", description="session of the picks that are written")
    export_existing: Literal["error", "overwrite", "new-session"] = Field(
        "new-session",
        description="where there are such picks already: new-session (the next number), overwrite or error",
    )
    export_session: Name = Field(
        "", description="tomograms are {session}_{run}; not given: run_prefix without its underscore"
    )
    export_suffix: str = Field("_Vol", description="runs' names may end with it, tomograms' not")
    export_skip_missing: YesNo = Field(False, description="leave out tomograms without a run")


#: Blocks of which a level may override fields.
LEVEL_BLOCKS = ("refine3D", "mask_create", "pseudo_subtomo", "reconstruct")


class Recipe(Block):
    """The whole parameter file."""

    resolutions: Resolutions = Resolutions()
    reconstruct: Reconstruct = Reconstruct()
    initial_model: InitialModel | None = None
    pseudo_subtomo: PseudoSubtomo = PseudoSubtomo()
    refine3D: Refine3D = Refine3D()
    class3D: Class3D = Class3D()
    select: SelectBlock = SelectBlock()
    mask_create: MaskCreate = MaskCreate()
    ctf_refine: CtfRefine | None = None
    bayesian_polish: BayesianPolish | None = None
    initial_reference: InitialReference = InitialReference()
    dose_weighting: DoseWeighting = DoseWeighting()
    priors: Priors = Priors()
    helix: Helix | None = None
    duplicates: Duplicates = Duplicates()
    classification: Classification = Classification()
    slabs: Slabs = Slabs()
    polishing: Polishing = Polishing()
    postprocess: PostProcess = PostProcess()
    orientations: Orientations = Orientations()
    map_analysis: MapAnalysis = MapAnalysis()
    imports: Imports = Imports()
    levels: dict[str, dict[str, dict[str, Any]]] = {}

    @property
    def class_numbers(self) -> list[int]:
        """The numbers of classes of the classification, ascending."""
        numbers = self.class3D.nr_classes
        return sorted(numbers) if isinstance(numbers, list) else [numbers]

    @property
    def first_nyquist(self) -> float:
        """The finest resolution that the first level holds, Angstrom."""
        return 2 * self.resolutions.angpix * self.resolutions.binning_list[0]

    @property
    def symmetry(self) -> str:
        """The particle's point group, upper case."""
        return parse_point_group(self.refine3D.sym_name)

    def block_at(self, binning: int, name: str) -> Any:
        """A block with the level's overrides applied.

        Parameters
        ----------
        binning : int
            The level's binning.
        name : str
            One of :data:`LEVEL_BLOCKS`.
        """
        block = getattr(self, name)
        overrides = self.levels.get(str(binning), {}).get(name, {})
        return type(block).model_validate(block.model_dump(by_alias=True) | overrides)

    def image_kind(self, binning: int) -> str:
        """What particles are extracted as at a level: one of :data:`IMAGE_KINDS`."""
        block = self.block_at(binning, "pseudo_subtomo")
        if block.do_real_subtomo and binning == self.resolutions.binning_list[0]:
            return "subtomograms"
        return "stacks" if block.do_output_2dstacks else "pseudo-subtomograms"


#: A particle's image at each tilt; a volume made from these; one cut out of a tomogram.
IMAGE_KINDS = ("stacks", "pseudo-subtomograms", "subtomograms")
KNOWN_BLOCKS = tuple(Recipe.model_fields)


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The block that a field holds, or may hold; None for a field that holds a value."""
    options = getattr(field.annotation, "__args__", (field.annotation,))
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)
