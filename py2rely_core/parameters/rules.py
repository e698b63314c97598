"""Values of the recipe that cannot work, whatever their types."""

from __future__ import annotations

import itertools
from math import sqrt
from typing import Any

from pydantic import ValidationError

from py2rely_core.data.symmetry import parse_point_group
from py2rely_core.parameters.boxes import crop_and_box
from py2rely_core.parameters.recipe import LEVEL_BLOCKS, MAX_LEVELS, Recipe
from py2rely_core.parameters.sampling import sampling_order
from py2rely_core.problems import Problem, ProblemError, nearest

#: RELION refuses ``--fast_subsets`` with fewer.
FAST_SUBSETS_ITERATIONS = 20


def recipe_problems(recipe: Recipe) -> list[Problem]:
    """Values that cannot work, all of them.

    Parameters
    ----------
    recipe : Recipe
        Fields of the right types.
    """
    problems = [
        *_number_problems(recipe),
        *_binning_problems(recipe),
        *_label_problems(recipe),
        *_helix_problems(recipe),
    ]
    if problems:
        return problems
    return [
        *_level_problems(recipe),
        *_box_problems(recipe),
        *_classification_problems(recipe),
        *_slab_problems(recipe),
    ]


def _slab_problems(recipe: Recipe) -> list[Problem]:
    slabs, problems = recipe.slabs, []
    if not slabs.run:
        if slabs.keep_classes or slabs.selection == "manual":
            what, fix = "Classes of slabs are to be chosen, and there are none.", "Add --run_class2D, or leave it out."
            problems.append(Problem(what, "slabs", "slabs.run: yes", fix))
        return problems
    if slabs.tomo_alg and slabs.tomograms:
        what, fix = "Slabs are to be cut from copick's tomograms, and from others.", "Leave out one of the two."
        problems.append(Problem(what, "slabs.tomo_alg, slabs.tomograms", "one of them", fix))
    if bool(slabs.tomo_alg) != (slabs.voxel_spacing is not None):
        what = "Of copick's tomograms only one of type and voxel size is given."
        fix = "Give both, such as denoised and 10, or none: tomograms are then made."
        problems.append(Problem(what, "slabs.tomo_alg, slabs.voxel_spacing", "both", fix))
    if slabs.keep_classes and slabs.selection != "manual":
        what, fix = "Classes of slabs are named, and the rule chooses.", "Add --class2D_selection manual."
        problems.append(Problem(what, "slabs.keep_classes", "slabs.selection: manual", fix))
    if slabs.selection == "manual" and slabs.second_classes:
        what = "A second round of 2D classification is asked for, and classes are chosen by hand."
        fix = "Leave out slabs.second_classes; 'py2rely slab' does any number of rounds by hand."
        problems.append(Problem(what, "slabs.second_classes", "0 with slabs.selection: manual", fix))
    if slabs.second_classes == 1:
        problems.append(
            Problem(
                "One class is no classification.", "slabs.second_classes", "0, or 2 and more", "Correct the number."
            )
        )
    if slabs.box is not None and slabs.box < recipe.refine3D.particle_diameter:
        what = f"Images of {slabs.box:g} A do not hold a particle of {recipe.refine3D.particle_diameter:g} A."
        problems.append(Problem(what, "slabs.box", "about twice the diameter", "Give Angstrom, not pixels."))
    return problems


def _number_problems(recipe: Recipe) -> list[Problem]:
    positive = {
        "resolutions.angpix": recipe.resolutions.angpix,
        "resolutions.box_scaling": recipe.resolutions.box_scaling,
        "refine3D.particle_diameter": recipe.refine3D.particle_diameter,
        "refine3D.ini_high": recipe.refine3D.ini_high,
        "class3D.ini_high": recipe.class3D.ini_high,
        "class3D.nr_classes": min(recipe.class_numbers, default=0),
    }
    positive = {name: value for name, value in positive.items() if value is not None}
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


