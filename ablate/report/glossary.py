"""What the headings of the tables mean, in plain words: a line each at the end of the page, and a link to it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ablate.analyze.study import Analysis
from ablate.report import told
from ablate.report.notes import OVER_TEXT
from ablate.report.section import Section, Table
from ablate.track.read import Results

_TESTED = (
    "p-value of no difference, corrected for the comparisons that count together (Holm); the intervals are not "
    "corrected"
)
_EVERYWHERE = {
    "cell": "a configuration: one combination of the levels that the study varies",
    "part": "what the row gives the effect of, and how it was measured where there are several ways",
    "parameters": "numbers that training sets; in a table of parts, how many the part adds",
    "time": "training time of one trial, the mean over seeds",
    "n": "finished trials, one a seed; in a table of parts, seeds that have both sides of the difference",
    "95 % interval": "a range by a method whose ranges hold the true value 95 times in 100",
    "verdict": (
        "better, worse, helps, hurts: told from no difference after correction (p below 0.05); equivalent: within what "
        "was said to be worth a difference; undecided: neither; exploratory: not the question that the study was made "
        "for, corrected separately, and worth a study of its own before anybody relies on it"
    ),
    "p": _TESTED,
    "p (Holm)": _TESTED,
    OVER_TEXT: "the 95 % interval that holds for other test data of the kind as well as for other seeds",
    "wins": "seeds in which the row is better, or the part helps, with the 95 % interval of that chance",
    "pairing": (
        "the correlation r of the two sides over seeds, and the width of the interval relative to one without pairs "
        "(below ×1: pairing helped)"
    ),
    "missing": "trials without a result, and why",
    "seeds": "how many seeds this source was given",
    "standard deviation": "how much this source alone moves a result",
    "share of the variance": "its part of all the noise of a seed",
    "model": "a published one, by the name its source gives it",
    "published": "the figure of the source, ± its standard deviation where it gives one",
    "difference": "of the figure here from the published one",
    "source": "of noise: what a seed decides; of a published figure: the publication",
    "knob or fact": "a setting, or what was recorded of the training",
    "varied": "factor: by the study, on purpose; also: it differs without being a factor",
    "values": "each value, with the cells that have it",
    "baseline → cell": "what differs, from its value in the baseline to that in the cell",
    "reason": "why the design has no such cell, or the trial no result",
    "seed": "the random seed of the trial",
    "status": "how the trial ended",
    "log": "the file with the trial's output",
    "command": "trains this cell alone",
    "what": "what was recorded of all trials",
    "value": "what it was",
}


@dataclass(frozen=True)
class Term:
    """A heading, the id of its line on the page, and what it means."""

    heading: str
    id: str
    means: str


def meanings(results: Results, analysis: Analysis) -> dict[str, str]:
    """Heading → what it means, of every heading that a table of this study may have."""
    metric, task = analysis.metric, analysis.task
    at_work = ", with dropout at work" if "knob.dropout" in results.trials else ""
    over_seeds = "the mean over seeds ± their standard deviation"
    return {
        **_EVERYWHERE,
        told.seen(task): "what one trial trained on, repetitions included, the mean over seeds",
        f"train {metric.name}": f"that of the last {told.steps(task)} trained on{at_work}, the mean over seeds",
        f"valid {metric.name}": f"on the data by which checkpoints and the best cell are chosen; {over_seeds}",
        **{f"test {other.name}": f"on test data; {over_seeds}; not compared" for other in analysis.others},
        f"test {metric.name}": f"on test data, what cells are compared by; {metric.better} is better; {over_seeds}",
        f"test {metric.name} here": "the mean over the seeds of this study (n of them)",
        "valid": f"{metric.name} on validation data",
        "test": f"{metric.name} on test data",
        "difference to the first row": _difference("the first row"),
        **{f"difference to {cell}": _difference(cell) for cell in map(str, analysis.comparison["cell"])},
        f"change of {metric.name}": (
            f"how much test {metric.name} changes by having the part, or from the first level to the second"
        ),
    }


def _difference(baseline: str) -> str:
    return f"of the row from {baseline}, paired by seed; in brackets its 95 % interval"


def glossary(sections: Sequence[Section], meant: Mapping[str, str]) -> dict[str, Term]:
    """The headings of all tables of the page that mean something, in the order of the page."""
    tables = [[table.headings for table in section.tables] + [section.headings] for section in sections if section]
    headings = dict.fromkeys(heading for section in tables for table in section for heading in table)
    known = [heading for heading in headings if heading in meant]
    return {heading: Term(heading, f"term-{i}", meant[heading]) for i, heading in enumerate(known, 1)}


def linked(heading: str, terms: Mapping[str, Term]) -> Markup:
    """A heading that leads to its line in the glossary."""
    if heading not in terms:
        return Markup(html.escape(heading))
    term = terms[heading]
    return Markup('<a href="#{}" title="{}">{}</a>').format(term.id, term.means, heading)


def linked_table(table: Table, terms: Mapping[str, Term]) -> Markup:
    """The HTML of a table, each of whose headings leads to its line in the glossary."""
    text = str(table.html)
    for heading in table.headings:
        text = text.replace(f">{html.escape(heading)}</th>", f">{linked(heading, terms)}</th>")
    return Markup(text)
