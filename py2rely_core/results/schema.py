"""The form of ``results.json``: the models that its published JSON schema is made from.

Lengths are Angstrom, times seconds, memory MB (2^20 bytes), angles degrees; paths are relative to the output directory.
A value that is not known is null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from py2rely_core.problems import ExitCode, Problem, ProblemError

#: Counted up when a reader of an earlier document would misunderstand a new one.
SCHEMA_VERSION = 1


class Part(BaseModel):
    """A part of the document; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Resolution(Part):
    """Where the FSC of the half maps falls below 0.143, and what Refine3D itself reports."""

    masked: float | None = None
    unmasked: float | None = None
    refine3D: float | None = None


class Curves(Part):
    """Fourier shell correlation; all lists have one value per shell, without shell 0, or are empty."""

    resolution: list[float] = []
    corrected: list[float | None] = []
    unmasked: list[float | None] = []
    masked: list[float | None] = []
    randomised: list[float | None] = []


class Angles(Part):
    """Viewing directions: counts in cells of equal area, a row per interval of `tilt`, a column per `rot`."""

    rot: list[float]
    tilt: list[float]
    counts: list[list[int]]


class Job(Part):
    """One job: what it took, and what it was run with. `wall_seconds` is RELION's time and that of the checks."""

    job: str
    started: float | None = Field(None, description="Seconds since 1970 (UTC).")
    wall_seconds: float = 0.0
    relion_seconds: float = 0.0
    cpu_seconds: float | None = None
    peak_memory: float | None = Field(None, description="Of the largest single process.")
    ranks: int | None = None
    threads: int | None = None
    gpus: str = ""
    particles_in: int | None = None
    particles_out: int | None = None
    commands: list[str] = []


class ParticleStep(Part):
    """A step after which another number of particles is left, or the one that began."""

    job: str
    particles_in: int | None = None
    particles_out: int
    reason: str = ""


class ClassRow(Part):
    """One class of a classification."""

    number: int = Field(alias="class")
    particles: int
    share: float
    resolution: float | None = None
    accuracy_rotation: float | None = None
    accuracy_translation: float | None = None
    similarity: float | None = Field(None, description="Angstrom up to which it correlates with the best above 0.5.")
    likeness: float | None = Field(None, description="Correlation with the best, as a share of what noise allows.")
    apart: float | None = Field(
        None, description="How far its images tell it from the best class: 0 by chance, 1 where all of them do."
    )
    kept: bool
    why: str = ""


class Classification(Part):
    """One of several classifications side by side."""

    classes: int
    job: str
    resolution: float | None = Field(None, description="Of its best class.")
    shares: list[float] = Field(description="Of the classes, largest first.")
    kept: list[int] = Field(description="Classes that it would keep by itself.")
    particles_kept: int
    chosen: bool = Field(description="Whether it is the one whose classes count.")
    reason: str


class PolishingStep(Part):
    """One step of one polishing cycle, and whether its result was taken."""

    name: str = Field("", description="Of its Reconstruct and PostProcess jobs.")
    cycle: int
    step: Literal["ctf_refine", "polish", "refine"]
    judgement: Literal["better", "equal", "worse"] = "equal"
    accepted: bool = Field(description="Whether later steps build upon it.")
    why: str = ""
    resolution: float | None = None
    area: float | None = Field(None, description="Under the FSC curve: what steps of one resolution are compared by.")
    nyquist_limited: bool = False
    particles: str = ""
    tilt_series: str = ""
    motion: str = ""
    fsc: Curves = Curves()


class Polishing(Part):
    """All polishing cycles, and the name of the best result."""

    best: str | None = None
    cycles: list[PolishingStep] = []


class DefocusChange(Part):
    """Mean defocus of a tilt series before and after refinement, and the spread of the change over its tilts."""

    before: float
    after: float
    change_std: float | None = None


class Motion(Part):
    """Root mean square motion of particles between tilts."""

    rms: float
    per_tomogram: dict[str, float] = {}


class Correction(Part):
    """What one CTF refinement or polishing changed."""

    job: str
    defocus: dict[str, DefocusChange] = {}
    motion: Motion | None = None


class TiltSeries(Part):
    """One tilt series, as it was given."""

    name: str
    particles: int
    tilts: int
    tilt_min: float | None = None
    tilt_max: float | None = None
    defocus: float | None = None
    defocus_min: float | None = None
    defocus_max: float | None = None
    dose: float | None = None
    motion: float | None = None


