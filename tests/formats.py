"""Tilt series as AreTomo, IMOD and Warp write them, made from known truth by the formats' own geometry."""

from __future__ import annotations

import numpy as np
import pandas as pd

from py2rely_core.data.geometry import tilt_matrices
from py2rely_core.data.tables import write_star
from py2rely_core.maps.io import write_map
from py2rely_core.simulation.simulate import Settings, tilt_table

PIXEL, SIZE, THICKNESS = 4.0, 96, 40
SETTINGS = Settings(pixel_size=PIXEL, image_size=SIZE, thickness=THICKNESS, tilt_range=50, tilt_step=10, dose=3.0)
#: Images of the made tilt series that AreTomo takes for dark, as places in the order of the angles.
DARK = (0, 9)


def truth(number: int = 1) -> pd.DataFrame:
    """Tilts ordered by angle, dose-symmetric: the order of acquisition is not that of the angles."""
    tilts = tilt_table(SETTINGS, number, np.random.default_rng(number))
    tilts["rlnDefocusV"] = tilts["rlnDefocusU"] - 300
    tilts["rlnDefocusAngle"] = np.linspace(10, 50, len(tilts))
    return tilts


def stack(path, count, pixel=PIXEL, size=SIZE):
    images = np.random.default_rng(1).normal(size=(count, size, size)).astype(np.float32)
    write_map(path, images, pixel)


