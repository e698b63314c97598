"""The parameter file: pydantic models with the reference system's block and field names.

Booleans are ``"yes"``/``"no"`` in files and bool in Python. Lengths are Angstrom, angles degrees, boxes and mask
edges pixels at the level's binning. Fields that are :data:`KEPT` are written by the reference system.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.fields import FieldInfo

from py2rely_core.boxes import crop_and_box
from py2rely_core.problems import ExitCode, Problem, ProblemError, nearest
from py2rely_core.sampling import sampling_order
from py2rely_core.symmetry import parse_point_group

#: What is said of a field that does nothing here.
KEPT = "read and written, without effect"
#: RELION refuses ``--fast_subsets`` with fewer.
FAST_SUBSETS_ITERATIONS = 20
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


YesNo = Annotated[bool, BeforeValidator(_yes_no), PlainSerializer(lambda value: "yes" if value else "no")]
Classes = Annotated[list[int], BeforeValidator(_numbers)]
Binnings = Annotated[list[int], BeforeValidator(_numbers), PlainSerializer(str)]


class Block(BaseModel):
    """A block of the recipe; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


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
    nr_pool: int = Field(16, description="particles per pool, --pool")
    use_gpu: YesNo = Field(True, description="whether this step uses the GPUs that are given")
    gpu_ids: str = Field("", description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    other_args: str = Field("", description="added to the program's command line")


class Reconstruct(Block):
    """``relion_tomo_reconstruct_particle``."""

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description="particle STAR file")
    do_use_direct_entries: YesNo = Field(True, description=KEPT)
    crop_size: int = Field(-1, description=KEPT)
    point_group: str = Field("C1", description="that of refine3D counts")
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    other_args: str = Field("", description="added to the program's command line")


