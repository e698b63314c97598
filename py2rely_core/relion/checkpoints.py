"""Going on with a refinement that died: its complete iterations are kept outside the task, and trusted when they fit.

The iterations of ``relion_refine`` are put aside while it runs, under a fingerprint of everything that decides its
result: the program's options, and the content of its inputs. A later task with the same fingerprint, a retry or one
of a resumed run, starts from the last complete iteration with RELION's own ``--continue``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from py2rely_core.data.tables import Blocks, read_star, split_image_name
from py2rely_core.problems import ProblemError

#: Where checkpoints are; by default beside the tasks of the workflow's work directory.
DIRECTORY = "PY2RELY_CHECKPOINTS"
POLL_SECONDS = 1.0
#: Iterations that are kept whole: one may turn out to be broken.
KEPT = 2
#: Stacks of particles whose size and time are part of the fingerprint; the job that wrote them is so in any case.
SAMPLED_STACKS = 1000
#: Larger files stand for themselves with size and time.
HASHED_BYTES = 4 * 1024**3


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Options that change how fast a result comes, and not the result; RELION takes them again with ``--continue``.
_SPEED = _names(
    "--j --gpu --pool --dont_combine_weights_via_disc --no_parallel_disc_io --preread_images --scratch_dir "
    "--keep_free_scratch --reuse_scratch --keep_scratch --onthefly_shifts --free_gpu_memory --verb"
)
#: Options that RELION does not keep: they must be given again with ``--continue``.
_AGAIN = _SPEED | _names(
    "--auto_ignore_angles --auto_resol_angles --allow_coarser_sampling --skip_align --skip_rotate --bimodal_psi "
    "--center_classes --normalised_subtomo --skip_subtomo_multi --ctf3d_not_squared --subtomo_multi_thr "
    "--solvent_correct_fsc --trust_ref_size --blush --blush_skip_spectral_trailing --lowpass_mask --lowpass "
    "--failsafe_threshold --always_cc --auto_iter_max"
)
#: Options that RELION keeps in the files of an iteration, or uses before the first one only. Of these, some would undo
#: what the iterations before have learnt (``--sigma_ang``) or what RELION switched off itself (``--norm``).
_KEPT_BY_RELION = _names(
    "--i --tomograms --trajectories --ref --ref_angpix --iter --tau2_fudge --tau2_fudge_scheme --K --particle_diameter "
    "--zero_mask --flatten_solvent --solvent_mask --solvent_mask2 --tau --local_symmetry --split_random_halves "
    "--low_resol_join_halves --denovo_3dref --firstiter_cc --ini_high --oversampling --healpix_order --psi_step "
    "--limit_tilt --sym --offset_range --offset_step --offset --perturb --auto_refine --auto_sampling "
    "--auto_local_healpix_order --sigma_ang --sigma_rot --sigma_tilt --sigma_psi --ctf --ctf_intact_first_peak --norm "
    "--scale --no_norm --no_scale --grad --grad_em_iters --grad_ini_frac --grad_fin_frac --grad_min_resol "
    "--grad_ini_resol --grad_fin_resol --grad_ini_subset --grad_fin_subset --mu --grad_stepsize --grad_stepsize_scheme "
    "--grad_write_iter --maxsig --class_inactivity_threshold --no_init_blobs --pad --random_seed --adaptive_fraction "
    "--maskedge --fix_sigma_noise --fix_sigma_offset --incr_size --strict_highres_exp --strict_lowres_exp "
    "--fast_subsets --coarse_size --dont_check_norm "
    "--helix --ignore_helical_symmetry --helical_nr_asu --helical_twist_initial "
    "--helical_rise_initial --helical_z_percentage --helical_inner_diameter --helical_outer_diameter "
    "--helical_keep_tilt_prior_fixed"
)
_ITERATION = re.compile(r"_it(\d{3,})_optimiser\.star$")


@dataclass
class Checkpoint:
    """The complete iterations of one refinement.

    Attributes
    ----------
    root : str
        Output root name, such as ``Refine3D/bin4/run``.
    command : list of str
        The command from the start.
    directory : Path
        Holds ``it012/`` and the like: the files of an iteration and their checksums.
    particles : int
        Rows of the particle set.
    """

    root: str
    command: list[str]
    directory: Path
    particles: int
    _seen: dict[int, tuple] = field(default_factory=dict)
    _lock: int | None = None

    def restore(self) -> int | None:
        """Link the last complete iteration into the job's directory; its number, or None where there is none.

        One with a missing, changed or unreadable file is left out, and the one before is taken. Nothing is taken from a
        directory that somebody else can write.
        """
        kept = self._kept() if is_own(self.directory) else []
        while kept and not self._is_whole(kept[-1]):
            shutil.rmtree(self.directory / f"it{kept.pop():03d}", ignore_errors=True)
        for number in kept:
            for file in self._files(number):
                if number == kept[-1] or file.name.endswith("_model.star"):
                    _link(file, Path(self.root).parent / file.name)
        return kept[-1] if kept else None

    def continuation(self, iteration: int) -> list[str]:
        """The command that goes on after an iteration.

        Older versions of RELION write to another name when ``--o`` is the one that the iteration was written with; the
        same place, spelt differently, is right for all of them.
        """
        optimiser = f"{self.root}_it{iteration:03d}_optimiser.star"
        written = str(read_star(optimiser)["optimiser_general"]["rlnOutputRootName"].iloc[0])
        job, name = os.path.split(self.root)
        root = self.root if written != self.root else f"{job}/./{name}"
        start = _program_at(self.command) + 1
        again = [word for option in _options(self.command) if option[0] in _AGAIN for word in option]
        return [*self.command[:start], "--continue", optimiser, "--o", root, *again]

    @contextmanager
    def kept(self) -> Iterator[bool]:
        """Keep every iteration that becomes complete, until the end of the block; False where that cannot be done."""
        stop = threading.Event()
        keeper = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        reserved = self._reserve()
        if reserved:
            keeper.start()
        try:
            yield reserved
        finally:
            stop.set()
            if keeper.is_alive():
                keeper.join()
            self._release()

    def remove(self) -> None:
        """Forget it: the refinement has ended well."""
        if is_own(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)

    def _reserve(self) -> bool:
        """Whether this process alone writes here: a task of a killed run may still be at it."""
        with suppress(OSError):
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            if not is_own(self.directory):
                return False
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        self._release()
        return False

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(POLL_SECONDS):
            self.keep()
        self.keep()

    def keep(self) -> None:
        """Put aside the iterations that are complete, and thin out older ones."""
        job, name = os.path.split(self.root)
        for optimiser in sorted(Path(job).glob(f"{name}_it*_optimiser.star")):
            found = _ITERATION.search(optimiser.name)
            number = int(found.group(1)) if found else 0
            if number == 0 or (self.directory / f"it{number:03d}").exists():
                continue
            files = sorted(Path(job).glob(f"{name}_it{number:03d}_*"))
            # A failure to keep an iteration (a full disk, a file half-written) must not end the refinement.
            with suppress(OSError, ProblemError, KeyError, ValueError):
                state = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
                if self._seen.get(number) == state and _is_complete(optimiser):
                    self._put_aside(number, files)
                self._seen[number] = state

    def _put_aside(self, number: int, files: list[Path]) -> None:
        target = self.directory / f"it{number:03d}"
        part = target.with_name(f"{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in files:
            _link(file, part / file.name)
        sums = {file.name: _digest(part / file.name) for file in files}
        (part / "checksums.json").write_text(json.dumps(sums))
        part.rename(target)
        for old in self._kept()[:-KEPT]:
            for file in self._files(old):
                if not file.name.endswith("_model.star"):
                    file.unlink()

    def _kept(self) -> list[int]:
        names = [path.name for path in self.directory.glob("it*") if path.name[2:].isdigit()]
        return sorted(int(name[2:]) for name in names)

    def _files(self, number: int) -> list[Path]:
        directory = self.directory / f"it{number:03d}"
        return sorted(path for path in directory.iterdir() if path.name != "checksums.json")

    def _is_whole(self, number: int) -> bool:
        directory = self.directory / f"it{number:03d}"
        try:
            sums = json.loads((directory / "checksums.json").read_text())
            if not sums or any(_digest(directory / name) != value for name, value in sums.items()):
                return False
            data = next(directory.glob("*_data.star"))
            return len(read_star(data)["particles"]) == self.particles
        except (OSError, ValueError, KeyError, StopIteration, ProblemError):
            return False


def checkpoint_of(job: Path, command: list[str], version: str) -> Checkpoint | None:
    """The checkpoint of a command, or None for a program or options that RELION cannot go on with.

    Parameters
    ----------
    job : Path
        Job directory, which ``--o`` must lie in.
    command : list of str
        The whole command, from the start.
    version : str
        RELION's version: another one starts anew.
    """
    if _program_at(command) is None:
        return None
    options = {option[0]: option[1:] for option in _options(command)}
    root = " ".join(options.pop("--o", []))
    if Path(root).parent != job or "--i" not in options or set(options) - _AGAIN - _KEPT_BY_RELION:
        return None
    try:
        particles = _read(Path(" ".join(options["--i"])))["particles"]
    except (ProblemError, KeyError):
        return None
    base = _base()
    if base is None:
        return None
    return Checkpoint(root, command, _own_place(base / fingerprint(job, command, version)), len(particles))


def is_own(directory: Path) -> bool:
    """Whether a directory is this user's, no link, and nobody else can write into it."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & others