def write_aretomo(
    folder, name="TS_01", number=1, first=1, dark=(), stack_order=None, offset=0.0, ctf_of_dark=False, gmag=1.0,
    doses=True, order_list=False, pixel=PIXEL, volume=True,
):  # fmt: skip
    """What AreTomo2 (`first` 0) and AreTomo3 (`first` 1) write for the truth; images are in `stack_order`."""
    folder.mkdir(parents=True, exist_ok=True)
    tilts = truth(number)
    count = len(tilts)
    order = np.arange(count) if stack_order is None else np.asarray(stack_order)
    section = np.empty(count, dtype=int)
    section[order] = np.arange(count)
    kept = [i for i in range(count) if i not in dark]
    lines = ["# AreTomo Alignment / Priims bprmMn", f"# RawSize = {SIZE} {SIZE} {count}", "# NumPatches = 1"]
    lines += [f"# DarkFrame =  {i:4d} {section[i] + first:4d} {tilts['rlnTomoYTilt'][i]:8.2f}" for i in dark]
    lines += [f"# AlphaOffset = {offset:8.2f}", "# BetaOffset =     0.00", "# Thickness = 30"]
    lines += ["# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT"]
    for i in kept:
        row = tilts.loc[i]
        tx, ty = row["rlnTomoXShiftAngst"] / PIXEL, row["rlnTomoYShiftAngst"] / PIXEL
        ones = "     1.00     1.00     1.00     0.00"
        lines.append(
            f"{section[i] + first:5d}  {row['rlnTomoZRot']:9.4f}  {gmag:9.5f}  {tx:9.3f}  {ty:9.3f}  {ones}  "
            f"{row['rlnTomoYTilt'] + offset:8.2f}"
        )
    lines += ["# Local Alignment", "   0   0   1.00   1.00  99.00  99.00   1.0"]
    (folder / f"{name}.aln").write_text("\n".join(lines) + "\n")
    ctf = ["# Columns: #1 micrograph number; #2 - defocus 1 [A]; ..."]
    for n, i in enumerate(range(count) if ctf_of_dark else kept, start=1):
        row = tilts.loc[i]
        values = f"{row['rlnDefocusU']:8.2f}  {row['rlnDefocusV']:8.2f}  {row['rlnDefocusAngle']:8.2f}"
        ctf.append(f"{n:4d}   {values}      0.50    0.1000    8.0")
    (folder / f"{name}_CTF.txt").write_text("\n".join(ctf) + "\n")
    acquired = np.argsort(np.argsort(tilts["rlnMicrographPreExposure"])) + 1
    if doses is not None:
        dose = f"  {SETTINGS.dose:8.2f}" if doses else ""
        listed = [f"{tilts['rlnTomoYTilt'][i]:8.2f}  {acquired[i]:4d}{dose}" for i in order]
        (folder / f"{name}_TLT.txt").write_text("\n".join(listed) + "\n")
    if order_list:
        (folder / f"{name}_Imod").mkdir()
        by_time = np.argsort(acquired)
        rows = [f"{acquired[i]:4d},{tilts['rlnTomoYTilt'][i] + offset:.2f}" for i in by_time]
        text = "ImageNumber, TiltAngle\n" + "\n".join(rows) + "\n"
        (folder / f"{name}_Imod/{name}_order_list.csv").write_text(text)
    stack(folder / f"{name}.mrc", count, pixel)
    if volume:
        # The tilt axis is near x: AreTomo turns the images.
        write_map(folder / f"{name}_Vol.mrc", np.ones((THICKNESS // 4, SIZE // 4, SIZE // 4)), 4 * pixel)
    return tilts


def write_mdoc(path, tilts, by_time=False, prior=False, dose=SETTINGS.dose, times=True, pixel=PIXEL, size=None):
    """The microscope's file: sections in the order of the rows, or of acquisition; with times, doses, or both."""
    order = np.argsort(tilts["rlnMicrographPreExposure"]) if by_time else range(len(tilts))
    text = [f"PixelSpacing = {pixel:g}", *([f"ImageSize = {size[0]} {size[1]}"] if size else []), "[T = SerialEM]"]
    for n, row in enumerate(tilts.iloc[i] for i in order):
        second = int(row["rlnMicrographPreExposure"] / SETTINGS.dose)
        text += ["", f"[ZValue = {n}]", f"TiltAngle = {row['rlnTomoYTilt']}", "StagePosition = 20.7936 155.287"]
        text += [f"ExposureDose = {dose}"] if dose is not None else []
        text += [f"PriorRecordDose = {row['rlnMicrographPreExposure']}"] if prior else []
        text += [f"DateTime = 05-Nov-23  14:{second:02d}:10"] if times else []
    path.write_text("\n".join(text) + "\n")


def write_imod(folder, name="TS_01", com=True, excluded="", scale=1.0):
    """What etomo leaves: the alignment is the inverse of RELION's, A = Rz(-rotation), d = -A shift."""
    folder.mkdir(parents=True, exist_ok=True)
    tilts = truth()
    angle = np.radians(-tilts["rlnTomoZRot"].to_numpy())
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    shift = tilts[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]].to_numpy() / PIXEL
    moved = -np.einsum("nij,nj->ni", linear, shift)
    rows = np.concatenate([linear.reshape(-1, 4), moved], axis=1)
    (folder / f"{name}.xf").write_text("".join(" ".join(f"{v:12.7f}" for v in row) + "\n" for row in rows))
    (folder / f"{name}.tlt").write_text("".join(f"{a:7.2f}\n" for a in tilts["rlnTomoYTilt"]))
    lines = ["1  0 0. 0. 0  3"]
    for n, row in enumerate(tilts.itertuples(), start=1):
        values = f"{row.rlnDefocusU / 10:.4f} {row.rlnDefocusV / 10:.4f} {row.rlnDefocusAngle:.3f}"
        lines.append(f"{n} {n} {row.rlnTomoYTilt:.2f} {row.rlnTomoYTilt:.2f} {values}")
    (folder / f"{name}.defocus").write_text("\n".join(lines) + "\n")
    write_mdoc(folder / f"{name}.st.mdoc", tilts)
    if com:
        values = [f"FULLIMAGE {SIZE} {SIZE}", f"THICKNESS {THICKNESS}", "OFFSET 0.0", "SHIFT 0.0 0.0", "XAXISTILT 0.0"]
        values += [f"EXCLUDELIST2 {excluded}"] if excluded else []
        (folder / "tilt.com").write_text(
            "$tilt -StandardInput\n" + "\n".join(values) + "\n$if (-e ./savework) ./savework\n"
        )
    stack(folder / f"{name}.st", len(tilts))
    return tilts


def matrices(tilts: pd.DataFrame) -> np.ndarray:
    """Projection matrices as RELION 4 has them: from voxels to pixels, both counted from a corner."""
    turned, full = tilt_matrices(tilts), np.tile(np.eye(4), (len(tilts), 1, 1))
    shift = tilts[["rlnTomoXShiftAngst", "rlnTomoYShiftAngst"]].to_numpy() / PIXEL
    full[:, :3, :3] = turned
    full[:, :3, 3] = -turned @ np.array([SIZE / 2, SIZE / 2, THICKNESS / 2])
    full[:, :2, 3] += shift + SIZE // 2
    return full


def write_warp(folder, dummy=False):
    folder.mkdir(parents=True)
    tilts = truth()
    table = tilts.drop(columns=[label for label in tilts if label.startswith("rlnTomo")])
    for i, axis in enumerate("XYZW"):
        table[f"rlnTomoProj{axis}"] = ["[" + ",".join(f"{v:.9f}" for v in row) + "]" for row in matrices(tilts)[:, i]]
    stack_name = "dummy_tiltseries.mrc" if dummy else "TS_01.mrc"
    row = {
        "rlnTomoName": "TS_01", "rlnTomoTiltSeriesName": stack_name, "rlnTomoSizeX": SIZE, "rlnTomoSizeY": SIZE,
        "rlnTomoSizeZ": THICKNESS, "rlnTomoHand": -1.0, "rlnTomoTiltSeriesPixelSize": PIXEL, "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.07, "rlnOpticsGroupName": "opticsGroup1",
    }  # fmt: skip
    write_star({"global": pd.DataFrame([row]), "TS_01": table}, folder / "x_tomograms.star")
    files = {"rlnTomoParticlesFile": "x.star", "rlnTomoTomogramsFile": "x_tomograms.star"}
    write_star({"": pd.DataFrame([files])}, folder / "x_optimisation_set.star")
    if dummy:
        write_map(folder / stack_name, np.zeros((2, 2, 2)), 1.0)
    else:
        stack(folder / stack_name, len(tilts))
    return tilts
