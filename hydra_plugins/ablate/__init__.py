"""Hydra's side of ablate: thin shells."""