class PseudoSubtomo(Block):
    """``relion_tomo_subtomo``. `max_dose` is in e/A^2; -1 keeps all tilts."""

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description="particle STAR file")
    do_use_direct_entries: YesNo = Field(True, description=KEPT)
    crop_size: int = Field(-1, description=KEPT)
    do_float16: YesNo = Field(True, description="images with 2 bytes per pixel, --float16")
    do_output_2dstacks: YesNo = Field(True, description="2D stacks instead of volumes, --stack2d")
    max_dose: float = Field(-1, description="tilts with more dose are left out, e/A^2; -1: none")
    do_from2d: YesNo = Field(True, description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    nr_mpi: int = Field(3, description=KEPT)
    mpi_command: str = Field("", description=KEPT)
    other_args: str = Field("", description="added to the program's command line")


class Refine3D(Block):
    """``relion_refine --auto_refine``. `ini_high` is the first reference's low-pass."""

    in_tomograms: str = Field("", description="tilt-series STAR file")
    in_particles: str = Field("", description=KEPT)
    use_direct_entries: YesNo = Field(True, description=KEPT)
    ref_correct_greyscale: YesNo = Field(
        True, description="the first reference has the right grey scale; no: --firstiter_cc"
    )
    ini_high: float = Field(50, description="low-pass of the first reference, Angstrom")
    sym_name: str = Field("C1", description="point group")
    do_ctf_correction: YesNo = Field(True, description="--ctf")
    ctf_intact_first_peak: YesNo = Field(False, description="--ctf_intact_first_peak")
    particle_diameter: float = Field(290, description="of the spherical mask, Angstrom")
    do_zero_mask: YesNo = Field(True, description="--zero_mask")
    do_solvent_fsc: YesNo = Field(False, description=f"{KEPT}: on as soon as there is a mask")
    sampling: str = Field("7.5 degrees", description="angular sampling of the global search, one of RELION's steps")
    offset_range: float = Field(5, description="search range of offsets, pixels")
    offset_step: float = Field(1, description="step of offsets, pixels")
    auto_local_sampling: str = Field("1.8 degrees", description="sampling from which on searches are local")
    relax_sym: str = Field("", description="symmetry to relax, --relax_sym")
    auto_faster: YesNo = Field(False, description="--auto_ignore_angles --auto_resol_angles")
    nr_pool: int = Field(30, description="particles per pool, --pool")
    use_gpu: YesNo = Field(True, description="whether this step uses the GPUs that are given")
    gpu_ids: str = Field("", description=KEPT)
    nr_threads: int = Field(8, description="most threads per rank")
    mpi_command: str = Field("", description=KEPT)
    do_combine_thru_disc: YesNo = Field(True, description="no: --dont_combine_weights_via_disc")
    other_args: str = Field("", description="added to the program's command line")


class Class3D(Refine3D):
    """``relion_refine`` with several classes; also the one-class alignment of the template."""

    ini_high: float = Field(25, description="low-pass of the reference, Angstrom")
    nr_classes: int = Field(1, description="classes, --K")
    tau_fudge: float = Field(3, description="--tau2_fudge")
    nr_iter: int = Field(15, description="iterations, --iter")
    do_fast_subsets: YesNo = Field(False, description="--fast_subsets")
    highres_limit: float = Field(-1, description="--strict_highres_exp, Angstrom; -1: none")
    dont_skip_align: YesNo = Field(False, description="align particles in the classification")
    do_local_ang_searches: YesNo = Field(True, description="only locally")
    sigma_angles: float = Field(5, description="range of local searches, degrees (three sigma)")
    allow_coarser: YesNo = Field(False, description="--allow_coarser_sampling")
    use_gpu: YesNo = Field(False, description="whether this step uses the GPUs that are given")
    sigma_tilt: float = Field(0, description="--sigma_tilt, degrees; 0: none")


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
    other_args: str = Field("", description="added to the program's command line")


class Classification(Block):
    """Whether, where and how particles are chosen by 3D classification; the classification itself is `class3D`.

    `binning` names the level whose refinement is followed by it, the first when it is not given. `selection` is
    ``auto`` (see :mod:`py2rely_core.selection`) or ``manual``: the run then ends with the table until `keep_classes`
    says which classes go on, and `best_class` which of them the next reference is made from. `agreement` is the
    resolution, Angstrom, to which a class must agree with the best one; not given, it follows from the best class.
    """

    run: YesNo = Field(False, description="whether particles are classified")
    binning: int | None = Field(None, description="after which level's refinement; not given: the first")
    selection: Literal["auto", "manual"] = Field("auto", description="by the rule, or by you")
    keep_classes: Classes = Field([], description="with manual: the classes that go on")
    best_class: int | None = Field(None, description="the class of the next reference; not given: the first of them")
    agreement: float | None = Field(
        None,
        gt=0,
        description="Angstrom to which classes must agree with the best one; not given: from the best class",
    )
    min_share: float = Field(0.05, ge=0, lt=1, description="smallest share of the particles that a class may have")
    min_per_half: int = Field(25, ge=2, description="fewest particles of a half set that may remain")


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
    other_args: str = Field("", description="added to the program's command line")


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
    other_args: str = Field("", description="added to the program's command line")


class InitialReference(Block):
    """How the first reference is used.

    `template_iterations` of one-class Class3D align the particles to a template (0: straight into Refine3D);
    `known_search` says whether known orientations are kept (local, with `known_sigma_ang` degrees) or searched anew.
    """

    template_iterations: int = Field(10, ge=0, description="iterations of the global alignment to a template; 0: none")
    known_search: str = Field(
        "local",
        pattern="^(local|global)$",
        description="known orientations are kept (local), or searched anew (global)",
    )
    known_sigma_ang: float = Field(5.0, gt=0, description="width of that local search, degrees")


class Duplicates(Block):
    """Particles closer than this fraction of the diameter are one particle; 0 keeps all."""

    distance_fraction: float = Field(
        0.3, ge=0, lt=1, description="particles closer than this share of the diameter are one; 0: keep all"
    )


class PostProcess(Block):
    """``relion_postprocess``; not sharpened unless it is asked for."""

    do_auto_bfac: YesNo = Field(False, description="--auto_bfac")
    autob_lowres: float = Field(10, description="--autob_lowres, Angstrom")
    adhoc_bfac: float = Field(0, description="--adhoc_bfac; 0: none")
    fn_mtf: str = Field("", description="--mtf")
    other_args: str = Field("", description="added to the program's command line")


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
    duplicates: Duplicates = Duplicates()
    classification: Classification = Classification()
    polishing: Polishing = Polishing()
    postprocess: PostProcess = PostProcess()
    levels: dict[str, dict[str, dict[str, Any]]] = {}

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


KNOWN_BLOCKS = tuple(Recipe.model_fields)


def load_recipe(path: Path) -> Recipe:
    """Read and check a parameter file.

    Raises
    ------
    ProblemError
        With every problem that was found.
    """
    try:
        data = json.loads(Path(path).read_text())
    except FileNotFoundError:
        problem = Problem(
            "The parameter file is missing.", str(path), "", "Write it: py2rely prepare relion5-parameters"
        )
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from None
    except ValueError as error:
        problem = Problem(f"The parameter file is not JSON: {error}.", str(path), "a JSON document", "Correct it.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS) from error
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], where: str) -> Recipe:
    """Check parameters that were read from `where`.

    Raises
    ------
    ProblemError
        With every problem that was found.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = [_translate(item, where) for item in error.errors()]
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS) from error
    problems = [_at(problem, where) for problem in recipe_problems(recipe)]
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)
    return recipe


def _at(problem: Problem, where: str) -> Problem:
    return Problem(problem.what, f"{where}: {problem.where}", problem.expected, problem.fix, problem.severity)


def _translate(item: Any, where: str) -> Problem:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _fields_at(item["loc"][:-1])
        hint = nearest(str(item["loc"][-1]), known)
        return Problem(f"Unknown parameter '{path}'.", where, "", hint or f"Known here: {', '.join(known)}.")
    return Problem(f"{path} = {item['input']!r}: {item['msg']}.", where, "", "Correct the value.")


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in location:
        model = model_of(model.model_fields[part])
    return [field.alias or name for name, field in model.model_fields.items()]


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The block that a field holds, or may hold; None for a field that holds a value."""
    options = getattr(field.annotation, "__args__", (field.annotation,))
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def recipe_problems(recipe: Recipe) -> list[Problem]:
    """Values that cannot work, all of them.

    Parameters
    ----------
    recipe : Recipe
        Fields of the right types.
    """
    problems = [*_number_problems(recipe), *_binning_problems(recipe), *_label_problems(recipe)]
    if problems:
        return problems
    return [*_level_problems(recipe), *_box_problems(recipe), *_classification_problems(recipe)]


