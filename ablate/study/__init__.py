"""Studies: cells, plan, execution. `run_study` is what the command line calls."""

from ablate.study.cells import Job
from ablate.study.run import run_study

__all__ = ["Job", "run_study"]
