"""What all classifiers share: labels, and predictions of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from torch import Tensor

from skpou.base import validation
from skpou.base.estimator import TorchEstimator
from skpou.core import Rows, Scaling, TrainingInterrupted, TrainingResult
from skpou.core.classes import CalibratedClasses, Calibration, calibrate
from skpou.core.linalg import gather, gather_objects
from skpou.core.models import ClassPredictor, worse_than_the_shares


class PreparedClasses(NamedTuple):
    """Training data in the units and on the device of the fit."""

    rows: Rows
    scaling: Scaling
    classes: np.ndarray


class BaseClassifier(ClassifierMixin, TorchEstimator):
    """Classifier with a probability of every class at every point.

    A subclass calls `_prepare_classes`, trains by `_train_and_store`, and writes `_state_of` and
    `_model`, whose result has `log_proba`; predictions of every kind follow from it, and from the
    calibration that the result's left-out observations ask for.
    """

    _counts_repeats = True
    _state_names: tuple[str, ...] = (*TorchEstimator._state_names, "_calibration")

    def fit(self, X, y, sample_weight=None) -> Any:
        """Train on rows, alone or weighted.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,)
            Class labels: numbers or strings.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights: weight 2 is the row twice, weight 0 the row removed.

        Returns
        -------
        self : estimator
        """
        raise NotImplementedError

    def _model(self, like: Tensor) -> ClassPredictor:
        """The fitted model, on the device and in the dtype of `like`."""
        raise NotImplementedError

    def _state_of(self, result: TrainingResult) -> dict[str, Any]:
        """Fitted attributes besides `scaling_` and `classes_`."""
        raise NotImplementedError

    def _evaluate(self, points: Tensor) -> None:
        if self._calibrated(points).log_proba(points).shape != (1, len(self.classes_)):
            raise ValueError(f"probabilities of {len(self.classes_)} classes have another shape.")

    # Training

    def _prepare_classes(
        self, X: Any, y: Any, sample_weight: Any, *, box: Scaling | None = None
    ) -> PreparedClasses:
        """Merged rows whose targets are the shares of the classes, their scaling, the classes.

        With the `box` of an earlier fit its columns must be those of X.
        """
        points, codes, weight, classes = self._own_classes(X, y, sample_weight, box is None)
        points, codes, weight = (torch.cat(gather(part)) for part in (points, codes, weight))
        indicators = torch.eye(len(classes), dtype=torch.float64, device=codes.device)[codes]
        rows, scaling, _ = self._merged(points, indicators, weight, box)
        return PreparedClasses(rows, scaling, classes)

    def _own_classes(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
        """Points (n, d), numbers of their classes (n,), weights (n,), and the classes (K,).

        Rows are those of this process; classes are those of all processes that call fit together.
        """
        with self._alike() as facts:
            found = self._validated_classes(X, y, sample_weight, reset, facts)
        points, codes, weight, own = found
        classes = np.unique(np.concatenate(gather_objects(own)))
        place = torch.as_tensor(np.searchsorted(classes, own), device=codes.device)
        return points, place[codes], weight, classes

    def _validated_classes(
        self, X: Any, y: Any, sample_weight: Any, reset: bool, facts: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
        """The same with the classes of these rows, without a word to other processes.

        `facts` takes what they must agree on.
        """
        facts["dtype of X"] = str(getattr(X, "dtype", None))
        device = validation.resolve_device(self.device, validation.origin_of(X))
        X, numbers, given, classes = validation.training_classes(
            self, X, y, sample_weight, reset=reset
        )
        facts["number of columns"] = X.shape[1]
        points, weight = (validation.owned(part, torch.float64, device) for part in (X, given))
        return points, torch.as_tensor(numbers, device=device), weight, classes

    def _train_and_store(
        self, train: Callable[[PreparedClasses], TrainingResult], prepared: PreparedClasses
    ) -> TrainingResult:
        """Train and store the result; what an interrupt leaves is stored, too."""
        try:
            with self._training_on(prepared):
                result = train(prepared)
            result = self._no_worse_than_the_shares(result, prepared)
        except TrainingInterrupted as stopped:
            return self._keep_interrupted(stopped, prepared)
        self._store_result(result, prepared)
        return result

    def _no_worse_than_the_shares(
        self, result: TrainingResult, prepared: PreparedClasses
    ) -> TrainingResult:
        """The result, or the shares of the classes where its own rows are worse predicted."""
        rows = prepared.rows
        share = (rows.weight[:, None] * rows.y).sum(0) / rows.weight.sum()
        state = result.state
        if self._torch_dtype() != torch.float64:  # What is found may not survive to be rounded.
            like = torch.zeros(0, dtype=self._torch_dtype(), device=rows.X.device)
            state = type(state).from_arrays(state.arrays(), like)
        if not worse_than_the_shares(state, rows, share):
            return result
        message = (
            "Fewer of the fit's own rows were right than are in the largest class, and their "
            f"classes less likely. The shares of the classes are kept. {result.message}"
        )
        state = result.state.of_shares(share)
        return replace(
            result,
            state=state,
            code="worse_than_the_shares",
            message=message.strip(),
            left_out=None,
        )

    def _store_result(self, result: TrainingResult, prepared: PreparedClasses) -> None:
        left_out = result.left_out
        calibration = None if left_out is None else calibrate(prepared.rows, left_out)
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            classes_=prepared.classes,
            _calibration=None if calibration is None else calibration.arrays(),
            **self._state_of(result),
        )

    # Prediction

    def _calibrated(self, like: Tensor) -> ClassPredictor:
        """The fitted model with its calibration, on the device of `like`."""
        model, state = self._unpacked_model(like), self.__dict__.get("_calibration")
        if state is None:
            return model
        return CalibratedClasses(model, Calibration.from_arrays(state, like))

    def _calibration_lines(self) -> list[str]:
        """What the summary says of the calibration."""
        state = self.__dict__.get("_calibration")
        if state is None:
            return []
        line = f"Logits times {state['factor']:.3g} as left-out rows say"
        if state["companion"] is not None:
            joined = f"{state['companion_factor']:.3g} times those of a logistic regression"
            line += f", with {joined} of single columns"
        return [line]

    def _log_proba(self, X):
        points, _, origin = self._query(X)
        model = self._unpacked("calibrated model", points, self._calibrated)
        return self._in_blocks(points, model, lambda x, _: model.log_proba(x)), origin

    def predict_log_proba(self, X) -> Any:
        """Logarithms of the classes' probabilities.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, n_classes)
            Columns in the order of `classes_`.
        """
        logs, origin = self._log_proba(X)
        return origin.send(logs)

    def predict_proba(self, X) -> Any:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, n_classes)
            Columns in the order of `classes_`; rows add up to one.
        """
        logs, origin = self._log_proba(X)
        return origin.send(torch.softmax(logs, 1))

    def decision_function(self, X) -> Any:
        """Logarithm of the odds of the second class, or of every class's probability.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, n_classes)
            (n,) with two classes, positive where the second is more probable, and with one
            class, zero.
        """
        logs, origin = self._log_proba(X)
        if logs.shape[1] < 3:
            logs = logs[:, -1] - logs[:, 0]
        return origin.send(logs)

    def predict(self, X) -> Any:
        """Most probable classes.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            Labels; a tensor where X is one and labels are numbers.
        """
        logs, origin = self._log_proba(X)
        labels = self.classes_[logs.argmax(1).cpu().numpy()]
        numeric = labels.dtype.kind in "biuf"
        return (
            origin.send(torch.as_tensor(labels, device="cpu"))
            if origin.is_tensor and numeric
            else labels
        )

    def score(self, X, y, sample_weight=None) -> float:
        """Share of the rows that are classified rightly.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,)
            True labels.
        sample_weight : array-like of shape (n,), default=None
            Weights of the rows.

        Returns
        -------
        float
        """
        values = [y, self.predict(X), sample_weight]
        y, predicted, weight = (np.asarray(v.cpu()) if isinstance(v, Tensor) else v for v in values)
        from sklearn.metrics import accuracy_score  # Late: it imports for long.

        return float(accuracy_score(y, predicted, sample_weight=weight))
