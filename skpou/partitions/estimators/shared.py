"""What regressors with partitions of unity share: their state and what they predict."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import BaseRegressor, Prepared, owned, random_generator, unless_auto
from skpou.core import Rows, Scaling, TrainingResult
from skpou.core.models import MixedResidues, Predictor, worse_than_the_mean
from skpou.equations import EquationsMixin, Physics, Problem
from skpou.partitions.equations.fit import EquationPieceOptions, fit_equation_pieces
from skpou.partitions.equations.model import Pieces
from skpou.partitions.estimators.options import check_memory, gate_name
from skpou.partitions.estimators.powers import raw_polynomials
from skpou.partitions.estimators.words import partition_lines
from skpou.partitions.fit import PieceOptions, fit_pieces
from skpou.partitions.mixtures.experts import fit_experts_to_gates
from skpou.partitions.mixtures.mixture import Mixture
from skpou.partitions.pieces.spaces import POLYNOMIAL

#: Difference, relative to it, between the box's width and a period that is round-off.
SAME_WIDTH = 1e-9


class BasePartitionRegressor(EquationsMixin, BaseRegressor):
    """Regressor whose model is a `Mixture`: experts on a tree of partitions, perhaps one level.

    With equations it is a solution on `Pieces`, boxes that fill the box of the data.

    A subclass trains and hands the result to `_train_and_store`.
    """

    _size_parameters = "n_partitions or degree"

    def _n_varying(self) -> int:
        """Number of columns of X that vary."""
        return len(self.scaling_["columns"])

    # State

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        self._store_physics(result)
        if isinstance(result.state, Pieces):
            self._store_pieces(result, prepared)
            return
        self.__dict__.pop("model_", None)
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            mixture_=result.state.arrays(),
            degree_=result.chosen["degree"],
            alpha_=result.chosen["alpha"],
            gate_=gate_name(result.chosen["gate"]),
            n_iter_=result.n_iter,
            loss_curve_=result.curve,
            _tried=result.chosen.get("tried", []),
        )

    def _store_pieces(self, result: TrainingResult, prepared: Prepared) -> None:
        for name in ("mixture_", "gate_"):
            self.__dict__.pop(name, None)
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            model_=result.state.arrays(),
            degree_=result.state.boxes.degree.astype(np.int64),
            alpha_=result.chosen["alpha"],
            n_iter_=result.n_iter,
            loss_curve_=result.curve,
        )

    def _is_on_boxes(self) -> bool:
        """Whether the model is a solution of equations on boxes."""
        return "model_" in self.__dict__

    def _model(self, like: Tensor) -> Predictor:
        if self._is_on_boxes():
            return Pieces.from_arrays(self.model_, like)
        return self._mixture(like)

    def _space(self) -> str:
        """Space of the experts that were fitted."""
        return self.mixture_[-1].get("space", POLYNOMIAL)

    def _mixture(self, like: Tensor) -> Mixture:
        return Mixture.from_arrays(self._n_varying(), self.degree_, self.mixture_, like)

    @property
    def coef_(self) -> Any:
        """Coefficients of the finest partitions' polynomials in units of y."""
        check_is_fitted(self)
        if self._is_on_boxes():
            like = torch.zeros(0, dtype=torch.float64, device="cpu")
            coef = Pieces.from_arrays(self.model_, like).padded() * self.scaling_["scale"]
        else:
            coef = self.mixture_[-1]["coef"] * self.scaling_["scale"]
        coef[:, 0] += self.scaling_["mean"]
        return coef[:, :, 0] if self._target_ndim == 1 else coef

    @property
    def model_(self) -> Any:
        """Boxes, degrees and coefficients of a solution of equations."""
        if not self._is_on_boxes():
            raise AttributeError("model_ exists where physics was given. It was None.")
        return self.__dict__["model_"]

    @property
    def raw_polynomials_(self) -> Any:
        """Polynomials of the finest partitions in powers of X, and the digits that these lose."""
        check_is_fitted(self)
        if self._is_on_boxes():
            raise AttributeError("raw_polynomials_ exists without equations alone.")
        if self._space() != POLYNOMIAL:
            raise AttributeError(
                f"raw_polynomials_ is for polynomial experts. Got experts={self._space()!r}."
            )
        return raw_polynomials(self)

    @property
    def noise_(self) -> Any:
        """Noise standard deviations of the finest partitions in units of y."""
        check_is_fitted(self)
        if self._is_on_boxes():
            variance = np.tile(self.model_["noise"], (len(self.model_["low"]), 1))
        else:
            variance = self.mixture_[-1]["noise"]
        noise = np.sqrt(self._usual_factor() * variance) * self.scaling_["scale"]
        return noise[:, 0] if self._target_ndim == 1 else noise

    @property
    def tree_(self) -> Any:
        """Parents of every level's partitions."""
        check_is_fitted(self)
        if self._is_on_boxes():
            return [np.zeros(len(self.model_["low"]), dtype=np.int64)]
        return [level["parent"] for level in self.mixture_]

    def _simpler(self, prepared: Prepared) -> TrainingResult:
        """One polynomial for all rows."""
        degree = unless_auto(self.degree, int)
        options = PieceOptions(
            sizes=(1,), degree=degree, alpha=unless_auto(self.alpha), space=self.experts
        )
        return fit_pieces(prepared.rows, options, random_generator(self.random_state))

    def _summary_lines(self) -> list[str]:
        if self._is_on_boxes():
            return [f"Solution of equations on {len(self.degree_)} boxes."]
        return partition_lines(self)

    # Equations

    def _check_physics(self, physics: Physics, defaults: dict[str, Any]) -> None:
        """Refuse parameters that only shape gates, and symmetries that boxes cannot have."""
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                raise ValueError(
                    f"{name}={value!r} is for gates, which equations on boxes have not. With "
                    f"physics it must be {default!r}."
                )
        if self.experts != POLYNOMIAL:
            raise ValueError(
                f"experts={self.experts!r}: equations are solved by polynomials on boxes. With "
                f"physics it must be {POLYNOMIAL!r}."
            )
        for symmetry in physics.symmetries:
            if symmetry.kind != "periodic":
                raise ValueError(
                    f"{symmetry!r}: pieces know symmetry 'periodic' alone. Give a Condition at "
                    "the centre, and half of the box."
                )

    def _solve_on_boxes(
        self, X, y, sample_weight, physics: Physics, degree: int | None, most: int | None,
        exactly: bool = False,
    ):  # fmt: skip
        """Solve equations on boxes, at most `most` of them, or exactly so many."""
        options = EquationPieceOptions(
            degree=degree,
            most_pieces=most,
            max_iter=int(self.max_iter),
            tol=float(self.tol),
            exactly=exactly,
        )
        with self._fitting(X, y, sample_weight):
            prepared, problem = self._prepare_physics(X, y, sample_weight, physics)
            train = self._equation_training(prepared.rows, problem, physics, options)
            result = self._train_and_store(train, 1, prepared)
        self._warn_if_unsolved(result)
        return self

    def _check_periods(self, physics: Physics, problem: Problem) -> None:
        for symmetry in physics.symmetries:
            width = float(problem.scaling.width[problem.column(symmetry.coordinate)])
            if symmetry.period is None or abs(width - symmetry.period) > SAME_WIDTH * width:
                raise ValueError(
                    f"{symmetry!r}: on pieces the period must be the width of the box, {width!r}."
                )

    def _equation_training(self, rows: Rows, problem: Problem, physics: Physics,
                           options: EquationPieceOptions):  # fmt: skip
        """Training as `_best_of` calls it."""
        self._check_periods(physics, problem)
        _check_degree(options.degree, problem)
        report = self._reporter()
        return lambda rng: fit_equation_pieces(rows, problem, options, physics.symmetries, report)

    def _warn_if_unsolved(self, result: TrainingResult) -> None:
        if result.code not in ("converged", "interrupted"):
            # Past this method, two of fit and its wrapper, to the line that called fit.
            warnings.warn(result.message, ConvergenceWarning, stacklevel=5)

    # Prediction

    def _check_level(self, level: int | None) -> None:
        if level is None:
            return
        last = len(self.tree_) - 1
        whole = isinstance(level, Integral) and not isinstance(level, bool)
        if not (whole and 0 <= int(level) <= last):
            raise ValueError(
                f"level must be None or an int between 0 and {last}, the finest. Got {level!r}."
            )

    def predict(self, X, return_std=False, level=None, return_cov=False) -> Any:
        """Predict the mean of y (Eq. 8 of Trask et al. 2022), and its deviation or covariance.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also the predictive standard deviation of noise and model together, of Eq. 9 and
            of the coefficients' posterior. ``"noise"``: that of Eq. 9 alone. ``"epistemic"``:
            that of the predicted mean through the coefficients, and by errors at rows that were
            left out.
        level : int, default=None
            Level of the tree: 0 predicts with one polynomial for each coarsest partition (Eq.
            36; those of soft ones add up). None: the finest.
        return_cov : bool or "epistemic", default=False
            True: also the covariance of new measurements at all pairs of points, whose diagonal
            is the square of the standard deviation. ``"epistemic"``: that of the mean alone, by
            Eq. 8 for independent polynomials.

        Returns
        -------
        mean : ndarray or Tensor of shape (n,) or (n, n_outputs)
            In float64 also with ``dtype="float32"`` where y is too small or too far from zero,
            for its spread, to be held in single precision.
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        cov : ndarray or Tensor of shape (n, n) or (n, n, n_outputs)
            In squared units of y; only if asked for.

        Raises
        ------
        ValueError
            If there is no such level, or both deviation and covariance are asked for.
        """
        if "scaling_" not in self.__dict__:  # Looking for the reason takes long for one row.
            check_is_fitted(self)
        self._check_level(level)
        view = None if level is None or self._is_on_boxes() else self._view_at(level)
        return self._predict(X, return_std, view, return_cov)

    def _view_at(self, level: int) -> Any:
        """What makes of a model that of one level; the finest has its density about the mean."""
        finest = int(level) == len(self.tree_) - 1
        return lambda model: model if finest else _of_partitions(model).at(level)

    def _partitions(self, X, level, read):
        """What `read` makes of the partitions' logarithms, block by block."""
        check_is_fitted(self)
        self._check_level(level)
        points, _, origin = self._query(X)
        if self._is_on_boxes():
            pieces = Pieces.from_arrays(self.model_, points)
            return origin.send(self._in_blocks(points, pieces, lambda x, _: read(pieces.log_pi(x))))
        model = _of_partitions(self._unpacked_model(points))
        found = self._in_blocks(points, model, lambda x, _: read(model.tree.log_proba(x, level)))
        return origin.send(found)

    def partition_proba(self, X, level=None) -> Any:
        """Partitions of unity at some points (Eqs. 20 to 22 of Trask et al. 2022).

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        level : int, default=None
            Level of the tree, 0 the coarsest; None the finest.

        Returns
        -------
        ndarray or Tensor of shape (n, N)
            Rows sum to 1.
        """
        return self._partitions(X, level, lambda log_pi: log_pi.exp())

    def predict_partition(self, X, level=None) -> Any:
        """Number of the most probable partition at some points.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        level : int, default=None
            Level of the tree, 0 the coarsest; None the finest.

        Returns
        -------
        ndarray or Tensor of shape (n,), int64
        """
        return self._partitions(X, level, lambda log_pi: log_pi.argmax(1))

    def refit(self, X, y, sample_weight=None, *, degree=None) -> Any:
        """Solve for new polynomials while the gates stay as they are.

        The targets may be others than in fit, also in number.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points, with the columns of fit.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights.
        degree : int, default=None
            New total degree, stored in `degree_`; None keeps the fitted one.

        Returns
        -------
        self : estimator
        """
        check_is_fitted(self)
        if self._is_on_boxes():
            raise ValueError("refit solves for new polynomials in gates, which equations have not.")
        degree = self.degree_ if degree is None else degree
        if not isinstance(degree, Integral) or isinstance(degree, bool) or int(degree) < 0:
            raise ValueError(f"degree must be None or an int of at least 0. Got {degree!r}.")
        alpha = unless_auto(self.alpha)
        with self._earlier_fit_kept():
            like = owned(self.scaling_["width"], torch.float64, torch.device("cpu"))
            box = Scaling.from_arrays(self.scaling_, like)
            prepared = self._prepare(X, y, sample_weight, box=box)
            old = self._mixture(prepared.rows.X)
            check_memory(tuple(prepared.rows.X.shape), 1, degree, False, old.space)
            # A mixture with soft gates becomes a blend: Eq. 2 is solved for all experts at once.
            first_blended = old.tree.first_soft
            experts, alpha = fit_experts_to_gates(
                prepared.rows, old.tree, int(degree), alpha, first_blended, old.space
            )
            mixture = Mixture(old.tree, experts, int(degree), first_blended, old.space)
            mixture = mixture.flattened(worse_than_the_mean(mixture, prepared.rows))
            self._noise_law = None
            self._judge_between_rows(mixture, prepared)
            self.__dict__.update(
                scaling_=prepared.scaling.arrays(),
                _target_ndim=prepared.target_ndim,
                mixture_=mixture.arrays(),
                degree_=int(degree),
                alpha_=alpha,
            )
            self._store_density(mixture, prepared.rows)
        return self

    def _store_density(self, model: Mixture, rows: Rows) -> None:
        """Store a density about the mean; there is none but that of the partitions."""


def _of_partitions(model: Any) -> Any:
    """The mixture of a model that may have another density about its mean."""
    return model.model if isinstance(model, MixedResidues) else model


def _check_degree(degree: int | None, problem: Problem) -> None:
    """Refuse polynomials of whose derivatives those that an equation asks for vanish."""
    orders = [max(map(key[1].count, key[1]), default=0)
              for term in problem.terms for key in term.pointwise.keys]  # fmt: skip
    if degree is not None and degree < max(orders, default=0):
        raise ValueError(
            f"degree={degree!r} is below the order of the equations: derivatives of order "
            f"{max(orders)} of such polynomials vanish. Take a higher degree."
        )