def _number_problems(recipe: Recipe) -> list[Problem]:
    positive = {
        "resolutions.angpix": recipe.resolutions.angpix,
        "resolutions.box_scaling": recipe.resolutions.box_scaling,
        "refine3D.particle_diameter": recipe.refine3D.particle_diameter,
        "refine3D.ini_high": recipe.refine3D.ini_high,
        "class3D.ini_high": recipe.class3D.ini_high,
        "class3D.nr_classes": recipe.class3D.nr_classes,
    }
    for name in ("reconstruct", "initial_model", "pseudo_subtomo", "refine3D", "class3D"):
        if getattr(recipe, name) is not None:
            positive[f"{name}.nr_threads"] = getattr(recipe, name).nr_threads
    if recipe.ctf_refine is not None:
        positive["ctf_refine.focus_range"] = recipe.ctf_refine.focus_range
    if recipe.bayesian_polish is not None:
        for name in ("max_error", "sigma_vel", "sigma_div"):
            positive[f"bayesian_polish.{name}"] = getattr(recipe.bayesian_polish, name)
    if recipe.initial_model is not None:
        positive["initial_model.nr_classes"] = recipe.initial_model.nr_classes
        positive["initial_model.nr_iter"] = recipe.initial_model.nr_iter
    return [
        Problem(f"{name} = {value:g} is not positive.", name, "> 0", "Correct the value.")
        for name, value in positive.items()
        if not 0 < value < float("inf")
    ]


