"""What a journal says of the data that a trial is trained and evaluated on."""

from __future__ import annotations

import math
from typing import Any

from ablate.config import Knobs
from ablate.tasks.language_model.data import Corpus


def data_record(knobs: Knobs, corpus: Corpus) -> dict[str, Any]:
    """Name, digest and sizes of the corpus, and what tells whether two trials can be compared.

    `evaluated` leaves out the train text: how much of it was read makes no difference to what is measured. Trials of
    one `alike` read the same first window, on which a model that knows nothing has the same loss.
    """
    first_window = {name: getattr(knobs, name) for name in ("batch", "window", "output_bias", "order")}
    return {
        "name": corpus.name,
        "digest": corpus.digest,
        "sizes": corpus.counts(),
        "evaluated": corpus.evaluated,
        "alike": " ".join([corpus.digest, *(f"{name}={value}" for name, value in first_window.items())]),
        "chance": math.log(len(corpus.words)),
        "floor": corpus.floor_nll,
        "details": {"vocabulary": len(corpus.words)},
    }