def _own_place(directory: Path) -> Path:
    """The directory, or one with the user's number where it is somebody else's: a project's work may be shared."""
    foreign = os.path.lexists(directory) and not is_own(directory)
    return directory.with_name(f"{directory.name}-{os.geteuid()}") if foreign else directory


def fingerprint(job: Path, command: list[str], version: str) -> str:
    """A name for everything that decides a refinement's result.

    Options, in whatever order, except those about speed; every file that they name, by content; tilt series, by
    content; particle images, by the job that wrote them, size and time.
    """
    result = hashlib.sha256(f"{version}\n{job}\n".encode())
    options = sorted(option for option in _options(command) if option[0] not in _SPEED)
    result.update(json.dumps(options).encode())
    files = sorted({Path(word) for option in options for word in option[1:] if Path(word).is_file()})
    for path in files:
        for one in _with_what_belongs(path):
            result.update(f"{one} {_digest(one)}\n".encode())
        if path.suffix == ".star":
            result.update(_images(path).encode())
    return result.hexdigest()[:32]


@lru_cache(maxsize=8)
def _read(path: Path) -> Blocks:
    """An input, read once: particle sets are long."""
    return read_star(path)


def _with_what_belongs(path: Path) -> list[Path]:
    """A file, the other half map, the tilt series of a table, and the numbers of the job that wrote it."""
    others = [path.parent / "job.json"]
    if "half1" in path.name:
        others.append(path.with_name(path.name.replace("half1", "half2")))
    if path.suffix == ".star":
        for table in _read(path).values():
            others += [Path(name) for name in table.get("rlnTomoTiltSeriesStarFile", ())]
    return [path, *(other for other in others if other.is_file())]