def _binning_problems(recipe: Recipe) -> list[Problem]:
    binnings = recipe.resolutions.binning_list
    descending = all(coarse > fine for coarse, fine in itertools.pairwise(binnings))
    if not binnings or min(binnings) < 1 or not descending or len(binnings) > MAX_LEVELS:
        what = f"The binning list {binnings} is not a descending list of 1 to {MAX_LEVELS} whole numbers."
        return [Problem(what, "resolutions.binning_list", "for example [4, 2, 1]", "Correct the list.")]
    return []


def _label_problems(recipe: Recipe) -> list[Problem]:
    tests = [(parse_point_group, "refine3D.sym_name", recipe.refine3D.sym_name)]
    tests += [(parse_point_group, "reconstruct.point_group", recipe.reconstruct.point_group)]
    tests += [(sampling_order, "refine3D.sampling", recipe.refine3D.sampling)]
    tests += [(sampling_order, "refine3D.auto_local_sampling", recipe.refine3D.auto_local_sampling)]
    tests += [(sampling_order, "class3D.sampling", recipe.class3D.sampling)]
    if recipe.initial_model is not None:
        tests += [(sampling_order, "initial_model.sampling", recipe.initial_model.sampling)]
    problems = []
    for test, name, value in tests:
        try:
            test(value)
        except ProblemError as error:
            problems += [Problem(p.what, name, p.expected, p.fix) for p in error.problems]
    return problems


def _level_problems(recipe: Recipe) -> list[Problem]:
    problems = []
    binnings = [str(binning) for binning in recipe.resolutions.binning_list]
    for binning, blocks in recipe.levels.items():
        where = f"levels.{binning}"
        if binning not in binnings:
            problems.append(Problem(f"There is no level at bin {binning}.", where, ", ".join(binnings), "Correct it."))
        for name, overrides in blocks.items():
            problems += _override_problems(recipe, f"{where}.{name}", binning, name, overrides)
    return problems


def _override_problems(recipe: Recipe, where: str, binning: str, name: str, overrides: dict[str, Any]) -> list[Problem]:
    if name not in LEVEL_BLOCKS:
        hint = nearest(name, LEVEL_BLOCKS) or f"one of {', '.join(LEVEL_BLOCKS)}"
        return [Problem(f"A level has no block '{name}'.", where, ", ".join(LEVEL_BLOCKS), hint)]
    known = list(type(getattr(recipe, name)).model_fields)
    unknown = [key for key in overrides if key not in known]
    if unknown:
        return [Problem(f"Unknown parameter '{key}'.", where, "", nearest(key, known)) for key in unknown]
    try:
        recipe.block_at(int(binning), name)
    except ValidationError as error:
        return [Problem(f"{item['loc'][-1]}: {item['msg']}.", where, "", "Correct it.") for item in error.errors()]
    return []


