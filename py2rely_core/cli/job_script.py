"""``py2rely prepare relion5-pipeline``: the job script of the head process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from py2rely_core.cli.options import SWITCH, constraints, is_true


def relion5_pipeline(
    parameter: Annotated[Path, typer.Option("--parameter", "-p", help="Parameter file.")] = Path("sta_parameters.json"),
    template: Annotated[Path | None, typer.Option("--reference-template", "-rt", help="A map, on any grid.")] = None,
    denovo: Annotated[
        str, typer.Option("--run-denovo-generation", "-dg", metavar=SWITCH, help="First reference from the particles.")
    ] = "False",
    class3d: Annotated[
        str, typer.Option("--run-class3D", "-rc3d", metavar=SWITCH, help="Classify after the first refinement.")
    ] = "False",
    selection: Annotated[str, typer.Option("--class-selection", "-cs", metavar="[auto|manual]")] = "auto",
    extract_3d: Annotated[
        str, typer.Option("--extract3D", "-e3d", metavar=SWITCH, help="Volumes, not 2D stacks, at the first binning.")
    ] = "False",
    manual_masking: Annotated[
        str, typer.Option("--manual-masking", "-mm", metavar=SWITCH, help="Stop after the first binning, at its mask.")
    ] = "False",
    submit: Annotated[
        str, typer.Option("--submitit", metavar=SWITCH, help="Every step is a job; False: all within this one job.")
    ] = "True",
    num_gpus: Annotated[
        int | None,
        typer.Option("--num-gpus", "-ng", help="GPUs per step.", show_default="the site's, or 4"),
    ] = None,
    gpu_constraint: Annotated[
        str | None, typer.Option("--gpu-constraint", "-gc", help="Nodes for steps with GPU, such as a100,h100.")
    ] = None,
    cpu_constraint: Annotated[
        str | None,
        typer.Option(
            "--cpu-constraint", "-cc", metavar="CPUS,GB", help="Cores per step, GB per core.", show_default="the site's"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", "-t", help="Hours per step.", show_default="the site's, or 48")
    ] = None,
    days: Annotated[float, typer.Option("--num-days", "-ndays", help="Days that the head process may wait.")] = 14,
    fresh: Annotated[
        str, typer.Option("--new-pipeline", metavar=SWITCH, help="Start anew; nothing is deleted.")
    ] = "False",
    output: Annotated[Path, typer.Option("--output", "-o", help="Script to write.")] = Path("pipeline.sh"),
) -> None:
    """Write the script of the head process, for sbatch. The site's settings come from 'py2rely config'."""
    from py2rely_core.launching.job_script import Head, job_script
    from py2rely_core.launching.site import used_settings
    from py2rely_core.parameters.files import load_recipe
    from py2rely_core.problems import ExitCode, Problem, ProblemError

    if selection not in ("auto", "manual"):
        raise typer.BadParameter(f"--class-selection is auto or manual, not '{selection}'")
    if num_gpus is not None and num_gpus < 0:
        raise typer.BadParameter(f"--num-gpus is 0 or more, not {num_gpus}")
    cpus, memory = cores_and_memory(cpu_constraint) if cpu_constraint else (None, None)
    first = load_recipe(parameter).resolutions.binning_list[0]
    if template and not template.is_file():
        raise ProblemError(Problem("The map is missing.", f"--reference-template {template}", "an MRC file"))
    on_cluster, site = is_true(submit, "--submitit"), used_settings()
    num_gpus = site.get("num_gpus", 4) if num_gpus is None else num_gpus
    parameters = {
        "parameter": parameter,
        "reference_template": template,
        "run_denovo_generation": is_true(denovo, "--run-denovo-generation") or None,
        "run_class3D": is_true(class3d, "--run-class3D") or None,
        "class_selection": selection if is_true(class3d, "--run-class3D") else None,
        f"levels.{first}.pseudo_subtomo.do_output_2dstacks": "no" if is_true(extract_3d, "--extract3D") else None,
        "resolutions.binning_list": f"[{first}]" if is_true(manual_masking, "--manual-masking") else None,
        "num_gpus": num_gpus,
        "cpus": cpus,
    }
    types = ",".join(constraints([gpu_constraint] if gpu_constraint else None)) or None
    for_jobs = {"gpu_constraint": types, "slurm_memory_per_cpu": memory, "timeout": timeout}
    if not on_cluster and gpu_constraint:
        problem = Problem("--gpu-constraint is for steps that are jobs.", "", "--submitit True", "Leave one out.")
        raise ProblemError(problem, ExitCode.BAD_PARAMETERS)
    parameters |= for_jobs if on_cluster else {}
    profile = ("slurm" if on_cluster else "local") + (",apptainer" if site.get("image") else "")
    output.write_text(job_script(Head(days, is_true(fresh, "--new-pipeline"), profile, site, parameters)))
    output.chmod(0o755)
    typer.echo(f"Wrote {output}; submit it with: sbatch {output}")


def cores_and_memory(constraint: str) -> tuple[int, float]:
    """Cores per step and GB per core, from ``"4,16"``."""
    try:
        cpus, memory = (float(part) for part in constraint.strip("[]()").split(","))
    except ValueError:
        cpus = memory = 0
    if cpus < 1 or cpus != int(cpus) or memory <= 0:
        raise typer.BadParameter(f"--cpu-constraint is 'CPUS,GB' such as 4,16, not '{constraint}'")
    return int(cpus), memory
