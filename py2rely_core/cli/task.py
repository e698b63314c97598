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
OutputOption = Annotated[Path, typer.Option("--output")]


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


@app.command("recipe")
def recipe(request: Path, output: OutputOption) -> None:
    """Check every parameter and write the data sets."""
    from py2rely_core.request import load_datasets

    with problems_listed():
        output.write_text(json.dumps(load_datasets(json.loads(request.read_text())), indent=1))


@app.command("references")
def references(names: Path, project: Annotated[Path, typer.Option("--project")], output: OutputOption) -> None:
    """List the files that STAR files name."""
    from py2rely_core.inputs import referenced_files

    star_files = [Path(line) for line in names.read_text().splitlines() if line]
    output.write_text("".join(f"{path}\n" for path in referenced_files(star_files, project)))


@app.command("plan")
def plan(request: Path, output: OutputOption) -> None:
    """Check every data set and write the plan."""
    from py2rely_core.preflight import make_plan
    from py2rely_core.problems import format_problems

    with problems_listed():
        result, warnings = make_plan(json.loads(request.read_text()))
    if warnings:
        print(f"Warnings:\n{format_problems(warnings)}", flush=True)
    output.write_text(json.dumps(result, indent=1))


@app.command("import")
def import_data(
    particles: Annotated[Path, typer.Option("--particles")],
    tilt_series: Annotated[Path, typer.Option("--tilt-series")],
    project: Annotated[Path, typer.Option("--project")],
    output: OutputOption,
) -> None:
    """Write the data set's tables under the names that later steps use."""
    from py2rely_core.jobs import write_numbers
    from py2rely_core.preflight import import_inputs
    from py2rely_core.tables import read_star

    job, picks = import_inputs(particles, tilt_series, project, output)
    write_numbers(
        output / job,
        tilt_series=len(read_star(output / job / "tomograms.star")["global"]),
        particles_out=len(read_star(output / picks / "particles.star")["particles"]),
    )


@app.command("reference")
def reference(
    template: Path,
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
    low_pass: Annotated[float, typer.Option("--low-pass")],
    output: OutputOption,
) -> None:
    """Bring the user's map onto the first level's grid, and note what was done."""
    from py2rely_core.jobs import check_map, write_numbers
    from py2rely_core.maps.io import read_map, write_map
    from py2rely_core.maps.template import make_template

    source = read_map(template)
    write_map(output / "reference.mrc", make_template(source, pixel_size, box, low_pass).data, pixel_size)
    check_map(output, output / "reference.mrc", box, pixel_size)
    was = {"shape": list(source.data.shape), "pixel_size": source.pixel_size}
    write_numbers(output, source=str(template), was=was, box=box, pixel_size=pixel_size, low_pass=low_pass)


