"""Every parameter of a run besides the parameter file's blocks: its group, type, default and meaning, once.

From this table come the checks of ``request``, ``nextflow_schema.json`` (types within the workflow, ``--help``, forms
of launchers) and the tables of docs/parameters.md: ``python -m py2rely_core.parameters.table`` writes both files anew.
nextflow.config has the same defaults.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Type = Literal["string", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a run.

    Attributes
    ----------
    name : str
        As on the command line of ``nextflow run``, without hyphens.
    type : {"string", "integer", "number", "boolean"}
        How its text is read.
    text : str
        What it is, in one line; Markdown links stand in the docs only.
    default : object
        None where it has none.
    choices : tuple of str
        All values that it may have; empty where there are more.
    minimum : int or None
        The least value of a number.
    path : bool
        Whether it names a file or directory.
    per_dataset : bool
        Whether it is a column of the sample sheet, too.
    standard : str
        What holds when it is not given, where `default` does not say it.
    """

    name: str
    type: Type
    text: str
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    path: bool = False
    per_dataset: bool = False
    standard: str = ""


@dataclass(frozen=True)
class Group:
    """Parameters that belong together; of a configuration's, no result depends on them."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    configuration: bool = False


P = Parameter
GROUPS = (
    Group(
        "input",
        "What goes in",
        (
            P("parameter", "string", "parameter file; `-params-file` does the same", path=True),
            P("sample_sheet", "string", "CSV: [several data sets](#several-data-sets), in place of one parameter file",
              path=True),
            P("particles", "string", "particles to begin with: a STAR file of RELION 5, or a file that is [imported]"
              "(import.md#particles)", path=True, per_dataset=True,
              standard="the parameter file's"),
            P("tomograms", "string", "tilt-series STAR file to begin with", path=True, per_dataset=True,
              standard="the parameter file's"),
            P("motion", "string", "trajectories that belong to them, from an earlier polishing", path=True,
              per_dataset=True),
            P("start", "string", "begin with picks, or at bin 1 from refined particles: [polishing](polishing.md)",
              "picks", choices=("picks", "bin1", "polish"), per_dataset=True),
        ),
    ),
    Group(
        "imports",
        "Other programs' data ([how](import.md#in-a-run))",
        (
            P("aretomo", "string", "directory of AreTomo: its tilt series are imported", path=True, per_dataset=True),
            P("imod", "string", "directory of IMOD (etomo), or the one above several", path=True, per_dataset=True),
            P("warp", "string", "`*_tomograms.star` of Warp, M or RELION 4, with real stacks", path=True,
              per_dataset=True),
            P("copick", "string", "copick configuration: its picks are imported", path=True, per_dataset=True),
            P("particle_name", "string", "object of the copick project", per_dataset=True),
            P("export_copick", "boolean", "at the end, write the final particles as picks into the copick project",
              False),
            P("voltage", "number", "of the imported tilt series, kV", standard="none: AreTomo and IMOD do not say it"),
            P("hand", "number", "rlnTomoHand of the imported tilt series, 1 or -1; see `check-hand`",
              standard="none: AreTomo and IMOD do not say it"),
            P("thickness", "integer", "of their tomograms, unbinned voxels", minimum=1, standard="a volume"),
            P("dose_per_tilt", "number", "of an image, e/A^2; where no file has the dose"),
            P("total_dose", "number", "of a tilt series, e/A^2; where no file has the dose"),
            P("units", "string", "of particle coordinates: centred (Angstrom), angstrom or pixel (from a corner)",
              standard="told from the file"),
            P("voxel_size", "number", "of their pixels, Angstrom; of copick, only runs with this voxel spacing",
              standard="the unbinned one; all runs"),
            P("user_id", "string", "of the picks, where there are several", standard="the only one"),
            P("session_id", "string", "of the picks, where there are several", standard="the only one"),
            P("export_user_id", "string", "of the picks that are written", standard="`relion`"),
            P("export_session_id", "string", "of the picks that are written", standard="`99`"),
        ),
    ),
    Group(
        "reference",
        "First reference and mask",
        (
            P("reference_template", "string", "a map: the first reference is made from it", path=True,
              per_dataset=True),
            P("run_denovo_generation", "boolean", "the first reference is made from the particles alone", False,
              per_dataset=True),
            P("low_pass", "number", "low-pass of the reference at `--start bin1`, Angstrom", per_dataset=True,
              standard="from the half maps"),
            P("mask", "string", "a mask that is used as it is", path=True, per_dataset=True,
              standard="from the density"),
        ),
    ),
    Group(
        "slabs",
        "2D classification of slabs",
        (
            P("run_class2D", "boolean", "picks are chosen by [2D classification of slabs](slabs.md) before all else",
              False),
            P("class2D_selection", "string", "by the rule, or by you: `manual` ends the run with the table of classes",
              choices=("auto", "manual"), standard="`auto`"),
            P("class2D_keep", "string", "after `manual`: the classes that go on, such as `1,3`"),
        ),
    ),
    Group(
        "classes",
        "3D classification",
        (
            P("run_class3D", "boolean", "particles are chosen by [3D classification](classification.md)", False),
            P("class_selection", "string", "by the rule, or by you: `manual` ends the run with the table of classes",
              choices=("auto", "manual"), standard="`auto`"),
            P("keep_classes", "string", "after `manual`: the classes that go on, such as `1,3`"),
            P("best_class", "integer", "of these, the one that the next reference is made from", minimum=1),
        ),
    ),
    Group(
        "analysis",
        "The best map ([what is found out about it](map-analysis.md))",
        (
            P("particle_plot", "boolean", "resolution against the number of particles: parts of them are averaged, too",
              False),
        ),
    ),
    Group(
        "output",
        "Output and this machine",
        (
            P("outdir", "string", "where results go", "results", path=True),
            P("cpus", "integer", "the most cores of a task", minimum=1, standard="all"),
            P("gpus", "string", "GPU numbers, such as `0,1`; any number of them "
              "([more](recovery.md#gpus-of-a-workstation))",
              standard="none"),
            P("num_gpus", "integer", "or only how many: the first ones, or those that a scheduler gives "
              "([clusters](clusters.md))", minimum=0, standard="none"),
            P("tasks_per_gpu", "integer", "tasks that may share a GPU of a workstation", minimum=1, standard="1"),
            P("tilt_series_per_task", "integer",
              "more tilt series are extracted, averaged, CTF-refined and polished in groups, side by side", minimum=1,
              standard="50"),
            P("keep_stacks", "boolean", "extracted particles stay when their level is done; `false` "
              "[frees them](recovery.md#disk-space) during the run", True),
            P("max_lost_tilt_series", "string", "tilt series that may be [left out](recovery.md#tilt-series-that-fail) "
              "when they cannot be read or a step fails on them: a number, or a share such as `10%`", "0"),
            P("help", "boolean", "show these parameters, and do nothing", False),
        ),
    ),
    Group(
        "installation",
        "Installation",
        (
            P("image", "string", "Apptainer image with RELION, for `-profile local,apptainer` or `slurm,apptainer`",
              path=True),
            P("relion_load", "string", "shell lines before each task, such as `module load relion/5.0.1`"),
            P("timeout", "number", "hours that a RELION step may take", 48, minimum=0),
        ),
        configuration=True,
    ),
    Group(
        "slurm",
        "SLURM ([clusters](clusters.md))",
        (
            P("slurm_partition", "string", "of steps without GPU"),
            P("slurm_gpu_partition", "string", "of steps with GPU", standard="`slurm_partition`"),
            P("slurm_account", "string", "account"),
            P("slurm_qos", "string", "quality of service"),
            P("slurm_constraint", "string", "nodes for steps without GPU"),
            P("gpu_constraint", "string", "nodes for steps with GPU, such as `a100,h100` (either)"),
            P("cpu_constraint", "string", "cores per step and GB per core, such as `4,16`: `cpus` and "
              "`slurm_memory_per_cpu` in one"),
            P("gpu_request", "string", "how GPUs are asked for: gres (`--gres=gpu:4`) or gpus (`--gpus=4`)", "gres",
              choices=("gres", "gpus")),
            P("gpu_type", "string", "of the GPUs in that request, such as `a100`"),
            P("slurm_options", "string", "anything else that sbatch takes"),
            P("slurm_memory_per_cpu", "number", "GB per core, in place of what the steps ask for", minimum=0),
            P("slurm_core", "boolean", "the short steps, too, are jobs; they run beside Nextflow otherwise", False),
            P("slurm_queue_size", "integer", "jobs in the queue at once", 100, minimum=1),
            P("slurm_poll", "string", "how often the queue is looked at", "30 sec"),
        ),
        configuration=True,
    ),
)  # fmt: skip

ALL = {parameter.name: parameter for group in GROUPS for parameter in group.parameters}
#: Parameters of a run besides the recipe's blocks; nextflow.config has their defaults.
RUN_PARAMETERS = tuple(parameter.name for group in GROUPS if not group.configuration for parameter in group.parameters)
#: How and where tasks run. The workflow keeps them out of the request: they decide on no result, repeat no step.
CONFIGURATION = tuple(parameter.name for group in GROUPS if group.configuration for parameter in group.parameters)
#: What is given for each data set: parameters of the run, or columns of the sample sheet.
PER_DATASET = tuple(name for name, parameter in ALL.items() if parameter.per_dataset)


class Written(float):
    """A number of a JSON file that knows how it was written: ``json.loads(text, parse_float=Written)``."""

    def __new__(cls, text: str) -> Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


_TRUE, _FALSE = ("true", "yes"), ("false", "no")


def typed(name: str, value: Any) -> Any:
    """A value by its parameter's type, however it arrived; what is not of its type stays as it is.

    The workflow does the same with what it uses itself: ``typed`` of workflows/configuration.nf.
    """
    parameter = ALL.get(name)
    if parameter is not None and parameter.type == "string":
        if isinstance(value, Written):
            return value.text
        return str(value).lower() if type(value) is int or value is True else value
    if parameter is None or not isinstance(value, str):
        return value
    text = value.strip()
    if parameter.type == "boolean" and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    if parameter.type in ("integer", "number") and re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if parameter.type == "number" and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return value


def schema() -> dict[str, Any]:
    """The parameters as JSON schema, in the form that Nextflow's launchers read."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "py2rely-nf parameters",
        "description": "Parameters of a run. The blocks of the parameter file (docs/recipe.md) are parameters, too.",
        "type": "object",
        "$defs": {group.name: _section(group) for group in GROUPS},
        "allOf": [{"$ref": f"#/$defs/{group.name}"} for group in GROUPS],
    }


