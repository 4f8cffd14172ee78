"""The book's batching: one continuous stream, read by `batch` readers side by side, `window` tokens at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablate.tasks.language_model.data.corpus import Ids


class Windows:
    """Inputs and targets of one continuous stream.

    Inputs are ids[:-1], targets ids[1:]; reader i starts at i · jump with jump = len(inputs) // batch, and positions
    count modulo len(inputs), so that a reader that runs past its part wraps around (oreilly-japan/
    deep-learning-from-scratch-2, common/trainer.py, RnnlmTrainer.get_batch).

    Args:
        ids: shape [tokens].
        batch: readers side by side (B).
        window: time steps of a window (T).
        starts: where each of K trials starts to read (K).
    """

    def __init__(self, ids: Ids, batch: int, window: int, starts: Sequence[int] = (0,)) -> None:
        self._inputs = np.asarray(ids[:-1])
        self._targets = np.asarray(ids[1:])
        self._offsets_B = np.arange(batch) * (self._inputs.size // batch)
        self._steps_T = np.arange(window)
        self._starts_K = np.asarray(starts)
        self.per_epoch = self._inputs.size // (batch * window)
        assert self.per_epoch >= 1, "check_fits refuses a corpus shorter than a window"

    def at(self, number: int) -> tuple[Ids, Ids]:
        """Window `number`, counted from 0 and past the end without limit: inputs_KTB and targets_KTB."""
        first = number * self._steps_T.size + self._starts_K[:, None, None]
        positions_KTB = (first + self._steps_T[:, None] + self._offsets_B) % self._inputs.size
        return self._inputs[positions_KTB], self._targets[positions_KTB]