def _classification_problems(recipe: Recipe) -> list[Problem]:
    block, where = recipe.classification, "classification"
    if not block.run:
        return []
    problems, classes, binnings = [], recipe.class3D.nr_classes, recipe.resolutions.binning_list
    if classes < 2:
        fix = "Set class3D.nr_classes (prepare relion5-parameters --nclasses), or do not classify."
        problems.append(Problem(f"A classification into {classes} class.", "class3D.nr_classes", "2 or more", fix))
    if recipe.class3D.do_fast_subsets and recipe.class3D.nr_iter < FAST_SUBSETS_ITERATIONS:
        what = f"Fast subsets need {FAST_SUBSETS_ITERATIONS} iterations; class3D.nr_iter is {recipe.class3D.nr_iter}."
        fix = "Set class3D.nr_iter, or class3D.do_fast_subsets to no."
        problems.append(Problem(what, "class3D.nr_iter", f"{FAST_SUBSETS_ITERATIONS} or more", fix))
    if block.binning is not None and block.binning not in binnings:
        what = f"The classification is asked for at bin {block.binning}, which is no level."
        problems.append(Problem(what, f"{where}.binning", f"one of {binnings}", "Correct it."))
    chosen = [*block.keep_classes, *([block.best_class] if block.best_class is not None else [])]
    unknown = sorted({number for number in chosen if not 1 <= number <= classes})
    if unknown:
        what = f"There is no class {', '.join(map(str, unknown))}."
        problems.append(Problem(what, f"{where}.keep_classes", f"1 to {classes}", "Correct the numbers."))
    if chosen and block.selection == "auto":
        what = "Classes are named, but the selection is automatic."
        fix = "Add --class_selection manual, or leave out keep_classes and best_class."
        problems.append(Problem(what, f"{where}.selection", "manual", fix))
    if block.best_class is not None and block.best_class not in block.keep_classes:
        what = f"The best class, {block.best_class}, is not among those that are kept."
        problems.append(Problem(what, f"{where}.best_class", f"one of {block.keep_classes}", "Keep it, too."))
    return problems


def _box_problems(recipe: Recipe) -> list[Problem]:
    problems = []
    resolutions, diameter = recipe.resolutions, recipe.refine3D.particle_diameter
    for binning in resolutions.binning_list:
        try:
            size = crop_and_box(diameter, resolutions.angpix, binning, resolutions.box_scaling).size
        except ProblemError as error:
            problems += error.problems
            continue
        edge = size * resolutions.angpix * binning
        if diameter > edge:
            what = f"The particle diameter, {diameter:g} A, is larger than the box at bin {binning}, {edge:.0f} A."
            problems.append(Problem(what, "resolutions.box_scaling", "1.2 or more", "Use a larger box scaling."))
    nyquist = 2 * resolutions.angpix * resolutions.binning_list[0]
    if recipe.refine3D.ini_high < nyquist:
        what = f"The first low-pass, {recipe.refine3D.ini_high:g} A, is finer than the first level holds."
        fix = "Use a coarser low-pass or a smaller first binning."
        problems.append(Problem(what, "refine3D.ini_high", f"{nyquist:g} A or more", fix))
    return problems


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the parameter file."""
    Path(path).write_text(json.dumps(recipe.model_dump(by_alias=True), indent=4) + "\n")


def new_recipe(
    tilt_series: str,
    particles: str,
    pixel_size: float,
    symmetry: str,
    low_pass: float,
    diameter: float,
    denovo: bool,
    box_scaling: float,
    binnings: str,
    threads: int,
    classes: int = 1,
    initial_models: int = 1,
    max_dose: float = -1,
    processes: int | None = None,
) -> Recipe:
    """A checked recipe from the options of ``prepare relion5-parameters``, with the reference system's other defaults.

    Raises
    ------
    ProblemError
        With every impossible value.
    """
    entries = {"in_tomograms": tilt_series, "nr_threads": threads}
    picks = entries | {"in_particles": particles}
    mpi = {"mpi_command": f"mpirun -n {processes}" if processes else ""}
    particle = {"sym_name": symmetry, "particle_diameter": diameter}
    data: dict[str, Any] = {
        "resolutions": {"angpix": pixel_size, "box_scaling": box_scaling, "binning_list": binnings},
        "reconstruct": picks | mpi | {"point_group": symmetry},
        "initial_model": entries | particle | {"nr_classes": initial_models} if denovo else None,
        "pseudo_subtomo": picks | {"max_dose": max_dose},
        "refine3D": entries | mpi | particle | {"ini_high": low_pass},
        "class3D": entries | mpi | particle | {"ini_high": int(low_pass / 2) or low_pass, "nr_classes": classes},
    }
    if "1" in str(binnings).strip("[] ").replace(" ", "").split(","):
        data |= {"ctf_refine": entries, "bayesian_polish": entries}
    return parse_recipe(data, "command line")
