"""Studies: cells, plan, execution. Light to import: what needs torch is in `run` and what it calls."""
