"""``py2rely task``: the steps of the workflow that are not RELION programs. Called by the modules, not by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)

BoxOption = Annotated[int | None, typer.Option("--box")]
PixelOption = Annotated[float | None, typer.Option("--pixel-size")]
GroupsOption = Annotated[Path, typer.Option("--groups", help="Holds 1/NAME, 2/NAME, ...: their jobs.")]
ParticlesOption = Annotated[Path, typer.Option("--particles")]
OutputOption = Annotated[Path, typer.Option("--output")]
TomogramsOption = Annotated[Path, typer.Option("--tomograms")]
TiltSeriesOption = Annotated[Path, typer.Option("--tilt-series")]
MapsOption = Annotated[Path, typer.Option("--maps")]
MaskOption = Annotated[Path, typer.Option("--mask")]
SettingsOption = Annotated[str, typer.Option("--settings", help="What the plan says of the step, as JSON.")]


@app.callback()
def task() -> None:
    """The workflow's own steps."""


@contextmanager
def problems_listed() -> Iterator[None]:
    """Write all problems to ``problems.txt``, which the workflow prints whole: of an error it shows the end only."""
    from py2rely_core.problems import ProblemError

    try:
        yield
    except ProblemError as error:
        count = len(error.problems)
        text = f"The run was not started: {count} problem{'s were' if count > 1 else ' was'} found."
        Path("problems.txt").write_text(f"{text}\n{error}\n")
        print(text, file=sys.stderr)
        sys.exit(int(error.exit_code))


@app.command("sources")
def sources(request: Path, output: OutputOption) -> None:
    """Check every parameter, and list what the imports of each data set read, and the tomograms of copick projects."""
    from py2rely_core.importers.sources import source_files, tomogram_files
    from py2rely_core.parameters.request import load_datasets

    with problems_listed():
        datasets = load_datasets(json.loads(request.read_text()))["datasets"]
        found = [
            {"id": one["id"], "project": one["project"]} | source_files(one["imports"], one["export"])
            for one in datasets
            if one["imports"]
        ]
        tomograms = {one["id"]: tomogram_files(one["slab_copick"]) for one in datasets if one["slab_copick"]}
    output.write_text(json.dumps({"datasets": found, "tomograms": tomograms}, indent=1))


@app.command("import-data")
def import_data(settings: Path, output: OutputOption) -> None:
    """Import other programs' data; what is wrong with them is noted, for the preflight's list."""
    from py2rely_core.importers.run import run_imports

    with problems_listed():
        run_imports(json.loads(settings.read_text()), output)


@app.command("recipe")
def recipe(
    request: Path,
    output: OutputOption,
    imported: Annotated[Path | None, typer.Option("--imported", help="JSON: what imports made, by data set.")] = None,
    tomograms: Annotated[Path | None, typer.Option("--tomograms", help="JSON: copick's, by data set.")] = None,
) -> None:
    """Check every parameter and write the data sets."""
    from py2rely_core.parameters.request import load_datasets
    from py2rely_core.problems import ExitCode, Problem, ProblemError

    made, found = (json.loads(path.read_text()) if path else {} for path in (imported, tomograms))
    with problems_listed():
        datasets = load_datasets(json.loads(request.read_text()) | {"imported": made, "tomograms": found})
        missing = [
            one["id"]
            for one in datasets["datasets"]
            if (one["imports"] and one["id"] not in made) or (one["slab_copick"] and one["id"] not in found)
        ]
        if missing:
            fix = "This is a fault of the pipeline's: please report it, with the parameters."
            problem = Problem(f"Imports are missing: {', '.join(missing)}.", "", "imports before the preflight", fix)
            raise ProblemError(problem, ExitCode.INTERNAL)
        output.write_text(json.dumps(datasets, indent=1))


@app.command("references")
def references(names: Path, output: OutputOption) -> None:
    """List the files that STAR files name; with each goes the directory from which its own names hold."""
    from py2rely_core.data.inputs import referenced_files

    of_project: dict[str, list[Path]] = {}
    for name, project in json.loads(names.read_text()):
        of_project.setdefault(project, []).append(Path(name))
    found = [
        [str(path), project]
        for project, star_files in of_project.items()
        for path in referenced_files(star_files, Path(project))
    ]
    output.write_text(json.dumps(found, indent=1))