class OrientationTest(Part):
    """Whether orientations follow from the images: each half of a particle's tilts is searched alone."""

    judgement: Literal["consistent", "partly", "not determined", "not tested"]
    text: str
    judged: int | None = Field(None, description="Particles that were looked at.")
    within: int | None = Field(None, description="Of these, those that have the same orientation from both halves.")
    degrees: float | None = Field(None, description="Within so many degrees.")
    chance: float | None = Field(None, description="The share that chance would have of these.")
    share: float | None = Field(None, description="Of particles that are determined by half of their tilts.")
    same_axis: int | None = Field(None, description="Those with the same axis of a group that has just one.")
    same_turn: int | None = Field(None, description="Of these, those with the same rotation around it.")
    median: float | None = Field(None, description="Angle between the orientations from both halves.")
    chance_median: float | None = Field(None, description="The same of halves of different particles.")
    edges: list[float] = Field([], description="Of the histogram's bars, degrees.")
    counts: list[int] = []
    expected: list[float] = Field([], description="Of chance.")


class Level(Part):
    """One binning."""

    status: Literal["complete", "unfinished", "waiting"]
    name: str = Field("", description="Of its result's jobs, such as bin4, or bin4_selected after a classification.")
    binning: int
    pixel_size: float
    box: int
    extraction_box: int
    particles_in: int | None = None
    particles_out: int | None = None
    duplicates_removed: int = 0
    low_pass: float | None = None
    resolution: Resolution = Resolution()
    nyquist_limited: bool = False
    map: str | None = Field(None, description="The level's post-processed map; null until it is there.")
    iterations: int | None = None
    history: list[float | None] = Field([], description="Resolution after every iteration of Refine3D.")
    angles: Angles | None = None
    mask: dict[str, Any] | None = None
    fsc: Curves = Curves()
    orientations: OrientationTest | None = Field(None, description="Null until the level is complete.")
    classes: list[ClassRow] = []
    classes_reason: str = Field("", description="How classes were chosen.")
    classes_job: str = Field("", description="The Class3D job whose classes these are.")
    classifications: list[Classification] = Field([], description="Numbers of classes that were tried side by side.")
    wall_seconds: float = 0.0
    relion_seconds: float = 0.0
    jobs: list[Job] = []
    versions: dict[str, str] = {}
    warnings: list[str] = []


class LostTiltSeries(Part):
    """A tilt series that was left out, as its images cannot be used or a step failed on it."""

    tilt_series: str
    job: str = Field(description="Where it was lost; Import/tilt_series: before anything was computed.")
    particles: int = Field(description="Its particles, which are lost with it.")
    reason: str


class Guinier(Part):
    """Logarithms of a map's mean amplitudes, one value per shell: as it is, with the MTF, by FSC, sharpened."""

    frequency_squared: list[float] = Field([], description="1/Angstrom^2.")
    original: list[float | None] = []
    mtf_corrected: list[float | None] = []
    weighted: list[float | None] = []
    sharpened: list[float | None] = []


class Sharpening(Part):
    """How the best map was sharpened, or why it was not; its files are in `final`."""

    sharpened: bool
    b_factor: float | None = Field(None, description="Used for sharpening, square Angstrom.")
    source: Literal["Guinier plot", "given", "none"]
    why: str = ""
    mtf: str = Field("", description="The detector's MTF that was corrected for.")
    slope: float | None = Field(None, description="Of the line that was fitted, a quarter of the B-factor.")
    intercept: float | None = None
    correlation: float | None = None
    lowest: float | None = Field(None, description="Where the line begins, Angstrom.")
    guinier: Guinier = Guinier()


class ConicalCurves(Part):
    """FSC within cones, one value per shell: the median direction, and those that 5 and 95 % of directions exceed."""

    resolution: list[float] = []
    worst: list[float] = []
    median: list[float] = []
    best: list[float] = []


