"""That the benchmarks work: every section once and shortly. No figure is looked at: a test that fails on a slow machine says nothing."""
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize("section", ["warm", "cold", "density", "scale", "replay", "many-functions", "overload", "management"])
def test_a_section_runs_and_prints_its_table(section):
    done = subprocess.run([sys.executable, f"{ROOT}/bench/run", "--quick", "--only", section], capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "## " in done.stdout and "| " in done.stdout, done.stdout
    assert "ERRORS" not in done.stdout and "FAILED" not in done.stdout, done.stdout


def test_a_plot_is_well_formed_and_says_what_it_shows(tmp_path, monkeypatch):
    import xml.etree.ElementTree as ElementTree

    monkeypatch.syspath_prepend(f"{ROOT}/bench")
    import plots

    monkeypatch.setattr(plots, "FOLDER", str(tmp_path))
    plots.bars("bars", "Figures < goals & more", {"ours (URL)": 2.5, "a peer": 120}, {"ours (URL)": 3.5})
    picture = ElementTree.parse(tmp_path / "bars.svg").getroot()
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Figures < goals & more", "ours (URL)", "2.5", "120"} <= words


def test_the_board_keeps_the_rows_that_a_run_did_not_measure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(f"{ROOT}/bench")
    import report

    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nIntroduction.\n")
    monkeypatch.setattr(report, "PATH", str(page))
    for row, measured in (("10", 2500), ("2", 4.0), ("10", 1500)):
        board = report.Board()
        board.at_most(row, "what", 2000 if row == "10" else 2, measured, "ms")
        document = report.Document(["Section"])
        document.put_board(board)
        document.write()
    rows = [line for line in page.read_text().split("\n") if line.startswith("| ")][1:]
    assert [line.split(" | ")[:5] for line in rows] == [["| 2", "what", "≤ 2 ms", "4 ms", "**missed by 2×**"], ["| 10", "what", "≤ 2,000 ms", "1,500 ms", "met"]]
