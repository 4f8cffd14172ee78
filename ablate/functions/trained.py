"""What a function's trial has trained, as a user gets it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trained:
    """What a trial kept when it validated best.

    Attributes:
        config: what the function was called with.
        objects: name → the `state_dict()` of what `run.keep_best` was given, or else of the models of `run.keep`.
    """

    config: Any
    objects: Mapping[str, Any]
