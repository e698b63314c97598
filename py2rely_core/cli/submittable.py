"""Commands that may also run as a job of the cluster, with the options that say how."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from py2rely_core.cli.options import CLUSTER, GpuConstraintOption, constraints, is_given

Submit = Annotated[bool, typer.Option("--submitit", help="Run it as a job on SLURM.", rich_help_panel=CLUSTER)]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--num-gpus", "-ng", help="GPUs of the job, if it uses any.", show_default="the site's, or 4",
        rich_help_panel=CLUSTER,
    ),
]  # fmt: skip
Cores = Annotated[
    str | None,
    typer.Option(
        "--cpu-constraint", "-cc", metavar="CPUS,GB", help="Cores of the job, and GB for each.",
        show_default="the site's, or 4,16", rich_help_panel=CLUSTER,
    ),
]  # fmt: skip
Hours = Annotated[
    float | None,
    typer.Option("--timeout", help="Hours of the job.", show_default="the site's, or 48", rich_help_panel=CLUSTER),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.", rich_help_panel=CLUSTER)]
OPTIONS: dict[str, tuple[Any, Any]] = {
    "submit": (Submit, False),
    "num_gpus": (Gpus, None),
    "gpu_constraint": (GpuConstraintOption, None),
    "cpu_constraint": (Cores, None),
    "timeout": (Hours, None),
    "wait": (Wait, False),
}


def submittable(uses_gpu: Callable[[dict[str, Any]], bool]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a cluster.

    Parameters
    ----------
    uses_gpu : callable
        Says of the command's values whether the job needs GPUs.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [one.replace(annotation=hints[name]) for name, one in inspect.signature(command).parameters.items()]
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter("context", kind, annotation=typer.Context)]
        more += [inspect.Parameter(n, kind, default=value, annotation=type_) for n, (type_, value) in OPTIONS.items()]

        @functools.wraps(command)
        def run(*, context: typer.Context, **values: Any) -> None:
            asked = {name: values.pop(name) for name in OPTIONS}
            if asked.pop("submit"):
                _submit(context, asked, uses_gpu(values))
                return
            _nothing_of_a_cluster(context)
            command(**values)

        given = [one.replace(kind=kind) for one in own]
        run.__signature__ = inspect.Signature([*given, *more])
        run.__annotations__ = hints | {one.name: one.annotation for one in more}
        del run.__wrapped__
        return run

    return give


def _nothing_of_a_cluster(context: typer.Context) -> None:
    """Options of a job, without one, are a mistake."""
    from py2rely_core.problems import ExitCode, Problem, ProblemError

    problems = [
        Problem(f"{option.opts[0]} is for SLURM.", option.opts[0], "--submitit True", "Add it, or leave this out.")
        for option in context.command.params
        if option.name in OPTIONS and option.name != "submit" and is_given(context, option.name)
    ]
    if problems:
        raise ProblemError(problems, ExitCode.BAD_PARAMETERS)


def words_of(context: typer.Context, **changed: str) -> list[str]:
    """The command as typed, without the cluster's options, and with some values changed."""
    words = context.command_path.split()[1:]
    for option in context.command.params:
        if option.name in OPTIONS or option.name is None or not is_given(context, option.name):
            continue
        value = changed.get(option.name, context.params[option.name])
        if isinstance(value, bool):
            words += [option.opts[0]] if value else option.secondary_opts[:1]
        else:
            words += [option.opts[0], str(value)]
    return words


def _submit(context: typer.Context, asked: dict[str, Any], uses_gpu: bool) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from py2rely_core.launching.launch import Cluster
    from py2rely_core.launching.site import used_settings
    from py2rely_core.launching.submit import resources_of, routine_script, submit

    site = used_settings()
    types, wait = constraints(asked["gpu_constraint"]), asked["wait"]
    cluster = Cluster(True, asked["num_gpus"], types, asked["cpu_constraint"], asked["timeout"])
    wanted = resources_of(cluster, site, uses_gpu)
    name, numbers = context.command.name or "routine", several(context.params.get("classes"))
    scripts = []
    for number in numbers:
        title = name if number is None or len(numbers) == 1 else f"{name}_{number}"
        words = words_of(context) if number is None else words_of(context, classes=str(number))
        script = Path(f"{title}.sh")
        script.write_text(routine_script(title, words, site, wanted))
        scripts.append(script)
    with ThreadPoolExecutor(len(scripts)) as side_by_side:
        for script, job in zip(scripts, side_by_side.map(lambda one: submit(one, wait), scripts), strict=True):
            ended = "has ended" if wait else "is submitted"
            typer.echo(f"{script}: job {job} {ended}; its output: {script.stem}_{job}.out")
    if len(scripts) > 1:
        typer.echo("Their table, when they have ended: py2rely routines compare-classes Class3D/jobNNN ...")


def several(text: object) -> list[int | None]:
    """Numbers of classes: ``3``, or from, to and step, ``2,8,2`` for 2, 4, 6 and 8; [None] where nothing is given."""
    if text is None:
        return [None]
    parts = str(text).strip("[] ").split(",")
    try:
        numbers = [int(part) for part in parts]
        found = numbers if len(numbers) == 1 else list(range(numbers[0], numbers[1] + 1, numbers[2]))
        if len(numbers) in (1, 3) and found and min(found) >= 1:
            return [*found]
    except (ValueError, IndexError):
        pass
    raise typer.BadParameter(f"--nr-classes is a number, or from,to,step such as 2,8,2; not '{text}'")