@app.command("relion", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def relion(context: typer.Context, job: Path) -> None:
    """Run one RELION program as a job: ``py2rely task relion JOB -- PROGRAM ARGUMENTS``."""
    from py2rely_core.relion import run_job

    run_job(job, context.args)


def _parts(groups: Path) -> list[Path]:
    """The jobs staged as 1/NAME, 2/NAME, ..."""
    return [next(path.iterdir()) for path in sorted(groups.iterdir(), key=lambda path: int(path.name))]


@app.command("split")
def split(
    particles: Path,
    tomograms: Annotated[Path, typer.Option("--tomograms")],
    groups: Annotated[int, typer.Option("--groups")],
    output: OutputOption,
) -> None:
    """Write one particle set per group of tilt series."""
    from py2rely_core.groups import split_particles

    split_particles(particles, tomograms, groups, output)


@app.command("merge-extract")
def merge_extract(job: Path, groups: Annotated[Path, typer.Option("--groups")]) -> None:
    """Put extracted groups together as one job."""
    from py2rely_core import groups as work

    work.merge_extract(_parts(groups), job)


@app.command("merge-sums")
def merge_sums(
    job: Path,
    groups: Annotated[Path, typer.Option("--groups")],
    tomograms: Annotated[Path, typer.Option("--tomograms")],
) -> None:
    """Add up what groups have back-projected."""
    from py2rely_core import groups as work

    work.merge_sums(_parts(groups), tomograms, job)


@app.command("check-extract")
def check_extract(
    job: Path,
    particles: Annotated[Path, typer.Option("--particles")],
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove extracted particles."""
    from py2rely_core import jobs

    jobs.check_extract(job, particles, box, pixel_size)


@app.command("check-maps")
def check_maps(
    job: Path,
    names: list[str],
    box: BoxOption = None,
    pixel_size: PixelOption = None,
    like: Annotated[Path | None, typer.Option("--like")] = None,
) -> None:
    """Prove maps; their grid is given, or that of extracted particles."""
    from py2rely_core import jobs

    box, pixel_size = jobs.grid_of(like) if like else (box, pixel_size)
    jobs.check_maps(job, names, box, pixel_size)


@app.command("check-reconstruct")
def check_reconstruct(
    job: Path,
    particles: Annotated[Path, typer.Option("--particles")],
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove an average."""
    from py2rely_core import jobs

    jobs.check_reconstruct(job, particles, box, pixel_size)


@app.command("check-refine")
def check_refine(
    job: Path,
    particles: Annotated[Path, typer.Option("--particles")],
    reference: Annotated[Path, typer.Option("--reference")],
) -> None:
    """Prove an auto-refinement."""
    from py2rely_core import jobs

    jobs.check_refine(job, particles, reference)


@app.command("check-class3d")
def check_class3d(
    job: Path,
    iterations: Annotated[int, typer.Option("--iterations")],
    particles: Annotated[Path, typer.Option("--particles")],
    reference: Annotated[Path, typer.Option("--reference")],
) -> None:
    """Prove a one-class alignment, and name its last iteration's files as a result."""
    from py2rely_core import jobs

    jobs.finish_classification(job, iterations)
    jobs.write_numbers(job, **jobs.check_refinement(job, particles, reference, ["run_class001.mrc"]))


@app.command("final-model")
def final_model(job: Path, iterations: Annotated[int, typer.Option("--iterations")]) -> None:
    """Name the last iteration's files of an initial model as a result."""
    from py2rely_core import jobs

    jobs.finish_classification(job, iterations)


@app.command("mask-threshold")
def mask_threshold(
    source: Path,
    half_map: Annotated[Path, typer.Option("--half-map")],
    diameter: Annotated[float, typer.Option("--diameter")],
    output: OutputOption,
    threshold: Annotated[str, typer.Option("--threshold", help="The recipe's own; empty: from the density.")] = "",
) -> None:
    """Choose the mask's low-pass and threshold."""
    from py2rely_core.jobs import choose_threshold

    choose_threshold(source, half_map, diameter, output, float(threshold) if threshold else None)


@app.command("mask-is-wide-enough")
def mask_is_wide_enough(job: Path, edge: Annotated[int, typer.Option("--edge")]) -> None:
    """Exit 0 when the mask does not correlate with itself, 1 when it should be wider."""
    from py2rely_core import jobs

    wide = jobs.mask_is_wide_enough(job)
    print(f"{job}: a soft edge of {edge} pixels is {'wide enough' if wide else 'too sharp'}")
    raise typer.Exit(0 if wide else 1)


@app.command("check-postprocess")
def check_postprocess(
    job: Path,
    mask: Annotated[Path, typer.Option("--mask")],
    box: Annotated[int, typer.Option("--box")],
    pixel_size: Annotated[float, typer.Option("--pixel-size")],
) -> None:
    """Prove a post-processing and note its FSC and resolution."""
    from py2rely_core import jobs

    jobs.check_postprocess(job, mask, box, pixel_size)


@app.command("select")
def select(source: Path, distance: Annotated[float, typer.Option("--distance")], output: OutputOption) -> None:
    """Write the particle set that goes on."""
    from py2rely_core.jobs import select_particles

    select_particles(source, distance, output)


@app.command("results")
def results(
    plan: Path,
    jobs: Annotated[Path, typer.Option("--jobs", help="Holds 1/job.json, 2/job.json, ...")],
    job_ids: Annotated[str, typer.Option("--job-ids", help="The data sets of these, comma-separated.")],
    maps: Annotated[Path, typer.Option("--maps", help="Holds 1/postprocess.mrc, 2/postprocess.mrc, ...")],
    map_ids: Annotated[str, typer.Option("--map-ids", help="Data set:job of these, comma-separated.")],
    output: OutputOption,
) -> None:
    """Write results.json, report.html and the lines that a run ends with."""
    from py2rely_core.report import write_report
    from py2rely_core.results import collect_results, read_jobs, summary

    entries = [(identity, jobs / str(n) / "job.json") for n, identity in enumerate(job_ids.split(","), start=1)]
    collected = collect_results(json.loads(plan.read_text()), read_jobs(entries))
    pictures = {}
    for number, name in enumerate(map_ids.split(","), start=1):
        identity, job = name.split(":")
        path = maps / str(number) / "postprocess.mrc"
        if path.stat().st_size:
            pictures[identity, job] = path
    (output / "results.json").write_text(json.dumps(collected, indent=1, allow_nan=False) + "\n")
    (output / "summary.txt").write_text(summary(collected))
    write_report(collected, pictures, output / "report.html")


@app.command("stub")
def stub(job: Path, names: list[str]) -> None:
    """Make a job's outputs as empty files, for runs that only test the graph."""
    job.mkdir(parents=True, exist_ok=True)
    for name in names:
        (job / name).touch()
    numbers = {"job": str(job), "low_pass": 30.0, "wall_seconds": 0.0, "relion_seconds": 0.0, "commands": []}
    (job / "job.json").write_text(json.dumps(numbers))
