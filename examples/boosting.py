"""Which settings of gradient boosting help? Is a tumour benign or malignant, from 30 measurements of 569 patients.

No epochs and no torch: a task is any function that returns its test values.

pip install scikit-learn
python examples/boosting.py -m design=leave_one_out seeds=10
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split

import ablate


@dataclass
class Config:
    trees: Annotated[int, Field(ge=1)] = 100
    depth: Annotated[int, Field(ge=1, description="of a tree; 1: no interactions")] = 2
    shrinkage: Annotated[float, Field(gt=0, le=1, description="what a tree's answer is multiplied by")] = 0.1
    subsample: Annotated[float, Field(gt=0, le=1, description="share of the patients that a tree sees")] = 0.5
    features: Annotated[float, Field(gt=0, le=1, description="share of the measurements that a split may use")] = 0.3


COMPONENTS = {
    "subsampling": "subsample=1",
    "features": "features=1",
    "depth": "depth=1",
    "shrinkage": "shrinkage=1",
}
METRICS = [
    ablate.Metric("log_loss", better="lower"),  # the first is the one by which cells are compared
    ablate.Metric("accuracy", better="higher", unit="%"),
]


@ablate.task(Config, components=COMPONENTS, metric=METRICS, data=lambda config: ablate.digest(*load()))
def train(config: Config, run):
    measurements, labels = load()
    # Each seed has a split of its own; a seed's split is the same in every cell.
    train_x, rest_x, train_y, rest_y = train_test_split(
        measurements, labels, train_size=0.5, stratify=labels, random_state=run.number("test")
    )
    valid_x, test_x, valid_y, test_y = train_test_split(
        rest_x, rest_y, train_size=0.4, stratify=rest_y, random_state=run.number("valid")
    )
    model = GradientBoostingClassifier(
        n_estimators=config.trees,
        max_depth=config.depth,
        learning_rate=config.shrinkage,
        subsample=config.subsample,
        max_features=config.features,
        random_state=run.number("trees"),
    )
    model.fit(train_x, train_y)
    valid_loss, valid_accuracy = scores(model, valid_x, valid_y)
    run.log(valid_log_loss=valid_loss.mean(), valid_accuracy=valid_accuracy.mean())
    loss, accuracy = scores(model, test_x, test_y)
    return {
        "test_log_loss": loss.mean(),
        "test_log_loss_each": loss,
        "test_accuracy": accuracy.mean(),
        "test_accuracy_each": accuracy,
    }


def load() -> tuple[np.ndarray, np.ndarray]:
    return load_breast_cancer(return_X_y=True)


def scores(model: GradientBoostingClassifier, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss and accuracy (0 or 100) of each patient."""
    probability = model.predict_proba(x)[np.arange(len(y)), y]
    return -np.log(np.clip(probability, 1e-6, 1)), 100.0 * (probability > 0.5)


if __name__ == "__main__":
    ablate.main(train)