@app.command("plan")
def plan(request: Path, output: OutputOption) -> None:
    """Check every data set and write the plan."""
    from py2rely_core.checks.preflight import make_plan
    from py2rely_core.problems import format_problems
    from py2rely_core.results.forecast import forecast, forecast_lines

    with problems_listed():
        result, warnings = make_plan(json.loads(request.read_text()))
    for one in result["datasets"]:
        print("\n".join([f"Time for {one['id']}:", *(f"  {line}" for line in forecast_lines(forecast(one)))]))
        if one["imported"]:
            print("\n".join([f"Imported for {one['id']}:", *(f"  {note}" for note in one["imported"])]))
    if warnings:
        print(f"Warnings:\n{format_problems(warnings)}", flush=True)
    output.write_text(json.dumps(result, indent=1))


@app.command("import")
def import_tables(
    particles: ParticlesOption,
    tilt_series: TiltSeriesOption,
    project: Annotated[Path, typer.Option("--project")],
    output: OutputOption,
    symmetry: Annotated[str, typer.Option("--symmetry")] = "C1",
    motion: Annotated[Path | None, typer.Option("--motion")] = None,
    bfactor_per_dose: Annotated[float, typer.Option("--bfactor-per-dose")] = 0,
    lost: Annotated[str, typer.Option("--lost", help="Tilt series that are left out, as JSON.")] = "[]",
) -> None:
    """Write the data set's tables under the names that later steps use."""
    from py2rely_core.data.import_job import import_inputs
    from py2rely_core.data.tables import read_star
    from py2rely_core.relion.outputs.job import LOST, write_numbers
    from py2rely_core.relion.outputs.tilt_series import tilt_series_summary

    gone = json.loads(lost)
    without = [one["tilt_series"] for one in gone]
    job, picks = import_inputs(
        particles, tilt_series, project, output, symmetry, motion, bfactor_per_dose=bfactor_per_dose, without=without
    )
    table = read_star(output / picks / "particles.star")["particles"]
    series = tilt_series_summary(output / job, table)
    if gone:
        (output / job / LOST).write_text(json.dumps({"kept": len(series), "lost": gone}, indent=1))
    write_numbers(output / job, tilt_series=len(series), particles_out=len(table), series=series)


@app.command("reference")
def reference(
    template: Path,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
    low_pass: Annotated[float, typer.Option("--low-pass")],
    output: OutputOption,
) -> None:
    """Bring the user's map onto the first level's grid, and note what was done."""
    from py2rely_core.maps.io import read_map, write_map
    from py2rely_core.maps.template import make_template
    from py2rely_core.relion.outputs.job import check_map, write_numbers

    source = read_map(template)
    write_map(output / "reference.mrc", make_template(source, pixel_size, box, low_pass).data, pixel_size)
    check_map(output, output / "reference.mrc", box, pixel_size)
    was = {"shape": list(source.data.shape), "pixel_size": source.pixel_size}
    write_numbers(output, source=str(template), was=was, box=box, pixel_size=pixel_size, low_pass=low_pass)


