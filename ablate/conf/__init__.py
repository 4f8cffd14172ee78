"""Presets of every launch: designs, and where results are tracked."""
