"""``py2rely check``: the preflight of a run, without the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: A run's other parameters are taken as they are typed.
CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True}


def command(
    context: typer.Context,
    parameter: Annotated[Path | None, typer.Option("--parameter", help="Parameter file.")] = None,
    params_file: Annotated[Path | None, typer.Option("-params-file", help="The same, as Nextflow takes it.")] = None,
    sample_sheet: Annotated[Path | None, typer.Option("--sample_sheet", help="CSV with several data sets.")] = None,
    reference_template: Annotated[
        Path | None, typer.Option("--reference_template", help="Map that the first reference is made from.")
    ] = None,
    run_denovo_generation: Annotated[
        bool, typer.Option("--run_denovo_generation", help="The first reference is made from the particles alone.")
    ] = False,
    outdir: Annotated[Path, typer.Option("--outdir", help="Where results will go.")] = Path("results"),
    work_dir: Annotated[Path, typer.Option("-work-dir", "-w", help="Where tasks will write.")] = Path("work"),
    cpus: Annotated[int | None, typer.Option("--cpus", help="Cores per task; all when not given.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="GPU numbers, such as 0,1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print errors, warnings and numbers as JSON.")] = False,
) -> None:
    """Check parameters, data and machine as a run does first: all errors and warnings, and nothing is computed.

    Every other parameter of a run can be given, too, such as --refine3D.ini_high 40. Exit code 0: no errors (there may
    be warnings); 65: something is wrong with the data or the machine; 66: with the parameters.
    """
    import json

    from py2rely_core.checks.preflight import Checked, check_parameters
    from py2rely_core.problems import ExitCode, ProblemError
    from py2rely_core.results.forecast import forecast

    given = {
        "parameter": parameter,
        "sample_sheet": sample_sheet,
        "reference_template": reference_template,
        "run_denovo_generation": run_denovo_generation or None,
        "cpus": cpus,
        "gpus": gpus,
    }
    params = {name: value if isinstance(value, int) else str(value) for name, value in given.items() if value}
    code = ExitCode.BAD_PARAMETERS
    try:
        checked = check_parameters(
            params, params_file, context.args, Path.cwd(), work_dir.absolute(), outdir.absolute()
        )
        code = ExitCode.BAD_INPUT if any(one.is_error for one in checked.problems) else ExitCode.OK
    except ProblemError as error:
        checked = Checked(error.problems, [], [])
    pairs = zip(checked.numbers, checked.plans, strict=True)
    numbers = [one | {"forecast": forecast(plan)} for one, plan in pairs]
    errors = [one for one in checked.problems if one.is_error]
    warnings = [one for one in checked.problems if not one.is_error]
    if as_json:
        lists = {"errors": [one.as_dict() for one in errors], "warnings": [one.as_dict() for one in warnings]}
        typer.echo(json.dumps({"exit_code": int(code)} | lists | {"datasets": numbers}, indent=1))
    else:
        _print(errors, warnings, numbers)
    raise typer.Exit(int(code))


def _print(errors: list, warnings: list, numbers: list[dict]) -> None:
    from py2rely_core.problems import format_problems
    from py2rely_core.results.forecast import forecast_lines

    for one in numbers:
        counts = f"{one['particles']} particles, {one['tilt_series']} tilt series, {one['tilts']} tilts"
        typer.echo(f"{one['id']}: {counts}")
        for note in one["imported"]:
            typer.echo(f"  imported: {note}")
        for level in one["levels"]:
            seen = f"{level['particles_seen']} particles seen in {level['mean_tilts'] or 0:g} tilts on average"
            typer.echo(
                f"  bin {level['binning']}: box {level['extraction_box']}, {seen}, {level['extraction_gb']:.1f} GB"
            )
        typer.echo("\n".join(f"  {line}" for line in forecast_lines(one["forecast"])))
    for title, problems in (("Errors", errors), ("Warnings", warnings)):
        if problems:
            typer.echo(f"\n{title} ({len(problems)})\n{format_problems(problems)}")
    typer.echo("\nThe run would stop: correct the errors." if errors else "\nReady to run.")
