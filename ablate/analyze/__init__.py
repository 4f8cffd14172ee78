"""Results → what they say, in numbers alone. Pure functions of tables; never imports torch."""

from ablate.analyze.caveats import Caveats, caveats
from ablate.analyze.comparison import compare
from ablate.analyze.components import component_effects, disagreements
from ablate.analyze.contrast import Contrast, between
from ablate.analyze.differs import confounds, confounds_between
from ablate.analyze.effects import factor_effects, interactions
from ablate.analyze.evidence import Evidence, estimate
from ablate.analyze.guards import Guards, guards
from ablate.analyze.noise import Noise, noise
from ablate.analyze.paired import (
    Difference,
    holm,
    paired,
    smallest_p,
    unpaired,
)
from ablate.analyze.pareto import front
from ablate.analyze.power import detectable, seeds_for_half, seeds_needed
from ablate.analyze.sources import Sources, sources_of_noise
from ablate.analyze.text import TextAndSeeds, text_and_seeds
from ablate.analyze.variance import VarianceShares, variance_shares

__all__ = [
    "Caveats",
    "Contrast",
    "Difference",
    "Evidence",
    "Guards",
    "Noise",
    "Sources",
    "TextAndSeeds",
    "VarianceShares",
    "between",
    "caveats",
    "compare",
    "component_effects",
    "confounds",
    "confounds_between",
    "detectable",
    "disagreements",
    "estimate",
    "factor_effects",
    "front",
    "guards",
    "holm",
    "interactions",
    "noise",
    "paired",
    "seeds_for_half",
    "seeds_needed",
    "smallest_p",
    "sources_of_noise",
    "text_and_seeds",
    "unpaired",
    "variance_shares",
]
