"""The STAR format: the same tables as the field's own reader, and a line for what is wrong."""

import pandas as pd
import pytest
import starfile

from py2rely_core.data.tables import labels_of, read_alike, read_star, write_star
from py2rely_core.problems import ProblemError

LOOP = "\ndata_particles\n\nloop_ \n_rlnTomoName #1 \n_rlnX #2 \n_rlnNote #3 \n"
GOOD = {
    "loop": LOOP + "TS_1  1.5 a\n002 -2e3 b\n\n",
    "comments": "# version 50001\n" + LOOP + "TS_1 1 a # said\n# a line\n002 2 b\n",
    "quotes": LOOP + "\"a b\" 1 'c d'\n'e' 2 \"\"\n",
    "values": "data_general\n\n_rlnTomoName TS_7\n_rlnX 3\n_rlnNote 'two words'\n\n",
    "two": "data_optics\n\n_rlnX 1.25\n" + LOOP + " TS_1 1 a \n\t002\t2\tb\t\n",
    "windows": (LOOP + "TS_1 1 a\n002 2 b\n").replace("\n", "\r\n"),
    "no end": LOOP + "TS_1 1 a",
    "no name": LOOP.replace("data_particles", "data_") + "TS_1 1 a\n",
    "integers": LOOP + "TS_1 1 4\n002 2 5\n",
    "several words in one column": LOOP + "TS_1 1 4\n002 x 5\n",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_the_same_as_starfile(tmp_path, text):
    path = tmp_path / "x.star"
    path.write_bytes(text.encode())
    known = starfile.read(path, always_dict=True)
    found = read_star(path)
    assert list(found) == list(known)
    for name, block in known.items():
        table = block if isinstance(block, pd.DataFrame) else pd.DataFrame([block])
        pd.testing.assert_frame_equal(found[name], table)


def test_missing_values_and_tables_without_rows(tmp_path):
    """starfile 0.5.4 leaves a column with nan as text, and loses the names of columns without rows."""
    path = tmp_path / "x.star"
    path.write_text(LOOP + "TS_1 nan <NA>\n002 2.0 nan\n")
    table = pd.DataFrame({"rlnTomoName": ["TS_1", "002"], "rlnX": [float("nan"), 2.0], "rlnNote": [float("nan")] * 2})
    pd.testing.assert_frame_equal(read_star(path)["particles"], table)
    path.write_text(LOOP + "\n\n")
    assert list(read_star(path)["particles"]) == ["rlnTomoName", "rlnX", "rlnNote"]


def test_names_keep_their_marks_and_a_file_may_change(tmp_path):
    """starfile cuts at any # and turns any apostrophe; and gives the old content after an error."""
    path = tmp_path / "x.star"
    path.write_text(LOOP + "TS_1 1\n")
    with pytest.raises(ProblemError):
        read_star(path)
    path.write_text(LOOP + "TS#1 1 it's\n")
    assert read_star(path)["particles"].iloc[0].tolist() == ["TS#1", 1, "it's"]


def test_what_is_written_is_read(tmp_path):
    table = pd.DataFrame(
        {
            "rlnTomoName": ["TS_1", "a b", ""],
            "rlnX": [1.0, 1e-4, float("nan")],
            "rlnN": [1, 2, 3],
            "rlnB": ["x", "y", "z"],
        }
    )
    path = tmp_path / "x.star"
    write_star({"particles": table, "empty": table[:0]}, path)
    found = read_star(path)
    pd.testing.assert_frame_equal(found["particles"], table)
    assert list(found["empty"]) == list(table)


def test_numbers_and_texts_stay_what_they_are(tmp_path):
    """Six decimals are too few for small numbers; blanks and signs of the format need quotation marks."""
    table = pd.DataFrame(
        {
            "rlnTomoName": ["01", "a\tb", "#1", "_x", "'y'", "data_z", "loop_"],
            "rlnSmall": [1.25e-9, 0.0, -3e-4, 2e-7, 0.0, 0.0, 0.0],
            "rlnLarge": [1e12, -0.5, float("inf"), 1e-9, 12345.678901, float("nan"), 2.0],
            "rlnNote": ["x", float("nan"), "y", "z", "x", "1e5", "1_2"],
        }
    )
    path = tmp_path / "x.star"
    write_star({"particles": table}, path)
    found = read_star(path)["particles"]
    table.loc[3, "rlnLarge"] = 0.0
    pd.testing.assert_frame_equal(found, table, rtol=1e-11, atol=0)
    again = tmp_path / "again.star"
    write_star({"particles": found}, again)
    assert again.read_text() == path.read_text()
    for name in ('5" box', "two\nlines"):
        with pytest.raises(ProblemError, match="cannot be written"):
            write_star({"particles": table.assign(rlnNote=name)}, path)


def test_the_field_reads_what_is_written(tmp_path):
    table = pd.DataFrame({"rlnTomoName": ["TS_1", "a b"], "rlnX": [1.5, -2e-7], "rlnN": [1, 2], "rlnIs": [True, False]})
    path = tmp_path / "new/x.star"
    write_star({"optics": table[:1], "particles": table, "none": pd.DataFrame()}, path)
    known = starfile.read(path, always_dict=True)
    pd.testing.assert_frame_equal(known["particles"][["rlnTomoName", "rlnN"]], table[["rlnTomoName", "rlnN"]])
    assert known["particles"]["rlnX"].tolist() == [1.5, 0.0]
    assert len(known["optics"]) == 1


def test_many_blocks_of_one_kind(tmp_path):
    """Trajectories, one block for each particle: as one table; what is wrong is named with its line, also late."""
    tracks = "".join(f"data_TS/{n}\n\nloop_\n_rlnX #1\n_rlnY #2\n{n} 0.5\n{n} nan\n\n" for n in range(2000))
    path = tmp_path / "x.star"
    path.write_text(f"data_general\n\n_rlnParticleNumber 2000\n\n{tracks}")
    names, rows, table = read_alike(path)
    assert (names[7], len(names), set(rows)) == ("TS/7", 2000, {2})
    assert table["rlnX"].tolist() == [n for n in range(2000) for _ in range(2)]
    assert table["rlnY"].isna().sum() == 2000
    assert labels_of(path)["TS/1999"] == ("rlnX", "rlnY")
    for more, text in (
        ("data_TS/7\n\nloop_\n_rlnX #1\n_rlnY #2\n1 2\n", "data_TS/7 is there twice"),
        ("data_other\n\nloop_\n_rlnX #1\n1\n", "data_other has other labels"),
        ("data_other\n\nloop_\n_rlnX #1\n_rlnX #2\n1 2\n", "_rlnX is there twice"),
    ):
        path.write_text(f"{tracks}{more}")
        with pytest.raises(ProblemError, match=text) as error:
            read_alike(path)
        # Where its labels end, after 2000 blocks of 8 lines.
        assert f"line {2000 * 8 + more.count('_rln') + 3}" in str(error.value)