def _helix_problems(recipe: Recipe) -> list[Problem]:
    helix, problems = recipe.helix, []
    if helix is None:
        return []
    if not 0 < helix.outer_diameter <= recipe.refine3D.particle_diameter:
        what = f"The tube's outer diameter is {helix.outer_diameter:g} A."
        expected = f"more than 0, at most refine3D.particle_diameter ({recipe.refine3D.particle_diameter:g} A)"
        problems.append(Problem(what, "helix.outer_diameter", expected, "Give the diameter of the filament, Angstrom."))
    if helix.inner_diameter >= helix.outer_diameter > 0:
        what = f"The tube's inner diameter, {helix.inner_diameter:g} A, is not smaller than the outer one."
        problems.append(Problem(what, "helix.inner_diameter", f"< {helix.outer_diameter:g}", "Correct it, or give -1."))
    if helix.nr_asu > 1 and not helix.rise:
        what = f"{helix.nr_asu} units per box are new, but the symmetry that gives them is not known."
        problems.append(Problem(what, "helix.rise", "> 0", "Give twist and rise, or set nr_asu to 1."))
    return problems or _helix_length_problems(recipe)


def _helix_length_problems(recipe: Recipe) -> list[Problem]:
    """RELION imposes helical symmetry within the spherical mask: there, the tube is a chord of the sphere long."""
    helix, diameter, resolutions = recipe.helix, recipe.refine3D.particle_diameter, recipe.resolutions
    chord = sqrt(diameter**2 - helix.outer_diameter**2)
    for binning in resolutions.binning_list if helix.rise else []:
        size = crop_and_box(diameter, resolutions.angpix, binning, resolutions.box_scaling).size
        limit = chord / (size * resolutions.angpix * binning)
        if helix.z_percentage >= limit:
            what = f"At bin {binning}, less than {helix.z_percentage:g} of the box along z is within the mask."
            fix = "Set helix.z_percentage, or use a larger refine3D.particle_diameter or a smaller box_scaling."
            return [Problem(what, "helix.z_percentage", f"less than {limit:.2f}", fix)]
    return []


def _level_problems(recipe: Recipe) -> list[Problem]:
    problems = []
    binnings = [str(binning) for binning in recipe.resolutions.binning_list]
    for binning, blocks in recipe.levels.items():
        where = f"levels.{binning}"
        if binning not in binnings:
            problems.append(Problem(f"There is no level at bin {binning}.", where, ", ".join(binnings), "Correct it."))
        if "do_real_subtomo" in blocks.get("pseudo_subtomo", {}) and binning != binnings[0]:
            what, fix = "Subtomograms in real space are for the first level.", "Leave it out."
            problems.append(Problem(what, f"{where}.pseudo_subtomo.do_real_subtomo", f"bin {binnings[0]}", fix))
        for name, overrides in blocks.items():
            problems += _override_problems(recipe, f"{where}.{name}", binning, name, overrides)
    if not problems and binnings[0] == "1" and recipe.image_kind(1) == "subtomograms":
        what, fix = "Subtomograms in real space are asked for at bin 1.", "Begin at a coarser level, or leave it out."
        problems.append(Problem(what, "pseudo_subtomo.do_real_subtomo", "a first level of bin 2 or more", fix))
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
    problems, numbers, binnings = [], recipe.class_numbers, recipe.resolutions.binning_list
    classes, several = block.of_classes or numbers[-1], len(numbers) > 1
    if numbers[0] < 2:
        classes = numbers[0]
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
    if len(set(numbers)) < len(numbers):
        what = f"Numbers of classes are named twice: {', '.join(map(str, recipe.class3D.nr_classes))}."
        problems.append(Problem(what, "class3D.nr_classes", "a list such as 2,4,6", "Name each once."))
    if several and chosen and block.of_classes not in numbers:
        what = "Classes are named, but not of which number of classes."
        fix = "Add --classification.of_classes."
        problems.append(Problem(what, f"{where}.of_classes", f"one of {numbers}", fix))
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
    nyquist = recipe.first_nyquist
    if recipe.refine3D.ini_high is not None and recipe.refine3D.ini_high < nyquist:
        what = f"The first low-pass, {recipe.refine3D.ini_high:g} A, is finer than the first level holds."
        fix = "Use a coarser low-pass or a smaller first binning."
        problems.append(Problem(what, "refine3D.ini_high", f"{nyquist:g} A or more", fix))
    return problems