@app.command("relion", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def relion(
    context: typer.Context,
    job: Path,
    may_fail: Annotated[bool, typer.Option("--may-fail", help="A failure is noted only.")] = False,
    lost: Annotated[
        str, typer.Option("--lost", help="Goes through tilt series: those lost before it, as JSON; it may lose others.")
    ] = "",
    group: Annotated[bool, typer.Option("--group", help="Over a group of the tilt series.")] = False,
) -> None:
    """Run one RELION program as a job: ``py2rely task relion JOB -- PROGRAM ARGUMENTS``."""
    from py2rely_core.parameters.lost import may_lose
    from py2rely_core.relion.run import run_job

    earlier = json.loads(lost) if lost else []
    if lost and (earlier or may_lose() or (job / "lost.json").is_file()):
        from py2rely_core.relion.lost import run_without_lost  # with pandas, which other jobs do without

        run_without_lost(job, context.args, earlier, group)
        return

    run_job(job, context.args, may_fail)


def _parts(groups: Path, particles: Path, job: Path) -> list[Path]:
    """The jobs staged as 1/NAME, 2/NAME, ... that hold anything; what they lost is noted as lost by the whole."""
    from py2rely_core.relion.lost import merge_lost

    parts = [next(path.iterdir()) for path in sorted(groups.iterdir(), key=lambda path: int(path.name))]
    return merge_lost(parts, particles, job)


@app.command("split")
def split(
    particles: Path,
    tomograms: TomogramsOption,
    groups: Annotated[int, typer.Option("--groups")],
    output: OutputOption,
) -> None:
    """Write one particle set per group of tilt series."""
    from py2rely_core.relion.groups import split_particles

    split_particles(particles, tomograms, groups, output)


@app.command("merge-extract")
def merge_extract(
    job: Path,
    groups: GroupsOption,
    particles: ParticlesOption,
    tomograms: TomogramsOption,
    lost: Annotated[str, typer.Option("--lost", help="Tilt series lost before it, as JSON.")] = "[]",
) -> None:
    """Put extracted groups together as one job."""
    from py2rely_core.relion import groups as work
    from py2rely_core.relion.lost import refuse_too_many

    parts = _parts(groups, particles, job)
    refuse_too_many(job, tomograms, json.loads(lost))
    work.merge_extract(parts, job)


@app.command("merge-temp")
def merge_temp(job: Path, groups: GroupsOption, particles: ParticlesOption) -> None:
    """Put together what groups found for their tilt series."""
    from py2rely_core.relion import groups as work

    work.merge_temp(_parts(groups, particles, job), job)


@app.command("merge-sums")
def merge_sums(
    job: Path,
    groups: GroupsOption,
    particles: ParticlesOption,
    tomograms: TomogramsOption,
) -> None:
    """Add up what groups have back-projected."""
    from py2rely_core.relion import groups as work

    work.merge_sums(_parts(groups, particles, job), tomograms, job)


@app.command("tomograms")
def tomograms(
    job: Path,
    particles: ParticlesOption,
    tilt_series: TiltSeriesOption,
    binning: Annotated[int, typer.Option("--binning")],
    threads: Annotated[int, typer.Option("--threads")],
    output: OutputOption,
) -> None:
    """Make the tomograms that an extraction cuts subtomograms from."""
    from py2rely_core.relion.tomograms import make_tomograms

    make_tomograms(job, particles, tilt_series, binning, threads, output)


@app.command("settle-subtomograms")
def settle_subtomograms(
    job: Path,
    tilt_series: TiltSeriesOption,
    tomograms: TomogramsOption,
) -> None:
    """Note where subtomograms were cut, and remove the tomograms."""
    from py2rely_core.relion.tomograms import settle_subtomograms

    settle_subtomograms(job, tilt_series, tomograms)


@app.command("check-extract")
def check_extract(
    job: Path,
    particles: ParticlesOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
    of_tomograms: Annotated[bool, typer.Option("--of-tomograms", help="They were cut out of tomograms.")] = False,
) -> None:
    """Prove extracted particles."""
    from py2rely_core.relion.outputs.particles import check_extract

    check_extract(job, particles, box, pixel_size, of_tomograms)


@app.command("check-maps")
def check_maps(
    job: Path,
    names: list[str],
    box: BoxOption = None,
    pixel_size: PixelOption = None,
    like: Annotated[Path | None, typer.Option("--like")] = None,
) -> None:
    """Prove maps; their grid is given, or that of extracted particles."""
    from py2rely_core.relion.outputs.job import check_maps, grid_of

    box, pixel_size = grid_of(like) if like else (box, pixel_size)
    check_maps(job, names, box, pixel_size)


@app.command("check-reconstruct")
def check_reconstruct(
    job: Path,
    particles: ParticlesOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove an average."""
    from py2rely_core.relion.outputs.averages import check_reconstruct

    check_reconstruct(job, particles, box, pixel_size)


@app.command("check-refine")
def check_refine(
    job: Path,
    particles: ParticlesOption,
    reference: Annotated[Path, typer.Option("--reference")],
    reason: Annotated[str, typer.Option("--reason", help="Why it searched as it did.")] = "",
) -> None:
    """Prove an auto-refinement."""
    from py2rely_core.relion.outputs.refinements import check_refine

    check_refine(job, particles, reference, reason)


@app.command("check-class3d")
def check_class3d(
    job: Path,
    iterations: Annotated[int, typer.Option("--iterations")],
    particles: ParticlesOption,
    reference: Annotated[Path, typer.Option("--reference")],
    source: Annotated[Path | None, typer.Option("--source", help="Of what the particles are a half set.")] = None,
) -> None:
    """Prove a one-class alignment, and name its last iteration's files as a result."""
    from py2rely_core.relion.outputs.job import write_numbers
    from py2rely_core.relion.outputs.refinements import check_refinement, finish_classification

    finish_classification(job, iterations)
    numbers = check_refinement(job, particles, reference, ["run_class001.mrc"])
    write_numbers(job, **numbers, inputs=[str(source)] if source else [])


@app.command("half-set")
def half_set(source: Path, half: Annotated[int, typer.Option("--half", min=1, max=2)], output: OutputOption) -> None:
    """Write the particles of one half set for an alignment of it."""
    from py2rely_core.relion.halves import half_set

    half_set(source, half, output)


@app.command("join-halves")
def join_halves(halves: list[Path], output: OutputOption) -> None:
    """Put together what half sets that were aligned apart have found."""
    from py2rely_core.relion.halves import join_halves

    join_halves(halves, output)


@app.command("check-classes")
def check_classes(
    job: Path,
    iterations: Annotated[int, typer.Option("--iterations")],
    classes: Annotated[int, typer.Option("--classes")],
    particles: ParticlesOption,
    reference: Annotated[Path, typer.Option("--reference")],
) -> None:
    """Prove a classification, and name its last iteration's files as a result."""
    from py2rely_core.relion.outputs.refinements import check_classes, finish_classification

    finish_classification(job, iterations)
    check_classes(job, particles, reference, classes)


@app.command("split-classes")
def split_classes(
    job: Path,
    classification: Annotated[Path, typer.Option("--classification")],
    tomograms: TomogramsOption,
    choice: Annotated[str, typer.Option("--choice", help="Of the recipe's classification block, as JSON.")],
) -> None:
    """Write the particles of each class and half set for their averages, and both parts of their tilts."""
    from py2rely_core.judging.class_test import split_classes
    from py2rely_core.judging.selection import Choice, agreement_limit

    split_classes(job, classification, tomograms, agreement_limit(classification, Choice(**json.loads(choice))))


@app.command("check-class-test")
def check_class_test(job: Path) -> None:
    """Note to which class's average of the other half set either part of the particles' tilts goes."""
    from py2rely_core.judging.class_test import check_class_test

    check_class_test(job)


@app.command("select-classes")
def select_classes(
    jobs: list[Path],
    choice: Annotated[str, typer.Option("--choice", help="The recipe's classification block, as JSON.")],
    diameter: Annotated[float, typer.Option("--diameter")],
    mask: MaskOption,
    output: OutputOption,
    reference: Annotated[Path, typer.Option("--reference")],
    tests: Annotated[Path | None, typer.Option("--tests", help="Has a test of the classes for each job.")] = None,
    of_classes: Annotated[int | None, typer.Option("--of-classes", help="By hand: of this number of classes.")] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="Its id, where there are several.")] = "",
) -> None:
    """Choose classes, write the particle set that goes on, and a page on which others can be chosen by looking."""
    from py2rely_core.judging.class_job import select_classes
    from py2rely_core.judging.classes import read_classification
    from py2rely_core.judging.selection import Choice
    from py2rely_core.report.class_pages import write_class_pages
    from py2rely_core.report.class_sheets import write_choice

    rule = Choice(**json.loads(choice))
    job, selection = select_classes(jobs, rule, diameter, mask, output, reference, of_classes, tests)
    write_choice(read_classification(job), selection, output / "classes.png")
    write_class_pages(jobs, job, selection, diameter, output, dataset)
    print((output / "classes.txt").read_text())


