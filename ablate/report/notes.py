"""Captions of tables and notes below them: each sentence only where the table has what it explains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from ablate.analyze.families import EXPLORATORY
from ablate.analyze.study import Analysis
from ablate.report import told
from ablate.report.phrases import capital, margin
from ablate.track.read import Results

OVER_TEXT = "over test data too"


@dataclass(frozen=True)
class Note:
    """A sentence about a table.

    Attributes:
        columns: first words of the headings that it is about; (): the whole table.
        mark: what it explains, if it stands in one of these columns; "": the columns themselves.
    """

    says: str
    columns: Sequence[str] = ()
    mark: str = ""

    def applies(self, text: pd.DataFrame) -> bool:
        """Whether a table has what the sentence is about."""
        found = [
            heading
            for heading in map(str, text.columns)
            if any(heading == name or heading.startswith(f"{name} ") for name in self.columns)
        ]
        if not self.columns or not self.mark:
            return bool(found) or not self.columns
        return any(self.mark in str(value) for heading in found for value in text[heading])


def told_of(notes: Iterable[Note], text: pd.DataFrame) -> str:
    """The sentences that apply to a table, as one text."""
    return " ".join(note.says for note in notes if note.applies(text))


_CHANCE = "with the 95 % interval of that chance"
_PAIRING = Note(
    "pairing: the correlation r over seeds, and the width of the interval to that of one without pairs (below ×1 "
    "pairing gained).",
    ("pairing",),
)
_OVER_TEXT = Note(
    f"{OVER_TEXT}: the 95 % interval that holds for other test data of the kind as well as for other seeds.",
    (OVER_TEXT,),
)


def comparison_caption(results: Results, analysis: Analysis) -> list[Note]:
    """What the comparison measures, in how many seeds, and what its intervals are."""
    table, metric = analysis.comparison, analysis.metric
    return [
        Note(f"{capital(metric.name)}{_on_data(results)} ({metric.better} is better), {_seeds(table['n'])}."),
        Note("Values: mean ± standard deviation over seeds.", ("train", "valid", "test"), "±"),
        Note(_brackets(analysis), ("difference",), "["),
    ]


def comparison_notes(results: Results, analysis: Analysis) -> list[Note]:
    """What the columns and the marks of the comparison mean."""
    train, at_work = f"train {analysis.metric.name}", "knob.dropout" in results.trials
    of_train = f"{capital(train)}: of the last {told.steps(analysis.task)} trained on"
    return [
        Note("n: finished trials.", ("n",)),
        Note(f"{of_train}{', with dropout at work' if at_work else ''}.", (train,)),
        Note("n = 1: a difference of one seed has no interval.", ("difference",), "(n = 1)"),
        Note("no spread: all seeds gave the same difference.", ("difference",), "(no spread)"),
        Note(
            "no interval: none that holds however often one looks, for rows of two pairs of seeds or without pairs.",
            ("difference",),
            "(no interval)",
        ),
        Note(f"p: {_test(analysis)}, corrected for what counts together (Holm); the intervals are not.", ("p",)),
        *_of_verdicts(analysis, "of the row", "of the baseline"),
        _OVER_TEXT,
        Note(f"wins: seeds in which the row is better than the baseline, {_CHANCE}.", ("wins",)),
        _PAIRING,
        *(Note(f"Test {other.name} is not compared.", (f"test {other.name}",)) for other in analysis.others),
    ]


def effects_caption(results: Results, analysis: Analysis, table: pd.DataFrame, by: str) -> list[Note]:
    """What a table of effects measures, in how many seeds, and what its intervals are.

    Args:
        by: what makes the change, and which sign is the better one: "by having the part (below zero it helps)".
    """
    metric = analysis.metric
    kinds = {*table["difference_kind"]}
    paired = "paired by seed" + (" (Welch's where two cells share no seeds)" if "unpaired" in kinds else "")
    averaged = f"averaged over seeds{f' as log-{metric.name}' if metric.scale == 'log' else ''}, {paired}"
    return [
        Note(f"Change of test {metric.name}{_on_data(results)} {by}, {averaged}; {_seeds(table['n'])}."),
        *([Note(f"95 % intervals{_looked(analysis)}.", ("95 % interval",))] if analysis.stopping else []),
    ]


def effects_notes(analysis: Analysis, effects: pd.DataFrame) -> list[Note]:
    """What the columns and the marks of a table of effects mean."""
    return [
        Note(_corrected(analysis, effects), ("p",)),
        *_of_verdicts(analysis, "with the part or level", "without it"),
        _OVER_TEXT,
        Note(f"wins: seeds in which the change is for the better, {_CHANCE}.", ("wins",)),
        _PAIRING,
    ]


def _on_data(results: Results) -> str:
    names: list[str] = sorted(results.trials["data"].dropna().unique()) if "data" in results.trials else []
    return f" on {', '.join(filter(None, names))}" if any(names) else ""


def _seeds(counts: pd.Series[int]) -> str:
    fewest, most = counts.min(), counts.max()
    if fewest == most:
        return "one seed: no spread can be given" if most == 1 else f"n = {most} seeds"
    return f"n = {fewest} to {most} seeds"


def _brackets(analysis: Analysis) -> str:
    table = analysis.comparison
    kinds = {*table.loc[table["low"].notna(), "difference_kind"]}
    how = {
        frozenset({"paired"}): ", paired by seed",
        frozenset({"unpaired"}): " (Welch's: no seeds in common)",
    }.get(frozenset(kinds), ", paired by seed (Welch's where two rows share no seeds)")
    return f"Brackets: 95 % intervals of the difference{how}{_looked(analysis)}."


def _looked(analysis: Analysis) -> str:
    return ", valid although seeds were added until enough" if analysis.stopping else ""


def _test(analysis: Analysis) -> str:
    return "t test that is valid at every look" if analysis.stopping else "t test"


def _of_verdicts(analysis: Analysis, with_: str, without: str) -> list[Note]:
    within = "" if analysis.margin is None else f" within {margin(analysis.metric, analysis.margin)}"
    explained = {
        "equivalent": f"{'the tests put' if analysis.stopping else 'two one-sided tests put'} the difference{within}",
        "undecided": "neither a difference nor its absence was shown",
        "diverged": f"trials that diverged; with: {with_}, without: {without}",
        "diverges": "every trial of one side diverged",
        "not comparable": "evaluated on other data than the baseline",
        "exploratory": "not of the question that the study was made for: corrected among themselves, and worth a study "
        "of their own before anybody relies on them",
    }
    return [Note(f"{mark}: {says}.", ("verdict",), mark) for mark, says in explained.items()]


def _corrected(analysis: Analysis, effects: pd.DataFrame) -> str:
    """What counts together."""
    if not (analysis.comparison["n"] > 1).any():
        return "Nothing is tested: that takes two seeds or more."
    if not analysis.tests:
        return (
            "None of the comparisons that the study was made for could be tested; p-values of the rest are corrected "
            "(Holm) among themselves."
        )
    over = "one comparison" if analysis.tests == 1 else f"{analysis.tests} comparisons"
    rest = ", those of the rest among themselves" if (effects["family"] == EXPLORATORY).any() else ""
    return f"P-values are corrected (Holm) over the {over} that the study was made for{rest}."