def _section(group: Group) -> dict[str, Any]:
    section: dict[str, Any] = {"title": _plain(group.title), "type": "object"}
    section |= {"configuration": True} if group.configuration else {}
    return section | {"properties": {one.name: _property(one) for one in group.parameters}}


def _property(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"type": parameter.type, "description": _plain(parameter.text)}
    found |= {"default": parameter.default} if parameter.default is not None else {}
    found |= {"enum": list(parameter.choices)} if parameter.choices else {}
    found |= {"minimum": parameter.minimum} if parameter.minimum is not None else {}
    return found | ({"format": "path"} if parameter.path else {})


def _plain(text: str) -> str:
    """Without Markdown: links and code marks."""
    return re.sub(r" ?\(\[[^]]*\]\([^)]*\)\)", "", re.sub(r"(?<!\()\[([^]]*)\]\([^)]*\)", r"\1", text)).replace("`", "")


def as_markdown() -> str:
    """The tables of docs/parameters.md."""
    parts = []
    for group in GROUPS:
        rows = [f"| `--{one.name}` | {_default(one)} | {one.text} |" for one in group.parameters]
        parts.append("\n".join([f"### {group.title}", "", "| parameter | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _default(parameter: Parameter) -> str:
    if parameter.standard:
        return parameter.standard
    if parameter.default is None:
        return ""
    return f"`{json.dumps(parameter.default)}`".replace('"', "")


#: Between these lines of docs/parameters.md stand the tables.
BEGIN, END = "<!-- from py2rely_core/parameters/table.py -->", "<!-- end -->"


def with_tables(page: str) -> str:
    """A page with the tables between its two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{as_markdown()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    (root / "nextflow_schema.json").write_text(json.dumps(schema(), indent=2) + "\n")
    docs = root / "docs/parameters.md"
    docs.write_text(with_tables(docs.read_text()))
