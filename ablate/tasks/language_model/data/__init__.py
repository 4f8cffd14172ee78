"""Named corpora → token ids → windows. No torch, Hydra or MLflow."""

from ablate.tasks.language_model.data.corpus import Corpus, check_fits, load_corpus
from ablate.tasks.language_model.data.windows import Windows

__all__ = ["Corpus", "Windows", "check_fits", "load_corpus"]