class Directions(Part):
    """Resolution by direction, and the particles' sampling of directions; the map's frame.

    Maps of the sphere have 18 rows of equal height from tilt 0 to 180 degrees, of 36 columns of rot from -180 degrees.
    """

    cone: float = Field(description="Half-angle of the cones, degrees.")
    worst: float = Field(description="What 95 % of directions reach, Angstrom.")
    median: float
    best: float = Field(description="What 5 % of directions reach, Angstrom.")
    worst_direction: list[float] = Field(description="Rot and tilt, degrees.")
    best_direction: list[float]
    area_ratio: float = Field(description="cFAR: the smallest area under a conical FSC over the largest.")
    resolution: list[list[float]] = Field(description="On the sphere, Angstrom.")
    fsc: ConicalCurves
    sampling: list[list[float]] = Field(description="On the sphere: 1 where as dense as with views from everywhere.")
    least_sampling: float
    unsampled: float = Field(description="Share of directions that no view samples.")
    compensation: float = Field(description="Sampling compensation factor, SCF: 1 for even sampling.")


class LocalResolution(Part):
    """Local resolution within the map's mask, Angstrom."""

    map: str = Field(description="The resolution at every voxel.")
    filtered: str = Field(description="The map, filtered to its resolution at every place.")
    best: float = Field(description="Of 5 % of the voxels.")
    median: float
    worst: float = Field(description="Of 95 % of the voxels, or better.")
    sampling: float = Field(description="Distance of the points at which it was estimated.")
    range: list[float] = Field(description="Without 2 % of the voxels at either end: that of colours and histogram.")
    edges: list[float] = Field([], description="Of the histogram's bars.")
    counts: list[int] = []


class PlotPoint(Part):
    """So many particles give so much resolution, Angstrom."""

    particles: int
    resolution: float
    nyquist_limited: bool = False


class ParticlePlot(Part):
    """Resolution against the number of particles, and the line through the points."""

    points: list[PlotPoint]
    b_factor: float | None = Field(None, description="Twice the slope of ln(particles) against 1/d^2, square Angstrom.")
    correlation: float | None = None
    target_resolution: float | None = Field(None, description="A better resolution; null where the line is none.")
    target_particles: int | None = Field(None, description="How many particles it would take.")
    text: str


class TemplateCurves(Part):
    """FSC of the whole map with the template, of the half maps, and what the latter allow with a perfect structure."""

    resolution: list[float] = []
    template: list[float] = []
    halves: list[float] = []
    allowed: list[float] = []


class TemplateComparison(Part):
    """Whether the map knows more than its template."""

    judgement: Literal["nothing", "confirmed", "partly", "other"]
    text: str
    low_pass: float = Field(description="To which the template was given.")
    resolution: float | None = Field(None, description="Of the map.")
    agrees_to: float = Field(description="Where its FSC with the template falls below 0.5.")
    share: float | None = Field(
        None, description="Of what the half maps allow beyond the low-pass, how much the template has, too."
    )
    fsc: TemplateCurves


class MapAnalysis(Part):
    """What was found out about the best map; null for what was not asked for."""

    sharpening: Sharpening | None = None
    local_resolution: LocalResolution | None = None
    directions: Directions | None = None
    template: TemplateComparison | None = None
    particle_plot: ParticlePlot | None = None
    hand: str = Field("", description="Why the map's hand is not known; empty where its resolution shows it.")


class Final(Part):
    """The result of a data set."""

    map: str
    unsharpened: str | None = Field(None, description="The average of both half maps, as it was reconstructed.")
    sharpened: str | None = Field(None, description="The map by FSC and B-factor; null where it is not sharpened.")
    half_maps: list[str]
    mask: str
    particles: str
    tilt_series: str
    motion: str | None = Field(None, description="Trajectories that belong to the polished tilt series.")
    resolution: float | None
    nyquist_limited: bool
    binning: int
    orientations: Literal["consistent", "partly", "not determined", "not tested"] = Field(
        "not tested", description="What the resolution is worth; the level of this binning says how it was found."
    )
    orientations_text: str = ""


class Slabs(Part):
    """Picks as 2D classification chose them: which were kept, which rejected, and which could not be judged."""

    job: str = Field(description="The Class2D job.")
    averages: str | None = Field(None, description="Its class averages.")
    box: int | None = Field(None, description="Pixels of an image.")
    pixel_size: float | None = None
    thickness: float | None = None
    tomograms: int | None = None
    particles_in: int
    kept: int | None = Field(None, description="In classes that are kept; null while classes are waited for.")
    rejected: int | None = None
    not_judged: int = Field(0, description="Too near the border of their tomogram.")
    not_judged_go_on: bool = True
    particles_out: int | None = None
    classes: list[ClassRow] = []
    reason: str = ""
    first_round: list[ClassRow] = Field([], description="Of two rounds, the classes of the first.")
    first_reason: str = ""


