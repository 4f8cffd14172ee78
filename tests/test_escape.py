"""What anybody may call a cell, a metric, a data set: text in every file of a report, and nothing else."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import results, trials
from markdown_it import MarkdownIt

from ablate.metric import Metric
from ablate.report import write_report
from ablate.report.escape import markdown, markdown_line, write_csv

HOSTILE = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "x\r=1",
    "# heading", "- item", "1. item", "> quote", "![image](http://example.org/x.png)", "[link](javascript:alert(1))",
    "<http://example.org>", "a|b", "`code`", "***bold***", "~~gone~~", "&lt;b&gt;", "a\nb", "a\u2028b", "\\", "\\|",
    "$x^2$", "<!-- comment -->", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>", "--><script>alert(1)</script>", "{{ 7 * 7 }}", "\\input{/etc/passwd}", "[2em]", "*",
    "%", "~^",
]  # fmt: skip
OUR_MATH = r"(?<!\\)\$(-|\\[a-z]+)\$"  # signs that LaTeX has in formulas alone
EVERYTHING = "\"'><img src=x onerror=alert(1)>|`*_#$x$\\input{y}&%{z}[l](h)\r\n# h"


def rendered(text):
    """The tokens of a Markdown page, as GitHub would take it."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def text_of(tokens):
    """What a reader sees of inline tokens; fails on any markup."""
    found = []
    for token in tokens:
        if token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "text_special"}, token.content
            found.append("".join(child.content for child in token.children))
    return found


def one_line(text):
    return " ".join(text.splitlines()).strip()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_every_cell_and_heading_of_a_markdown_table(name):
    tokens = rendered(markdown(pd.DataFrame({"cell": [name, "b"], f"difference to {name}": ["1", name]})))
    kinds = [token.type for token in tokens if token.level == 0]
    assert kinds == ["table_open", "table_close"]
    seen = ["cell", one_line(f"difference to {name}"), one_line(name), "1", "b", one_line(name)]
    assert text_of(tokens) == seen


@pytest.mark.parametrize("name", HOSTILE)
def test_a_note_that_begins_with_a_name_is_a_paragraph(name):
    tokens = rendered(markdown_line(f"{name} on kjv; lower is better."))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert text_of(tokens) == [one_line(f"{name} on kjv; lower is better.")]


def opened(table, folder):
    """The cells of a table's CSV file, as a spreadsheet reads them."""
    write_csv(table, folder / "t.csv")
    return list(csv.reader(StringIO((folder / "t.csv").read_text(encoding="utf-8"), newline="")))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_in_a_spreadsheet_is_a_formula_wherever_it_stands(name, tmp_path):
    rows = opened(pd.DataFrame({"cell": [name], name: pd.Series([name], dtype=object), "n": [-1]}), tmp_path)
    assert all(len(row) == 3 for row in rows)
    for value in (*rows[0], *rows[1][:2]):
        assert not value.startswith(tuple("=+-@\t\r＝＋－＠"))
        assert "\r" not in value


