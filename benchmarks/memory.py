"""Measured peaks of RELION's programs, and the formulas of py2rely_core/planning/resources.py beside them."""

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from py2rely_core.data.tables import read_star, write_star
from py2rely_core.planning.resources import Workload, granted, map_memory, refine_memory, tomo_memory, translations
from py2rely_core.simulation.simulate import Settings, write_dataset

BOXES = (24, 48, 72, 96)
DATA = {"pixel_size": 5.0, "image_size": 400, "thickness": 64, "particles": 10, "tilt_series": 1, "noise": 1.5}


def peak(directory: Path, command: str) -> float:
    """Peak resident memory of a command, GB: the sum of what each of its processes had at most."""
    with tempfile.TemporaryFile("w+") as text:
        process = subprocess.Popen(command.split(), cwd=directory, stdout=text, stderr=subprocess.STDOUT)
        peaks: dict[int, int] = {}
        while process.poll() is None:
            peaks |= {pid: max(peaks.get(pid, 0), high_water(pid)) for pid in family(process.pid)}
            time.sleep(0.02)
        text.seek(0)
        if process.returncode:
            sys.exit(f"{command}\n{text.read()[-3000:]}")
    return sum(peaks.values()) * 1024 / 1e9


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += path.read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def high_water(pid: int) -> int:
    """The most memory that a process has had so far, kB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def steps(box: int, work: Workload) -> dict[str, tuple[str, float]]:
    """A command per kind of step, and the formula's memory for it, GB. Each needs the output of those before it."""
    common = f"--t tilt_series.star --p particles.star --b {box} --bin 1"
    offsets = translations(1, 1)
    judged = (
        f"{common} --ref1 rec{box}/half1.mrc --ref2 rec{box}/half2.mrc --mask mask{box}.mrc --fsc post{box}/map.star "
        "--theme classic --j 2"
    )
    refine = (
        f"--i ext{box}/particles.star --tomograms tilt_series.star --ref rec{box}/merged.mrc --trust_ref_size "
        "--ini_high 11 --particle_diameter 110 --sym O --ctf --flatten_solvent --zero_mask --norm --scale --pool 3 "
        f"--random_seed 1 --oversampling 1 --offset_range 1 --offset_step 1 --sigma_ang 1 --j 1 --o ./ref{box}"
    )
    classes = f"relion_refine {refine} --iter 1 --tau2_fudge 4 --healpix_order 4"
    auto = (
        f"mpirun -n 3 relion_refine_mpi {refine} --auto_refine --split_random_halves --low_resol_join_halves 40 "
        "--healpix_order 4 --auto_local_healpix_order 4 --auto_iter_max 2"
    )
    return {
        "extract": (f"relion_tomo_subtomo {common} --o ext{box}/ --stack2d --j 1", tomo_memory(box, work, 1, 1)),
        "reconstruct": (
            f"relion_tomo_reconstruct_particle {common} --o rec{box}/ --sym O --j 2 --j_in 1 --j_out 2",
            tomo_memory(box, work, 1, 2, sums=True),
        ),
        "mask": (
            f"relion_mask_create --i rec{box}/merged.mrc --o mask{box}.mrc --lowpass 15 --ini_threshold 0.01",
            map_memory(box),
        ),
        "1 class, pad 1": (f"{classes} --pad 1", refine_memory(box, work, 1, 1, offsets, pad=1)),
        "1 class, pad 2": (f"{classes} --pad 2", refine_memory(box, work, 1, 1, offsets, pad=2)),
        "3 classes": (f"{classes} --pad 1 --K 3", refine_memory(box, work, 1, 1, offsets, classes=3, pad=1)),
        "auto-refine": (f"{auto} --pad 2", refine_memory(box, work, 3, 1, offsets, pad=2)),
        "post-process": (
            f"relion_postprocess --i rec{box}/half1.mrc --i2 rec{box}/half2.mrc --mask mask{box}.mrc --o post{box}/map",
            map_memory(box),
        ),
        "CTF refinement": (
            f"relion_tomo_refine_ctf {judged} --o ctf{box}/ --do_defocus --d0 -1000 --d1 1000 --do_scale "
            "--per_frame_scale --do_even_aberrations --ne 4 --do_odd_aberrations --no 3",
            tomo_memory(box, work, 1, 2, sums=True),
        ),
        "polishing": (
            f"relion_tomo_align {judged} --o polish{box}/ --r 20 --motion --s_vel 0.2 --s_div 5000",
            tomo_memory(box, work, 1, 2, sums=True),
        ),
    }


def split_halves(particles: Path) -> None:
    """Give particles their half sets, as a refinement would: averages then come with half maps."""
    blocks = read_star(particles)
    table = blocks["particles"]
    blocks["particles"] = table.assign(rlnRandomSubset=1 + np.arange(len(table)) % 2)
    write_star(blocks, particles)


def main() -> None:
    """Measure, print, and fail where less is given than it takes."""
    boxes = [int(box) for box in sys.argv[1:]] or BOXES
    short = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_dataset(directory, Settings(**DATA))
        split_halves(directory / "particles.star")
        work = Workload(DATA["particles"], 13, (DATA["image_size"],) * 2)
        print(f"{'program':15} {'box':>4} {'measured':>9} {'formula':>9} {'asked for':>10}   GB", flush=True)
        for box in boxes:
            for program, (command, formula) in steps(box, work).items():
                measured = peak(directory, command)
                print(f"{program:15} {box:4} {measured:9.3f} {formula:9.3f} {granted(formula):10}", flush=True)
                if measured > formula:
                    short.append(f"{program}, box {box}")
    if short:
        sys.exit(f"the formula gives less than it takes: {'; '.join(short)}")


if __name__ == "__main__":
    main()