@app.command("slabs")
def slabs(
    job: Path,
    particles: ParticlesOption,
    tilt_series: TiltSeriesOption,
    tomograms: Annotated[Path, typer.Option("--tomograms", help="JSON: those that are there, as the plan has them.")],
    settings: SettingsOption,
    group: Annotated[bool, typer.Option("--group", help="Over a group of the tilt series.")] = False,
) -> None:
    """Cut the slab of every particle, from tomograms that are there or are made one at a time."""
    from py2rely_core.data.tables import read_star
    from py2rely_core.importers.copick import planned_volumes
    from py2rely_core.parameters.lost import may_lose
    from py2rely_core.relion import slabs as work

    asked = work.Settings(**json.loads(settings))
    table = read_star(tilt_series)["global"]
    given = json.loads(tomograms.read_text())
    files = {name: Path(path) for name, path in given["files"].items()}
    if given["copick"]:
        source = planned_volumes(given["copick"])
    else:
        source = work.opened(files) if files else work.reconstructed(job, table, asked)
    work.make_slabs(job, particles, asked, source, table, work.least_tilt(table, Path), group, may_lose())


@app.command("merge-slabs")
def merge_slabs(job: Path, groups: GroupsOption, particles: ParticlesOption) -> None:
    """Put slabs of groups of tilt series together as one job."""
    from py2rely_core.relion.slabs import merge_slabs

    parts = [next(path.iterdir()) for path in sorted(groups.iterdir(), key=lambda path: int(path.name))]
    merge_slabs(parts, particles, job)


