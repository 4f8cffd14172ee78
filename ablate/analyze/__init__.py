"""Results → what they say. Pure functions of tables; never imports torch."""

from ablate.analyze.comparison import compare, confounds, warnings_for

__all__ = ["compare", "confounds", "warnings_for"]
