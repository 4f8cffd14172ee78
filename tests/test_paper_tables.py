"""Tables as a paper has them: caption, label, notes, the columns and decimals that were asked for."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from made import one_out, results, trials

from ablate.analyze.study import analyse
from ablate.knobs import KnobError
from ablate.report.files import Files
from ablate.report.latex import latex_table
from ablate.report.notes import comparison_caption, comparison_notes
from ablate.report.tables import comparison_table, write_table

EFFECTS = {"gating": -0.2, "depth": 0.002}


def written(table, folder, *, name="s", columns=None, digits=None, suffix="tex"):
    """The file of the comparison of a study with these trials."""
    made = results(table, name=name)
    analysis = analyse(made)
    files = Files(folder, name, columns, digits)
    caption, notes = comparison_caption(made, analysis), comparison_notes(made, analysis)
    write_table(comparison_table(analysis, caption, notes, files), files)
    return (folder / f"comparison.{suffix}").read_text(encoding="utf-8")


def test_the_caption_says_what_is_measured_in_how_many_seeds_and_what_the_interval_is(tmp_path):
    latex = written(one_out(EFFECTS), tmp_path, name="leave_one_out")
    assert (
        r"\caption{Perplexity on kjv (lower is better), n = 5 seeds. Values: mean $\pm$ standard deviation over seeds. "
        r"Brackets: 95\,\% intervals of the difference, paired by seed.}"
    ) in latex
    assert r"\label{tab:leave-one-out-comparison}" in latex


def test_one_seed_has_no_spread_and_the_caption_says_so(tmp_path):
    latex = written(trials({"a": [4.0], "b": [3.9]}), tmp_path)
    assert r"(lower is better), one seed: no spread can be given.}" in latex
    assert r"$-$9.5\,\% (n = 1)" in latex
    assert "n = 1: a difference of one seed has no interval." in latex


def test_the_note_explains_what_is_in_the_table_and_nothing_else(tmp_path):
    table = one_out(EFFECTS)
    page = written(table, tmp_path, suffix="md")
    assert "pairing: " in page
    latex = (tmp_path / "comparison.tex").read_text(encoding="utf-8")
    assert "undecided: " in latex
    assert "p: t test" in latex
    for absent in ("wins", "pairing", "exploratory", "diverged", "n = 1", "Train"):
        assert absent not in latex
    short = written(table, tmp_path, columns=["cell", "test"])
    assert "Brackets" not in short
    assert r"\parbox" not in short


def test_columns_and_decimals_are_those_asked_for_in_markdown_and_latex(tmp_path):
    latex = written(one_out(EFFECTS), tmp_path, columns=["cell", "n", "difference", "test perplexity"], digits=2)
    page = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert page.startswith("| cell | n | difference to the first row | test perplexity |\n| --- | ---: |")
    assert re.search(r"\| without gating \| 5 \| \+\d\d\.\d\d % \\\[.*\| \d\d\.\d\d ± \d\.\d\d \|", page)
    assert re.search(r"without gating & 5 & \+\d\d\.\d\d\\,\\% \[.* & \d\d\.\d\d \$\\pm\$ \d\.\d\d \\\\", latex)


def test_the_page_keeps_all_columns_and_its_decimals(tmp_path):
    table = one_out(EFFECTS)
    plain = written(table, tmp_path, suffix="html")
    assert written(table, tmp_path, columns=["cell", "n"], digits=4, suffix="html") == plain
    assert "parameters" in plain


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        (["cell", "tset"], r"no column 'tset'; did you mean 'test'\?; there are cell,parameters,tokens,time,n,"),
        (["n", "n"], "'n' is named twice"),
        (["test", "test perplexity"], "'test' is named twice"),
    ],
)
def test_a_column_that_is_unknown_or_named_twice_is_refused_with_those_there_are(tmp_path, columns, refusal):
    with pytest.raises(KnobError, match=refusal):
        written(one_out(EFFECTS), tmp_path, columns=columns)


def test_decimal_points_stand_below_each_other():
    text = pd.DataFrame({"cell": ["a", "b", "c"], "x": ["9.5 ± 10.25 %", "1,010.5 ± 0.5 %", "–"]})
    rows = latex_table(text, ["cell"], "c", "", "l").splitlines()
    assert r"a & 9.5 $\pm$ 10.25\,\% \\" in rows
    assert r"b & 1,010.5 $\pm$ \phantom{1}0.5\phantom{5}\,\% \\" in rows
    assert "c & – \\\\" in rows


def test_a_table_without_notes_has_none_and_a_label_is_one_for_ref():
    latex = latex_table(pd.DataFrame({"cell": ["a"]}), ["cell"], "c", "", "a_b beside {%}")
    assert r"\label{tab:a-b-beside}" in latex
    assert "parbox" not in latex


def test_marks_of_verdicts_are_explained_where_they_stand(tmp_path):
    table = trials({"a": [4.0, 4.1, 4.2], "b": [4.5, 4.61, None], "c": [4.0001, 4.1002, 4.2]})
    table["status"] = table["status"].replace("FAILED", "DIVERGED")
    latex = written(table, tmp_path)
    assert r"equivalent: two one-sided tests put the difference within $\pm$1.0\,\%." in latex
    assert "undecided" not in latex
    assert "diverged: trials that diverged; with: of the row, without: of the baseline." in latex
    assert "n = 2 to 3 seeds" in latex
    assert "n: finished trials." in latex