@app.command("check-class2d")
def check_class2d(
    job: Path,
    iterations: Annotated[int, typer.Option("--iterations")],
    classes: Annotated[int, typer.Option("--classes")],
    particles: ParticlesOption,
) -> None:
    """Prove a 2D classification."""
    from py2rely_core.relion.outputs.refinements import check_class2d

    check_class2d(job, particles, iterations, classes)


@app.command("select-slabs")
def select_slabs(
    output: Path,
    class_job: Annotated[Path, typer.Option("--class-job")],
    slabs: Annotated[Path, typer.Option("--slabs")],
    diameter: Annotated[float, typer.Option("--diameter")],
    choice: Annotated[str, typer.Option("--choice", help="How classes are chosen, as JSON.")],
    keep_not_judged: Annotated[bool, typer.Option("--keep-not-judged")] = False,
) -> None:
    """Choose classes of slabs and write the particles that go on."""
    from py2rely_core.judging.slab_classes import SlabChoice, choose_slab_classes, read_class2d, select_slabs
    from py2rely_core.report.class_sheets import write_choice

    found = read_class2d(class_job)
    selection = choose_slab_classes(found, diameter, SlabChoice(**json.loads(choice)))
    select_slabs(found, slabs, selection, output, keep_not_judged, [str(found.data)])
    write_choice(found, selection, output / "classes.png")
    print((output / "classes.txt").read_text())


@app.command("check-ctf-refine")
def check_ctf_refine(
    job: Path,
    tomograms: TomogramsOption,
    particles: ParticlesOption,
    output: OutputOption,
) -> None:
    """Note what a CTF refinement changed."""
    from py2rely_core.relion.outputs.tilt_series import check_ctf_refine

    check_ctf_refine(job, tomograms, particles, output)


@app.command("check-polish")
def check_polish(
    job: Path,
    tomograms: TomogramsOption,
    particles: ParticlesOption,
    output: OutputOption,
) -> None:
    """Note what a polishing changed."""
    from py2rely_core.relion.outputs.tilt_series import check_polish

    check_polish(job, tomograms, particles, output)


@app.command("randomise-from")
def randomise_from(maps: Path) -> None:
    """Print the flag with which relion_postprocess randomises phases, where it needs one."""
    from py2rely_core.judging.masks import randomise_from
    from py2rely_core.problems import ProblemError

    try:
        print(randomise_from(maps / "half1.mrc"))
    except ProblemError as error:
        # What is wrong with the half maps is judged with the step.
        print(error, file=sys.stderr)


@app.command("sharpen-by")
def sharpen_by(postprocess: Path, settings: SettingsOption) -> None:
    """Print the flag with which relion_postprocess sharpens a map; nothing where it should not."""
    from py2rely_core.judging.sharpening import sharpen_by

    wanted = json.loads(settings)
    print(sharpen_by(postprocess, wanted["lowest"], wanted["given"])[0])