def test_numbers_stay_numbers_also_where_a_column_holds_words_too(tmp_path):
    table = pd.DataFrame(
        {
            "change": [-1.5, np.nan, 1e-7],
            "knob.lr": pd.Series([-3, None, "adam"], dtype=object),
            "factor.lr": ["-1.5", "+1e-3", "-.5"],
            "on": [True, False, True],
        }
    )
    assert opened(table, tmp_path)[1:] == [
        ["-1.5", "-3", "-1.5", "True"], ["", "", "+1e-3", "False"], ["1e-07", "adam", "-.5", "True"],
    ]  # fmt: skip


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_that_is_no_formula_is_read_back_as_it_was(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "back.csv"
    write_csv(pd.DataFrame({"cell": [text]}), path)
    (read,) = pd.read_csv(path, keep_default_na=False, dtype=str, skip_blank_lines=False)["cell"]
    assert read.removeprefix("'") == text.removeprefix("'").replace("\r\n", "\n").replace("\r", "\n")


def test_every_csv_of_a_report_is_inert_and_its_parquet_holds_what_was_recorded(tmp_path):
    bad = "=cmd|'x'!A0"
    table = trials({bad: [4.0, 4.1, 4.2], "b": [3.9, 4.0, 4.1]}, data=bad, log=bad)
    table["knob.clip"] = pd.Series([bad, -1.5, None] * 2, dtype=object)
    table.loc[0, ["status", "reason", "test_nll", "test_perplexity"]] = ["FAILED", bad, None, None]
    report = write_report(results(table), tmp_path)
    files = sorted(report.folder.glob("*.csv"))
    assert {path.name for path in files} >= {"results.csv", "curves.csv", "comparison.csv", "factors.csv"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert bad in text
        assert not [v for row in csv.reader(StringIO(text)) for v in row if v.startswith("=")], path.name
    raw = pd.read_parquet(report.folder / "results.parquet")
    assert raw["cell"].tolist() == table["cell"].tolist()
    assert raw["reason"].tolist() == table["reason"].tolist()


class Tags(HTMLParser):
    """What a browser would make of a page: its tags, the attributes that do something, and its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.scripts = set(), set(), []
        self.feed(page)

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def is_of_the_page(script):
    """Our own script, or the marks of a figure, which are data."""
    return (
        "listen(script.closest" in script and EVERYTHING not in script if "=>" in script else bool(json.loads(script))
    )


@pytest.mark.figures
def test_names_are_text_in_every_file_of_a_report(tmp_path):
    """Of cells, levels, data, reasons, samples, knobs, metrics and the baseline, which stands in headings."""
    first, other = Metric(f"p{EVERYTHING}"), Metric(f"={EVERYTHING}")
    table = trials({"b": [3.9, 4.0, 4.05], EVERYTHING: [4.0, 4.1, 4.2]}, data=EVERYTHING)
    table = table.drop(columns=[name for name in table if "nll" in name]).rename(
        columns=lambda name: name.replace("perplexity", first.name)
    )
    table[f"best_valid_{first.name}"] = table[f"floor_{first.name}"] = None
    table[f"test_{other.name}"], table[f"knob.{EVERYTHING}"] = 1.0, EVERYTHING
    table.loc[0, ["status", "reason", f"test_{first.name}"]] = ["FAILED", EVERYTHING, None]
    points = pd.DataFrame(
        {"cell": table["cell"], "seed": table["seed"], "split": "valid", "step": 1, "seen": 10, "seconds": 1.0}
        | {first.name: 2.0, other.name: 1.0}
    )
    made = replace(results(table, points=points), metrics=[first, other], samples={EVERYTHING: EVERYTHING})
    folder = write_report(replace(made, command=EVERYTHING), tmp_path, baseline=EVERYTHING).folder
    for path in folder.iterdir():
        if path.suffix in (".html", ".svg"):
            found = Tags(path.read_text(encoding="utf-8"))
            assert not found.tags & {"img", "iframe"}, path.name
            assert not found.attributes & {"src"}, path.name
            assert [text for text in found.scripts if not is_of_the_page(text)] == [], path.name
            assert not [name for name in found.attributes if name.startswith("on")], path.name
        if path.suffix == ".md":
            tokens = rendered(path.read_text(encoding="utf-8"))
            kinds = [token.type for token in tokens if token.level == 0]
            assert kinds == ["table_open", "table_close", "paragraph_open", "paragraph_close"]
            assert any(one_line(EVERYTHING) in text for text in text_of(tokens))
        if path.suffix == ".tex":
            latex = re.sub(OUR_MATH, "", path.read_text(encoding="utf-8").partition("\n")[2])
            assert "\\input{" not in latex
            assert not re.search(r"(?<!\\)[$_#%]", latex), path.name


def test_a_row_of_a_latex_table_that_begins_with_a_bracket_or_a_star_is_no_argument(tmp_path):
    report = write_report(results(trials({"a": [4.0], "[2em]": [4.0], "*": [4.0]})), tmp_path)
    latex = (report.folder / "comparison.tex").read_text(encoding="utf-8")
    assert "\n{}[2em] & " in latex
    assert "\n{}* & " in latex
