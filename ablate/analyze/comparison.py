"""The comparison table: one row a cell, each beside a baseline; what else differs; what to know before believing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd

from ablate.analyze import paired as pairs
from ablate.analyze.paired import Difference
from ablate.analyze.table import cells_of, finished, judge, names, nll_table, show, without_finite_loss
from ablate.knobs import KnobError
from ablate.metric import Metric
from ablate.registry import suggest
from ablate.track.units import duration

# Knobs that a reader need not see: they name presets, or have no bearing on a result.
_NOT_CONFOUNDS = {
    "model",
    "recipe",
    "name",
    "runs",
    "reports",
    "force",
    "seed",
    "seeds",
    "sample_words",
    "threads",
    "device",
}
_FACTS = ("parameters", "vocabulary_size", "tokens", "data_digest", "code", "torch", "device", "threads", "precision")
_COMPARED = ["cell", "seed", "status", "reason", "parameters", "tokens", "train_seconds", "test_nll"]
# What warnings_for has a sentence of its own for, or what follows from the factors.
_TOLD_APART = {*_FACTS} - {"torch"}
_SETS_TOKENS = {"factor.train_tokens", "factor.epochs", "factor.windows", "factor.budget"}
_NOT_YET = "not finished"
_WORTH_TELLING = 1.2  # train times that differ by less are noise of the machine


def compare(metric: Metric, trials: pd.DataFrame, baseline: str | None = None) -> pd.DataFrame:
    """Summarise a study.

    Args:
        trials: one row a trial, as `read_study` gives it.
        baseline: label of the cell that the others are compared with; None: the first.

    Returns:
        One row a cell, in the order of the study: `cell`, `parameters`, `tokens`, `train_seconds` (mean), `n`
        (finished trials), `valid_mean`, `valid_sd`, `test_mean`, `test_sd` (of the metric; sd over seeds, NaN with
        one), `effect` (difference of its test score to the baseline's: below 0 it is better), `low`, `high` (its 95 %
        interval, not corrected for the number of rows), `pairs` (seeds that both finished), `missing` (what has no
        result, and why), and

        - `difference_kind`: "paired"; "unpaired" (no seed in common: Welch's t); "" (nothing to compare).
        - `p`, `p_sign_flip`: two-sided, as in `Difference`; `p_holm`: `p` corrected for all rows (Holm).
        - `better`, `better_low`, `better_high`: probability that a new pair of seeds favours this row, and its 95 %
          interval.
        - `sd`: standard deviation of the differences; `deltas`: these themselves, one a seed.
        - `detectable`: the smallest difference of scores that so many pairs show with a power of 80 %;
          `seeds_for_half`: the pairs that show half of it. NaN without pairs.
        - `verdict`: "baseline"; "better" or "worse" (p_holm < 0.05); "not distinguishable"; "one seed"; "no result";
          "not comparable" (evaluated on another text or vocabulary than the baseline: no difference is given).

    Raises:
        KnobError: when there is no cell `baseline`.
    """
    cells = cells_of(trials)
    first = cells[0] if baseline is None else baseline
    if first not in cells:
        near = suggest(first, cells)
        raise KnobError(f"baseline {first}: the study has no such cell{near}; it has {names(cells, 20)}")
    nll = nll_table(trials)
    needed = [*_COMPARED, f"valid_{metric.name}", f"test_{metric.name}"]  # a hundred knobs would make it slow
    by_cell = dict(iter(trials[needed].groupby("cell", sort=False)))
    same = set(comparable(trials, first))
    alike = {cell: cell in same for cell in cells}
    rows = pd.DataFrame([_row(metric, by_cell[cell], nll, first, alike[cell]) for cell in cells])
    judged = judge(rows, "better", "worse")
    judged.loc[~judged["cell"].map(alike).astype(bool), "verdict"] = "not comparable"
    judged.loc[judged["cell"] == first, "verdict"] = "baseline"
    return judged


def difference_between(nll: pd.DataFrame, cell: str, base: str) -> tuple[Difference, str, int]:
    """What is known of `cell` against `base`.

    Args:
        nll: shape [seeds, cells], as `nll_table` gives it.

    Returns:
        (difference, kind, pairs): "paired" over the seeds that both have; "unpaired" where both have seeds and none in
        common; "" where one has none.
    """
    a, b = nll[cell].dropna(), nll[base].dropna()
    both = a.index.intersection(b.index)
    if len(both):
        return pairs.paired((a[both] - b[both]).to_numpy(float)), "paired", len(both)
    if len(a) and len(b):
        return pairs.unpaired(a.to_numpy(float), b.to_numpy(float)), "unpaired", 0
    return Difference(0), "", 0


def confounds(trials: pd.DataFrame) -> pd.DataFrame:
    """What differs between the cells: one row a knob or fact with more than one value, one column a cell.

    The column `factor` says whether the study varied it on purpose; where it is False, the row is a confound. A cell
    whose own trials differ shows all their values.
    """
    # A cell that has not started has no settings on record yet.
    started = trials[trials["parameters"].notna()]
    cells = cells_of(started)
    rows = {}
    for column in _candidates(trials):
        values = _values(started, column)
        if len({*values.values()} - {_NOT_YET}) > 1:
            name = column.removeprefix("knob.")
            rows[name] = {"factor": f"factor.{name}" in trials or column in _set_by_presets(trials), **values}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["factor", *cells])


def confounds_between(trials: pd.DataFrame, a: str, b: str) -> list[tuple[str, str, str]]:
    """What differs between two cells besides what the study varied on purpose.

    Returns:
        (what, value in a, value in b): every other knob (the schedule among them), parameters, tokens, vocabulary,
        corpus, code, torch, device, threads and precision; `train time` where it differs by more than 20 %. Empty
        where one of the two has not started.
    """
    started = trials[trials["parameters"].notna()]
    if not {a, b} <= set(cells_of(started)):
        return []
    known = confounds(started[started["cell"].isin([a, b])])
    mine = known.loc[~known["factor"].astype(bool) & ~known.index.isin(_followers(trials))]
    told = [(str(name), str(row[a]), str(row[b])) for name, row in mine.iterrows()]
    seconds = [float(started.loc[started["cell"] == cell, "train_seconds"].astype(float).mean()) for cell in (a, b)]
    if max(seconds) > _WORTH_TELLING * min(seconds):
        told.append(("train time", duration(seconds[0]), duration(seconds[1])))
    return told


def warnings_for(trials: pd.DataFrame) -> list[str]:
    """What a reader of the comparison has to know before believing it, a sentence or two each."""
    done = finished(trials)
    sentences = [
        _of_seeds(trials, done),
        _of_missing(trials),
        _of_losses(without_finite_loss(trials)),
        _of_data(done),
        _of_tokens(done),
        _of_code(done),
        _of_machines(done),
        _of_settings(done),
        _of_presets(done),
    ]
    return [sentence for sentence in sentences if sentence]


def _of_seeds(trials: pd.DataFrame, done: pd.DataFrame) -> str:
    counts = done["cell"].value_counts().reindex(cells_of(trials), fill_value=0)
    if counts.max() == 1:
        return (
            "Every row is a single run (n = 1): how far seeds alone move these numbers was not measured. "
            "Add seeds=5 to the command to know."
        )
    if counts.nunique() > 1:
        by_n = _by_value({str(cell): f"n = {n}" for cell, n in counts.items()})
        return f"The rows do not all have the same number of finished runs: {by_n}."
    return ""


def _of_missing(trials: pd.DataFrame) -> str:
    missing = trials[trials["status"] != "FINISHED"]
    if missing.empty:
        return ""
    counts = {str(cell): its.value_counts() for cell, its in missing.groupby("cell", sort=False)["status"]}
    told = {cell: ", ".join(f"{n} {str(status).lower()}" for status, n in by.items()) for cell, by in counts.items()}
    which = names([f"{cell} ({what})" for cell, what in told.items()])
    return (
        f"{len(missing)} of {len(trials)} trials {'has' if len(missing) == 1 else 'have'} no result: {which}. "
        "What diverges or fails may be just what would have been worse: the means of these rows leave it out."
    )


def _of_losses(odd: pd.DataFrame) -> str:
    if odd.empty:
        return ""
    which = names([f"{cell} (seed {seed})" for cell, seed in zip(odd["cell"], odd["seed"], strict=True)])
    return f"A test loss that is no finite number counts as no result: {which}."


def _of_data(done: pd.DataFrame) -> str:
    if "data_digest" not in done or done["data_digest"].nunique() < 2:
        return ""
    if len(set(texts_of(done).values())) < 2:
        return ""
    texts = {cell: f"corpus {digest}" for cell, digest in _values(done, "data_digest").items()}
    if done["vocabulary_size"].nunique() > 1:
        sizes = _values(done, "vocabulary_size")
        texts = {cell: f"{text} of {sizes[cell]} words" for cell, text in texts.items()}
    return (
        "The rows were not evaluated on the same text with the same vocabulary: their perplexities measure "
        f"different things and must not be compared ({_by_value(texts)})."
    )


def _of_tokens(done: pd.DataFrame) -> str:
    if "tokens" not in done or done["tokens"].nunique() < 2 or _SETS_TOKENS & set(done.columns):
        return ""
    return f"The rows were not trained on equally many tokens: {_by_value(_values(done, 'tokens'))}."


def _of_code(done: pd.DataFrame) -> str:
    if "code" not in done or done["code"].nunique() < 2:
        return ""
    code = {cell: f"version {digest}" for cell, digest in _values(done, "code").items()}
    return (
        f"The rows were not trained by the same code: {_by_value(code)}. What the change of the code did and what the "
        "factors did cannot be told apart; force=true trains all of them anew."
    )


def _of_machines(done: pd.DataFrame) -> str:
    told = []
    for fact in ("precision", "threads", "device"):
        on_purpose = f"factor.{fact}" in done
        if fact in done and done[fact].nunique() > 1 and not on_purpose:
            told.append(f"{fact} {_by_value(_values(done, fact))}")
    if not told:
        return ""
    return f"The rows were not computed alike: {'; '.join(told)}. Last digits differ, and times cannot be compared."


def _of_settings(done: pd.DataFrame) -> str:
    differing = confounds(done)
    own = ~differing["factor"].astype(bool) & ~differing.index.isin([*_TOLD_APART, *_followers(done)])
    if not own.any():
        return ""
    values = differing[own].drop(columns="factor").astype(str).to_dict("index")
    told = [f"{name} ({_by_value({str(cell): v for cell, v in row.items()})})" for name, row in values.items()]
    return (
        f"The rows differ in more than the factors of the study: {', '.join(told)}. "
        "A difference between two rows cannot be put down to one part alone."
    )


def _of_presets(done: pd.DataFrame) -> str:
    """Presets that set several parts at once, where that is the only thing that tells the rows apart."""
    parts = {name for name in _set_by_presets(done) if not name.startswith("knob.data.")}
    varied = [str(name) for name in confounds(done).index if f"knob.{name}" in parts]
    if len(varied) < 2 or any(f"factor.{name}" in done for name in varied):
        return ""
    return (
        f"The presets of model= differ in several parts at once ({', '.join(varied)}): what one of them does cannot be "
        "told from these rows. design=leave_one_out and design=cumulative vary one part at a time."
    )


def _by_value(values: dict[str, str]) -> str:
    """`x: a, b; y: c` of a ↦ x, b ↦ x, c ↦ y."""
    cells: dict[str, list[str]] = {}
    for cell, value in values.items():
        cells.setdefault(value, []).append(cell)
    return "; ".join(f"{value}: {names(where)}" for value, where in cells.items())


def comparable(trials: pd.DataFrame, baseline: str) -> list[str]:
    """The cells that are evaluated on what the baseline is, in the study's order; what never started counts too."""
    texts = texts_of(trials)
    mine = texts.get(baseline)
    return [cell for cell in cells_of(trials) if mine is None or texts.get(cell, mine) == mine]


def texts_of(trials: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Cell → what it is evaluated on: the text and the vocabulary. Two cells are comparable where these are the same.

    How much of the text a cell was trained on makes no difference to that. Cells that have not started are left out.
    """
    known = trials[trials["parameters"].notna()].drop_duplicates("cell")
    if "data_digest" not in known or known.empty:
        return {}
    data = [str(c) for c in known.columns if str(c).startswith("knob.data.")]
    of_text = pd.DataFrame({c: known[c].map(show) for c in [*data, "vocabulary_size"]}, index=known.index)
    # The same knobs and the same slice, but another digest: the file behind the knobs has changed.
    slices = known["knob.train_tokens"].map(show) if "knob.train_tokens" in known else pd.Series("", known.index)
    digests = known["data_digest"].groupby([*(of_text[c] for c in of_text), slices]).transform("nunique")
    of_text["digest"] = known["data_digest"].where(digests > 1, "")
    return {str(cell): tuple(map(str, row)) for cell, row in zip(known["cell"], of_text.to_numpy(), strict=True)}


def _candidates(trials: pd.DataFrame) -> list[str]:
    columns = [str(column) for column in trials.columns]
    knobs = [c for c in columns if c.startswith("knob.") and c[5:] not in _NOT_CONFOUNDS]
    return [*knobs, *(c for c in _FACTS if c in columns and f"knob.{c}" not in knobs)]


def _set_by_presets(trials: pd.DataFrame) -> set[str]:
    """Knobs that a factor's presets set on purpose."""
    parts = {f"knob.{name}" for name in ("rnn", "depth", "dropout", "tie")} if "factor.model" in trials else set()
    data = {str(c) for c in trials.columns if str(c).startswith("knob.data.")} if "factor.data" in trials else set()
    return parts | data


def _followers(trials: pd.DataFrame) -> set[str]:
    """Knobs that took the value of a factor of their own accord: `embedding` is `hidden` unless it is set."""
    if not {"factor.hidden", "knob.hidden", "knob.embedding"} <= set(trials.columns):
        return set()
    same = trials["knob.hidden"].map(show) == trials["knob.embedding"].map(show)
    return {"embedding"} if same.all() else set()


def _values(trials: pd.DataFrame, column: str) -> dict[str, str]:
    """Cell ↦ all values that its trials have, digests cut to what tells them apart."""
    found: dict[str, dict[str, None]] = {str(cell): {} for cell in trials["cell"]}
    # What a trial has trained on is known once it has finished.
    known = trials[trials[column].notna()] if column == "tokens" else trials
    for cell, value in zip(known["cell"], known[column].map(show), strict=True):
        found[str(cell)][value[:12] if column in ("code", "data_digest") else value] = None
    return {cell: ", ".join(values) or _NOT_YET for cell, values in found.items()}


def _row(metric: Metric, of_cell: pd.DataFrame, nll: pd.DataFrame, baseline: str, alike: bool) -> dict[str, object]:
    cell, done = str(of_cell["cell"].iloc[0]), finished(of_cell)
    found, kind, both = difference_between(nll, cell, baseline) if alike else (Difference(0), "", 0)
    if cell == baseline:  # it is no comparison: nothing is tested, and no test is counted
        found, kind = Difference(found.n, mean=found.mean), ""
    known = asdict(found)
    spread = found.sd if kind == "paired" else float("nan")
    return {
        "cell": cell,
        "parameters": of_cell["parameters"].dropna().head(1).max(),  # a seed that never started has none on record
        "tokens": done["tokens"].astype(float).mean(),
        "train_seconds": done["train_seconds"].astype(float).mean(),
        "n": len(done),
        **_spread(metric, "valid", done),
        **_spread(metric, "test", done),
        "effect": found.mean,
        "low": found.low,
        "high": found.high,
        "pairs": both,
        "missing": "; ".join(_missing(of_cell)),
        "difference_kind": kind,
        **{name: known[name] for name in ("p", "p_sign_flip", "better", "better_low", "better_high")},
        "sd": found.sd,
        "deltas": found.deltas,
        "detectable": pairs.detectable(spread, found.n),
        "seeds_for_half": pairs.seeds_for_half(found.n) if kind == "paired" else float("nan"),
    }


def _spread(metric: Metric, split: str, done: pd.DataFrame) -> dict[str, float]:
    values = done[f"{split}_{metric.name}"].astype(float)
    if np.isinf(values).any():  # an absurd loss: a mean would be one, and a spread is none
        return {f"{split}_mean": float("inf"), f"{split}_sd": float("nan")}
    return {f"{split}_mean": values.mean(), f"{split}_sd": values.std(ddof=1)}


def _missing(of_cell: pd.DataFrame) -> Iterable[str]:
    for seed, status, reason in zip(of_cell["seed"], of_cell["status"], of_cell["reason"], strict=True):
        if status != "FINISHED":
            yield f"seed {seed} {status.lower()}" + (f" ({reason})" if reason else "")
    for seed in without_finite_loss(of_cell)["seed"]:
        yield f"seed {seed} finished with a test loss that is no finite number"
