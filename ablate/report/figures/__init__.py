"""The figures of a report, each in a module of its kind; files are PNG, SVG and PDF."""

from __future__ import annotations

from pathlib import Path

from ablate.analyze.study import Analysis
from ablate.analyze.table import finished as with_result
from ablate.report.figures.budget import draw_by_budget
from ablate.report.figures.comparison import draw_comparison, draw_cost
from ablate.report.figures.curves import draw_curves
from ablate.report.figures.effects import draw_effects, draw_steps
from ablate.report.figures.grid import draw_heatmap, draw_interactions
from ablate.report.figures.stability import draw_stability
from ablate.report.figures.style import Drawn, make_look
from ablate.report.names import asked, effects_to_draw, named_by_budget
from ablate.track.read import Results

FIGURES = ("comparison", "cost", "curves", "effects", "stability", "budget", "steps", "grid", "interactions")


def draw_all(results: Results, analysis: Analysis, folder: Path) -> dict[str, Drawn | None]:
    """Every figure that this study has something for, by name."""
    look = make_look(list(analysis.comparison["cell"]))
    metric, task, trials, comparison = analysis.metric, analysis.task, results.trials, analysis.comparison
    finished = with_result(metric, trials)
    # Levels that are seeds are no parts, and a design of components holds few of the combinations of its factors.
    no_effects, no_grid = analysis.sources.asked, analysis.designed or analysis.sources.asked
    return {
        "comparison": draw_comparison(metric, trials, comparison, look, folder),
        "cost": draw_cost(metric, trials, comparison, look, folder),
        "curves": draw_curves(metric, task, results.curves, look, folder),
        "effects": None if no_effects else draw_effects(metric, *effects_to_draw(analysis), analysis.margin, folder),
        "stability": draw_stability(metric, asked(analysis), analysis.margin, analysis.stopping is not None, folder),
        "budget": draw_by_budget(metric, task, named_by_budget(analysis), analysis.changes, folder),
        "steps": draw_steps(metric, analysis.components, finished, folder),
        "grid": None if no_grid else draw_heatmap(metric, trials, folder),
        "interactions": None if no_grid else draw_interactions(metric, trials, folder),
    }