@app.command("check-sharpening")
def check_sharpening(
    job: Path,
    best: Annotated[Path, typer.Option("--best")],
    settings: SettingsOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove a sharpened map, or note why there is none."""
    from py2rely_core.judging.sharpening import check_sharpening

    job.mkdir(parents=True, exist_ok=True)
    check_sharpening(job, best, json.loads(settings), (box, pixel_size))


@app.command("check-local-resolution")
def check_local_resolution(
    job: Path,
    mask: MaskOption,
    settings: SettingsOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove a local resolution and note its distribution."""
    from py2rely_core.judging.local_resolution import check_local_resolution

    check_local_resolution(job, mask, box, pixel_size, json.loads(settings)["sampling"])


@app.command("subsets")
def subsets(particles: Path, name: Annotated[str, typer.Option("--name")], output: OutputOption) -> None:
    """Write halves, quarters and eighths of a particle set."""
    from py2rely_core.judging.particle_plot import write_subsets

    write_subsets(particles, name, output)


@app.command("particle-plot")
def particle_plot(
    job: Path,
    sets: Annotated[Path, typer.Option("--sets")],
    best: Annotated[Path, typer.Option("--best")],
    particles: ParticlesOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Note the resolution against the number of particles."""
    from py2rely_core.judging.particle_plot import check_particle_plot

    check_particle_plot(job, sets, best, particles, box, pixel_size)


@app.command("split-tilts")
def split_tilts(
    job: Path,
    particles: ParticlesOption,
    tomograms: TomogramsOption,
    most: Annotated[int, typer.Option("--most")],
) -> None:
    """Write particles twice, each time with one part of their tilts."""
    from py2rely_core.judging.orientations import write_parts

    write_parts(job, particles, tomograms, most)


@app.command("check-orientations")
def check_orientations(job: Path, symmetry: Annotated[str, typer.Option("--symmetry")]) -> None:
    """Note whether both parts of the tilts find the same orientations."""
    from py2rely_core.judging.orientations import check_orientations

    check_orientations(job, symmetry)


@app.command("directions")
def directions(
    job: Path,
    maps: MapsOption,
    mask: MaskOption,
    particles: ParticlesOption,
    tomograms: TomogramsOption,
    symmetry: Annotated[str, typer.Option("--symmetry")],
) -> None:
    """Note a map's resolution by direction, and how its particles sample directions."""
    from py2rely_core.judging.directions import check_directions

    check_directions(maps, mask, particles, tomograms, symmetry, job)


@app.command("compare-template")
def compare_template(
    job: Path,
    template: Path,
    maps: MapsOption,
    mask: MaskOption,
    postprocess: Annotated[Path, typer.Option("--postprocess")],
    settings: SettingsOption,
) -> None:
    """Note whether a map knows more than the template that it was begun from."""
    from py2rely_core.judging.template import check_template

    wanted = json.loads(settings)
    check_template(job, template, maps, mask, postprocess, wanted["low_pass"], wanted["diameter"])


@app.command("judge")
def judge(
    job: Path,
    step: Annotated[str, typer.Option("--step", help="What is noted of it, as JSON.")],
    maps: MapsOption,
    mask: MaskOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
    best: Annotated[Path, typer.Option("--best")],
    particles: ParticlesOption,
) -> None:
    """Judge a step of polishing against the best map so far."""
    from py2rely_core.judging.steps import judge_step

    verdict = judge_step(job, json.loads(step), maps, mask, (box, pixel_size), best, particles)
    print(f"{job}: {verdict.judgement}: {verdict.why}")


@app.command("given-mask")
def given_mask(source: Path, like: Annotated[Path, typer.Option("--like")], output: OutputOption) -> None:
    """Bring the user's mask onto a map's grid."""
    from py2rely_core.judging.masks import bring_mask

    bring_mask(source, like, output)


@app.command("final-model")
def final_model(job: Path, iterations: Annotated[int, typer.Option("--iterations")]) -> None:
    """Name the last iteration's files of an initial model as a result."""
    from py2rely_core.relion.outputs.refinements import finish_classification

    finish_classification(job, iterations)


@app.command("mask-threshold")
def mask_threshold(
    source: Path,
    half_map: Annotated[Path, typer.Option("--half-map")],
    diameter: Annotated[float, typer.Option("--diameter")],
    output: OutputOption,
    threshold: Annotated[str, typer.Option("--threshold", help="The recipe's own; empty: from the density.")] = "",
) -> None:
    """Choose the mask's low-pass and threshold."""
    from py2rely_core.judging.masks import choose_threshold

    choose_threshold(source, half_map, diameter, output, float(threshold) if threshold else None)


@app.command("mask-is-wide-enough")
def mask_is_wide_enough(job: Path, edge: Annotated[int, typer.Option("--edge")]) -> None:
    """Exit 0 when the mask does not correlate with itself, 1 when it should be wider."""
    from py2rely_core.relion.outputs.averages import mask_is_wide_enough

    wide = mask_is_wide_enough(job)
    print(f"{job}: a soft edge of {edge} pixels is {'wide enough' if wide else 'too sharp'}")
    raise typer.Exit(0 if wide else 1)


@app.command("check-postprocess")
def check_postprocess(
    job: Path,
    mask: MaskOption,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove a post-processing and note its FSC and resolution."""
    from py2rely_core.relion.outputs.averages import check_postprocess

    check_postprocess(job, mask, box, pixel_size)


@app.command("select")
def select(source: Path, distance: Annotated[float, typer.Option("--distance")], output: OutputOption) -> None:
    """Write the particle set that goes on."""
    from py2rely_core.judging.duplicates import select_particles

    select_particles(source, distance, output)


@app.command("results")
def results(
    plan: Path,
    names: Annotated[Path, typer.Argument(help="JSON: whose the jobs and maps are; who ended; Nextflow.")],
    jobs: Annotated[Path, typer.Option("--jobs", help="Holds 1/job.json, 2/job.json, ...")],
    maps: Annotated[Path, typer.Option("--maps", help="Holds 1/a.mrc, 2/b.mrc, ...")],
    output: OutputOption,
) -> None:
    """Write results.json, report.html and the lines that a run ends with."""
    from py2rely_core.report.outcome import numbered, write_outcome
    from py2rely_core.results.collect import collect_results, read_jobs, refuse_lost, refuse_missing_levels

    known = json.loads(names.read_text())
    entries = [(identity, jobs / str(n) / "job.json") for n, identity in enumerate(known["jobs"], start=1)]
    versions = {"nextflow": known["nextflow"]}
    planned = json.loads(plan.read_text())
    collected = collect_results(planned, read_jobs(entries), (), versions, known["ended"])
    refuse_lost(planned, collected)
    refuse_missing_levels(collected)
    write_outcome(collected, numbered(collected, maps, known["maps"]), output)


@app.command("free-images")
def free_images(job: Path) -> None:
    """Remove the particle images of an extraction whose level is done."""
    from py2rely_core.results.clean import free_images

    free_images(job.resolve())


@app.command("export-copick")
def export_copick(
    export: Path,
    particles: ParticlesOption,
    tilt_series: TiltSeriesOption,
    output: OutputOption,
) -> None:
    """Write the final particles as picks, and note what was written."""
    from py2rely_core.exporters.final_picks import export_particles
    from py2rely_core.problems import ProblemError

    target = json.loads(export.read_text())
    try:
        notes = export_particles(target, particles, tilt_series)
    except ProblemError as error:
        print(f"The particles were not written to {target['config']}:\n{error}")
        sys.exit(int(error.exit_code))
    print("\n".join([f"Written to {target['config']}:", *(f"  {note}" for note in notes)]))
    output.write_text(json.dumps({"target": target, "notes": notes}, indent=1))


@app.command("failed")
def failed(run: Path, output: OutputOption) -> None:
    """Write results.json, report.html and summary.txt of a run that failed; ``RUN`` is what Nextflow knows of it."""
    from py2rely_core.report.outcome import find_in_jobs, write_outcome
    from py2rely_core.results.collect import collect_failed

    known = json.loads(run.read_text())
    write_outcome(collect_failed(known), find_in_jobs(known), output)


@app.command("stub")
def stub(
    job: Path, names: list[str], numbers: Annotated[str, typer.Option("--numbers", help="More of job.json.")] = "{}"
) -> None:
    """Make a job's outputs as empty files, for runs that only test the graph."""
    job.mkdir(parents=True, exist_ok=True)
    for name in names:
        (job / name).touch()
    noted = {"job": str(job), "wall_seconds": 0.0, "relion_seconds": 0.0, "commands": []}
    noted |= {"low_pass": 30.0}
    (job / "job.json").write_text(json.dumps(noted | json.loads(numbers)))


@app.command("project")
def project(output_dir: Path) -> None:
    """Make each data set's output directory a project that RELION opens, with the jobs that failed, too."""
    from py2rely_core.results.project import update_projects

    update_projects(output_dir)
