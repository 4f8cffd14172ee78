"""The figures of a report, each in a module of its kind; files are PNG, SVG and PDF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ablate.analyze.study import Analysis
from ablate.analyze.table import finished
from ablate.report.figures.budget import draw_by_budget
from ablate.report.figures.comparison import draw_comparison, draw_cost
from ablate.report.figures.curves import draw_curves
from ablate.report.figures.effects import draw_effects, draw_steps
from ablate.report.figures.grid import draw_heatmap, draw_interactions
from ablate.report.figures.stability import draw_stability
from ablate.report.figures.style import Drawn, Look, make_look
from ablate.report.names import asked, effects_to_draw, named_by_budget
from ablate.track.read import Results

# Name → what draws the figure; None: the study has nothing for it.
FIGURES: Mapping[str, Callable[[Results, Analysis, Look, Path], Drawn | None]] = {
    "comparison": lambda results, found, look, folder: draw_comparison(
        found.metric, results.trials, found.comparison, look, folder
    ),
    "cost": lambda results, found, look, folder: draw_cost(
        found.metric, results.trials, found.comparison, look, folder
    ),
    "curves": lambda results, found, look, folder: draw_curves(found.metric, found.task, results.curves, look, folder),
    "effects": lambda _, found, __, folder: (
        None if _has_no_effects(found) else draw_effects(found.metric, *effects_to_draw(found), found.margin, folder)
    ),
    "stability": lambda _, found, __, folder: draw_stability(
        found.metric, asked(found), found.margin, found.stopping is not None, folder
    ),
    "budget": lambda _, found, __, folder: draw_by_budget(
        found.metric, found.task, named_by_budget(found), found.changes, folder
    ),
    "steps": lambda results, found, _, folder: draw_steps(
        found.metric, found.components, finished(found.metric, results.trials), folder
    ),
    "grid": lambda results, found, _, folder: (
        None if _is_no_grid(found) else draw_heatmap(found.metric, results.trials, folder)
    ),
    "interactions": lambda results, found, _, folder: (
        None if _is_no_grid(found) else draw_interactions(found.metric, results.trials, folder)
    ),
}


def draw_all(
    results: Results, analysis: Analysis, folder: Path, names: Collection[str] = FIGURES.keys()
) -> dict[str, Drawn | None]:
    """Every figure that this study has something for, by name; of those that are not among `names`, None."""
    look = make_look(list(analysis.comparison["cell"]))
    return {name: draw(results, analysis, look, folder) if name in names else None for name, draw in FIGURES.items()}


def _has_no_effects(analysis: Analysis) -> bool:
    """Levels that are seeds are no parts."""
    return analysis.sources.asked


def _is_no_grid(analysis: Analysis) -> bool:
    """A design of components holds few of the combinations of its factors."""
    return analysis.designed or analysis.sources.asked
