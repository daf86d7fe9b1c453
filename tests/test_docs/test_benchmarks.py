"""The page of benchmarks shows numbers of the log, and no others."""

import re
from pathlib import Path
from statistics import mean

import pytest

DOCS = Path(__file__).parents[2] / "docs"
COLUMNS = {"MMCV": "mmcv", "plain PyTorch": "reference"}  # the page's name -> the log's


def tables(path):
    """Heading of a section -> its tables, each a list of rows from header to cell."""
    result = {}
    for section in re.split(r"^#+ ", path.read_text(), flags=re.M):
        blocks = re.findall(r"(?:^\|.*\n)+", section + "\n", re.M)
        result[section.partition("\n")[0]] = [rows(block) for block in blocks]
    return result


def rows(block):
    cells = [[c.strip(" `") for c in line[1:-1].split("|")] for line in block.splitlines()]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def fill(table, column):
    """Rows whose empty first cell means "the same as above"."""
    above = None
    for row in table:
        row[column] = above = row[column] or above
    return table


@pytest.fixture(scope="module")
def log():
    speed, ratios, memory = tables(DOCS / "benchmarks" / "log.md")["The complete run"]
    return fill(speed, "work"), ratios, memory


@pytest.fixture(scope="module")
def page():
    return tables(DOCS / "benchmarks.md")


def work(row):
    return f"{row['Operator']} {row['Input']}".replace("×", "x")


def find(table, **wanted):
    (row,) = (row for row in table if wanted.items() <= row.items())
    return row


@pytest.mark.parametrize(
    "question, which",
    [
        ("How fast is a forward pass?", "forward"),
        ("How fast is a training step?", "forward+backward"),
    ],
)
def test_times_are_those_of_the_log(page, log, question, which):
    table = fill(page[question][0], "Operator")
    for row in table:
        logged = find(log[0], work=work(row), dtype="float32", threads="2", **{"pass": which})
        for column in row.keys() - {"Operator", "Input"}:
            assert row[column] == logged[COLUMNS.get(column, column)], (work(row), column)
    assert {row["Operator"] for row in table} == {row["work"].split()[0] for row in log[0]}


@pytest.mark.parametrize(
    "question, column",
    [
        ("What does a second thread gain?", "2 threads against 1"),
        ("What does bfloat16 gain?", "bfloat16 against float32"),
    ],
)
def test_gains_are_those_of_the_log(page, log, question, column):
    for row in fill(page[question][0], "Operator"):
        for which in ("forward", "forward + backward"):
            logged = find(log[1], work=work(row), **{"pass": which.replace(" ", "")})
            assert row[which] == logged[column], work(row)


def test_memory_is_that_of_the_log(page, log):
    for row in fill(page["How much memory does it take?"][0], "Operator"):
        logged = [
            find(log[2], work=work(row), **{"pass": which})
            for which in ("forward", "forward+backward")
        ]
        for column in row.keys() - {"Operator", "Input"}:
            both = [each[COLUMNS.get(column, column)] for each in logged]
            assert row[column] == " / ".join(filter(None, both)), (work(row), column)


def test_results_of_the_mask_rcnn_demo_are_the_means_of_the_log(page):
    logged = tables(DOCS / "benchmarks" / "log.md")["Demo"][0]
    table = page["What do the demos reach?"][0]
    for kind in ("deformable", "plain"):
        (row,) = (r for r in table if "Mask R-CNN" in r["Model"] and kind in r["Model"])
        runs = [r for r in logged if r["ResNet-50"].startswith(kind)]
        box, mask = (mean(float(run[f"{what} AP"]) for run in runs) for what in ("box", "mask"))
        assert row["Seeds"] == str(len(runs))
        assert row["Result"] == f"{box:.3f} box AP, {mask:.3f} mask AP"
