"""Named corpora → token ids → windows. No torch, Hydra or MLflow."""

from ablate.data.corpus import Corpus, check_fits, load_corpus
from ablate.data.windows import Windows

__all__ = ["Corpus", "Windows", "check_fits", "load_corpus"]