def _images(star_file: Path) -> str:
    """Size and time of the images that a particle set names: all of them, or evenly chosen ones of many."""
    table = _read(star_file).get("particles")
    if table is None or "rlnImageName" not in table:
        return ""
    names = list(dict.fromkeys(split_image_name(name)[1] for name in table["rlnImageName"]))
    rows = np.unique(np.linspace(0, len(names) - 1, SAMPLED_STACKS).astype(int))
    return "".join(f"{names[row]} {_size_and_time(Path(names[row]))}\n" for row in rows)


def _size_and_time(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def _digest(path: Path) -> str:
    if path.stat().st_size > HASHED_BYTES:
        return _size_and_time(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _is_complete(optimiser: Path) -> bool:
    """Whether everything that an iteration names is there and has its full size."""
    import mrcfile

    general = read_star(optimiser)["optimiser_general"].iloc[0]
    labels = ("rlnModelStarFile", "rlnModelStarFile2", "rlnExperimentalDataStarFile", "rlnOrientSamplingStarFile")
    names = [str(general.get(label, "")) for label in labels]
    named = [Path(name) for name in names if name not in ("None", "", "nan")]
    for model in [path for path in named if path.name.endswith("model.star")]:
        classes = read_star(model)["model_classes"]
        for label in {"rlnReferenceImage", "rlnGradMoment1", "rlnGradMoment2"} & set(classes):
            named += [Path(split_image_name(name)[1]) for name in classes[label]]
    for path in named:
        if path.suffix in (".mrc", ".mrcs"):
            with mrcfile.open(path, header_only=True, permissive=True) as mrc:
                header = mrc.header
                voxels = int(header.nx) * int(header.ny) * int(header.nz)
                item = mrcfile.utils.dtype_from_mode(int(header.mode)).itemsize
                if path.stat().st_size < 1024 + int(header.nsymbt) + voxels * item:
                    return False
        elif not path.is_file():
            return False
    return True


def _program_at(command: list[str]) -> int | None:
    """Where ``relion_refine`` is in a command."""
    names = ("relion_refine", "relion_refine_mpi")
    return next((place for place, word in enumerate(command) if Path(word).name in names), None)


def _options(command: list[str]) -> list[list[str]]:
    """The options of the program in a command, each with its values."""
    options: list[list[str]] = []
    for word in command[_program_at(command) + 1 :]:
        if word.startswith("--") or not options:
            options.append([word])
        else:
            options[-1].append(word)
    return options


def _base() -> Path | None:
    """Where checkpoints are: as said, or beside the tasks in Nextflow's work directory, ``work/ab/cdef...``."""
    if os.environ.get(DIRECTORY):
        return Path(os.environ[DIRECTORY])
    task = Path.cwd()
    named = re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{30}", f"{task.parent.name}/{task.name}")
    return task.parent.parent / "checkpoints" if named else None


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the two are on different file systems."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