class Dataset(Part):
    """One data set. `final` is null when the run failed before every level was complete.

    Where only polishing is missing (`unfinished`), or classes are waited for (`choose classes`, the end that was asked
    for), `final` is the best until then.
    """

    id: str
    status: Literal["complete", "unfinished", "choose classes"]
    project: str = Field("", description="The data set's directory within the output directory.")
    start: Literal["picks", "bin1", "polish"] = "picks"
    initial_reference: str
    symmetry: str
    particle_diameter: float
    particles_in: int | None = None
    tilt_series: int | None = None
    series: list[TiltSeries] = []
    lost_tilt_series: list[LostTiltSeries] = Field([], description="Those that the run went on without.")
    imported: list[str] = Field([], description="What the run's own imports read, used and left out.")
    slabs: Slabs | None = Field(None, description="Null where picks were not chosen by 2D classification.")
    final: Final | None = None
    levels: list[Level]
    particle_steps: list[ParticleStep] = []
    polishing: Polishing | None = None
    map_analysis: MapAnalysis = MapAnalysis()
    corrections: list[Correction] = []
    warnings: list[str] = []
    parameters: dict[str, Any] = {}


class WarningDetail(Part):
    """A warning, where it belongs, and what it means."""

    text: str
    dataset: str = ""
    where: str = ""
    explanation: str = ""
    to_do: str = ""


class Failure(Part):
    """Why a run ended early."""

    step: str = Field(description="The workflow's task, such as REFINE3D (main bin4).")
    dataset: str = ""
    job: str = Field("", description="The RELION job, such as Refine3D/bin4; empty where it was none.")
    what: str
    explanation: str = ""
    exit_code: int | None = None
    to_do: str = ""
    last_lines: list[str] = Field([], description="Of RELION, or of the task.")
    work_dir: str = ""


class Results(Part):
    """The result of a run, complete or failed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["complete", "failed"]
    failure: Failure | None = Field(None, description="The one that ended the run, or the first of `failures`.")
    failures: list[Failure] = Field([], description="All of them: data sets go on without one that failed.")
    versions: dict[str, str] = {}
    warnings: list[str] = []
    warning_details: list[WarningDetail] = []
    datasets: list[Dataset] = []

    @model_validator(mode="after")
    def _one_failure_is_all(self) -> Self:
        """Where only the one is known that ended the run, it is all of them."""
        self.failures = self.failures or ([self.failure] if self.failure else [])
        return self


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``results.json``."""
    schema = Results.model_json_schema(by_alias=True, mode="serialization")
    schema["title"] = "results.json of py2rely-nf"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def validated(document: dict[str, Any]) -> dict[str, Any]:
    """A document in its full form: every key there, in the published order.

    Raises
    ------
    pydantic.ValidationError
        The document is not what the schema says.
    """
    return Results.model_validate(document).model_dump(by_alias=True, mode="json")


def read_results(run: Path) -> dict[str, Any]:
    """The ``results.json`` of a run, checked.

    Parameters
    ----------
    run : Path
        Output directory, or the file itself.

    Raises
    ------
    ProblemError
        The file is missing, is not JSON, or is not what the schema says.
    """
    path = run / "results.json" if run.is_dir() else run
    if not path.is_file():
        fix = "Give the output directory of a run that ended; 'py2rely status' shows one that goes on."
        raise ProblemError(Problem("There is no results.json.", str(path), "an output directory", fix))
    try:
        return validated(json.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{path}: {'.'.join(str(part) for part in first['loc'])}"
        count = f" ({error.error_count()} problems in all)" if error.error_count() > 1 else ""
        fix = "It may be from another version of py2rely-nf: run the workflow once more with -resume to write it anew."
        raise ProblemError(Problem(f"{first['msg']}{count}.", where, "the published schema", fix)) from error
    except ValueError as error:
        fix = "Run the workflow once more with -resume to write it anew."
        raise ProblemError(
            Problem(f"The file is not JSON: {error}.", str(path), "a JSON document", fix), ExitCode.BAD_INPUT
        ) from error
