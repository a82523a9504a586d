"""HierarchicalPOURegressor: mixtures of polynomial experts on a tree of partitions."""

from __future__ import annotations

import math
import os
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou._base import BaseMixtureRegressor, InterruptedFit, Prepared
from skpou._compat import Interval, StrOptions, fit_context
from skpou._validation import owned
from skpou.bases.partitions import GateForm
from skpou.bases.polynomials import count_columns
from skpou.training.experts import experts_for_gates
from skpou.training.mixture import Components, Mixture
from skpou.training.pieces import PieceOptions, fit_pieces
from skpou.training.records import TrainingInterrupted, TrainingResult
from skpou.training.rows import Rows
from skpou.training.scaling import Scaling

#: Shapes of a gate's logits in the order in which they are tried.
GATES = {
    "quadratic": (GateForm(2), GateForm(3), GateForm(4)),
    "linear": (GateForm(1),),
    "rbf": (GateForm(2, isotropic=True),),
}


class HierarchicalPOURegressor(BaseMixtureRegressor):
    """Polynomial pieces on a learned hierarchy of partitions, with error bars.

    The model is the mixture of experts of a hierarchical partition of unity network [1]_: a
    tree of softmax gates cuts the box of the data into partitions, each with a polynomial of
    bounded total degree and a noise level. Pieces are found bottom-up and gates go through the
    roots of neighbouring polynomials' differences, so that a piecewise polynomial is recovered
    to round-off between the samples, not only on them.

    Parameters
    ----------
    n_partitions : "auto", int or tuple of int, default="auto"
        Upper bound of the number of partitions. An int bounds all of them and leaves the tree to
        the data: one level, or two where kinks separate groups of smoothly joined pieces.
        ``(4, 2)`` asks for at most 4 coarse partitions with at most 2 fine ones in each; any
        depth. ``"auto"``: as many as the data support.
    degree : "auto" or int, default="auto"
        Total degree of the polynomials, at least 0. ``"auto"``: chosen between 0 and 5 together
        with the number of pieces.
    gate : {"quadratic", "linear", "rbf"}, default="quadratic"
        Form of the gates' logits, hence of the boundaries: polynomials of degree 2 or 1, or
        normalised Gaussian radial functions. With ``"quadratic"`` the coarsest sharp boundaries
        may take degree 3 or 4 where that removes nearly all of their error. Where there are
        fewer than five rows for each column of a gate, or many columns, gates are linear.
    init : {"data"}, default="data"
        ``"data"``: pieces discovered bottom-up.
    solver : {"auto", "varpro"}, default="auto"
        ``"auto"``: sharp gates at kinks and jumps, through the roots between pieces; inside
        them soft gates moved by variable projection, in a number that leave-one-out chooses.
        ``"varpro"``: all gates soft, trained jointly.
    alpha : "auto" or float, default="auto"
        Ridge of the polynomials' coefficients relative to the largest column norm, at least 0.
        ``"auto"``: by log evidence.
    n_init : int, default=1
        Number of starts, of which the best score is kept.
    max_iter : int, default=1000
        Most levels of merging. A fit takes some ten to thirty.
    tol : float, default=1e-14
        Residual, relative to the rms of y, below which a fit counts as exact; not below
        round-off, 1e-13 in float64.
    batch_size : int, default=None
        Rows a block in predictions. None: as many as fit into some 32 MB.
    warm_start : bool, default=False
        Start from the partitions of the last fit; n_partitions must not have changed.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of all computations and results.
    random_state : int, RandomState, Generator or None, default=None
        Source of the random starts. None is a fixed one: two fits give the same bits.
    verbose : int, default=0
        Print a line for each level of merging.

    Attributes
    ----------
    coef_ : ndarray of shape (N, M) or (N, M, n_outputs)
        Coefficients of the finest partitions' polynomials in units of y: products of Legendre
        polynomials ``P_k(2 t - 1)`` of the box coordinates t, ordered by total degree, then
        lexicographically by their exponents.
    tree_ : list of ndarray of int
        For each level, the coarsest first, the parent of every partition on the level above (0
        on the first level).
    degree_ : int
        Degree of the polynomials.
    alpha_ : float
        Ridge.
    gate_ : str
        Form of the gates: ``"linear"`` where rows cannot carry the columns of `gate`.
    noise_ : ndarray of shape (N,) or (N, n_outputs)
        Noise standard deviation of every finest partition, in units of y.
    n_iter_ : int
        Levels of merging.
    loss_curve_ : list of float
        Score after each level; lower is better.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, offset, width), mean and scale of the targets.
    mixture_ : list of dict
        State of every level in scaled units: gates, coefficients, posterior factors, noise.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    References
    ----------
    .. [1] N. Trask, A. Henriksen, C. Martinez, E. C. Cyr, "Hierarchical partition of unity
       networks: fast multilevel training", MSML 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import HierarchicalPOURegressor
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> y = np.abs(X[:, 0])
    >>> model = HierarchicalPOURegressor().fit(X, y)
    >>> len(model.coef_), model.degree_
    (2, 1)
    >>> mean, std = model.predict([[0.5]], return_std=True)
    >>> bool(abs(mean[0] - 0.5) < 1e-12 and std[0] < 1e-12)
    True
    """

    _parameter_constraints: dict = {
        **BaseMixtureRegressor._parameter_constraints,
        "n_partitions": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), tuple],
        "degree": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "gate": [StrOptions(set(GATES))],
        "init": [StrOptions({"data"})],
        "solver": [StrOptions({"auto", "varpro"})],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        n_partitions="auto",
        degree="auto",
        *,
        gate="quadratic",
        init="data",
        solver="auto",
        alpha="auto",
        n_init=1,
        max_iter=1000,
        tol=1e-14,
        batch_size=None,
        warm_start=False,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ):
        self.n_partitions = n_partitions
        self.degree = degree
        self.gate = gate
        self.init = init
        self.solver = solver
        self.alpha = alpha
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Find the pieces, their gates and their polynomials.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, n_outputs)
            Targets. Several outputs share the pieces.
        sample_weight : array-like or Tensor of shape (n,), default=None
            Frequency weights: weight 2 is the row twice, weight 0 the row removed.

        Returns
        -------
        self : HierarchicalPOURegressor
        """
        sizes = self._sizes()
        start = self._warm_labels_needed(sizes)
        with self._earlier_fit_kept():
            before = getattr(self, "n_features_in_", None)
            prepared = self._prepare(X, y, sample_weight)
            if start and before != self.n_features_in_:
                raise ValueError(
                    f"warm_start=True needs the columns of the last fit, {before}. "
                    f"Got {self.n_features_in_}."
                )
            self._check_memory(prepared.rows, sizes, self.degree)
            labels = self._warm_labels(prepared) if start else None
            options = self._options(sizes, start)
            try:
                result = self._best_of(
                    lambda rng: fit_pieces(prepared.rows, options, rng, labels, self._reporter()),
                    self.n_init,
                )
            except TrainingInterrupted as stopped:
                self._keep_interrupted(stopped, prepared)
                raise
            self._store_result(result, prepared)
        self._warn_if_not_converged(result)
        return self

    def _sizes(self) -> tuple[int, ...] | None:
        """n_partitions as one bound a level, or None for "auto"."""
        if isinstance(self.n_partitions, str):
            return None
        sizes = self.n_partitions if isinstance(self.n_partitions, tuple) else (self.n_partitions,)
        whole = all(isinstance(s, Integral) and not isinstance(s, bool) for s in sizes)
        if not (sizes and whole and all(int(s) > 0 for s in sizes)):
            raise ValueError(
                "n_partitions must be 'auto', a positive int, or a non-empty tuple of positive "
                f"ints, one a level, such as (4, 2). Got {self.n_partitions!r}."
            )
        return tuple(int(s) for s in sizes)

    def _options(self, sizes: tuple[int, ...] | None, warm: bool) -> PieceOptions:
        degree = None if self.degree == "auto" else int(self.degree)
        return PieceOptions(
            sizes=sizes,
            degree=self.degree_ if warm and degree is None else degree,
            gates=GATES[self.gate],
            soft=self.solver == "varpro",
            alpha=None if self.alpha == "auto" else float(self.alpha),
            max_iter=int(self.max_iter),
            tol=min(float(self.tol), 1.0),
        )

    def _check_memory(self, rows: Rows, sizes: tuple[int, ...] | None, degree) -> None:
        """Refuse a degree whose basis does not fit into memory, before allocating it."""
        if degree == "auto":
            return
        n_columns = count_columns(rows.n_features, int(degree))
        n_pieces = min(math.prod(sizes or (1,)), rows.n_rows)
        numbers = 3 * rows.n_rows * n_columns + (n_pieces + 4) * n_columns**2
        if n_columns > max(4 * rows.n_rows, 4000):
            raise ValueError(
                f"degree={degree} in {rows.n_features} dimensions has {n_columns} "
                f"polynomials ({8e-9 * n_columns**2:.3g} GB a factor), more than {rows.n_rows} "
                "distinct rows can determine. Lower degree, or reduce the number of columns of X."
            )
        needed = 8e-9 * numbers
        physical = 1e-9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > 0.8 * physical:
            raise ValueError(
                f"degree={degree} in {rows.n_features} dimensions has {n_columns} "
                f"polynomials, whose fit needs about {needed:.3g} GB of {physical:.3g} GB. Lower "
                "degree, or reduce the number of columns of X."
            )

    # Warm start and interrupts

    def _warm_labels_needed(self, sizes: tuple[int, ...] | None) -> bool:
        if not (self.warm_start and self.__sklearn_is_fitted__()):
            return False
        if self._fitted_sizes != sizes:
            raise ValueError(
                f"warm_start=True needs the n_partitions of the last fit, {self._fitted_sizes}. "
                f"Got {self.n_partitions!r}."
            )
        return True

    def _warm_labels(self, prepared: Prepared) -> Tensor:
        """Partition of each new row under the last fit."""
        if prepared.rows.n_features != self._n_varying():
            raise ValueError(
                "warm_start=True needs the columns of the last fit: "
                f"{self._n_varying()} that vary. Got {prepared.rows.n_features}."
            )
        old = Scaling.from_arrays(self.scaling_, prepared.scaling.width)
        rows = prepared.rows
        original = prepared.scaling.offset + prepared.scaling.width * rows.X
        points = ((original - old.offset) / old.width).to(rows.X.dtype)
        labels = self._mixture(points).tree.log_proba(points).argmax(1)
        return torch.unique(labels, return_inverse=True)[1]

    def _n_varying(self) -> int:
        """Number of columns of X that vary."""
        return len(self.scaling_["columns"])

    def _keep_interrupted(self, stopped: TrainingInterrupted, prepared: Prepared) -> None:
        if stopped.result is None:
            raise KeyboardInterrupt from None
        self._store_result(stopped.result, prepared)
        kept = "The best of the starts that were finished is kept."
        if stopped.result.code == "interrupted":
            kept = "The best pieces found so far are kept, with gates that were not sharpened."
        warnings.warn(f"fit was interrupted. {kept}", UserWarning, stacklevel=4)
        raise InterruptedFit from None

    # State

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        # All at once: an interrupt in between must not mix two fits.
        self.__dict__.update(
            scaling_=prepared.scaling.arrays(),
            _target_ndim=prepared.target_ndim,
            _fitted_sizes=self._sizes(),
            mixture_=result.state.arrays(),
            degree_=result.chosen["degree"],
            alpha_=result.chosen["alpha"],
            gate_=next(k for k, v in GATES.items() if v[0] == result.chosen["gate"]),
            n_iter_=result.n_iter,
            loss_curve_=result.curve,
        )

    def _mixture(self, like: Tensor) -> Mixture:
        return Mixture.from_arrays(self._n_varying(), self.degree_, self.mixture_, like)

    @property
    def coef_(self):
        """Coefficients of the finest partitions' polynomials in units of y."""
        check_is_fitted(self)
        coef = self.mixture_[-1]["coef"] * self.scaling_["scale"]
        coef[:, 0] += self.scaling_["mean"]
        return coef[:, :, 0] if self._target_ndim == 1 else coef

    @property
    def noise_(self):
        """Noise standard deviations of the finest partitions in units of y."""
        check_is_fitted(self)
        noise = np.sqrt(self.mixture_[-1]["noise"]) * self.scaling_["scale"]
        return noise[:, 0] if self._target_ndim == 1 else noise

    @property
    def tree_(self):
        """Parents of every level's partitions."""
        check_is_fitted(self)
        return [level["parent"] for level in self.mixture_]

    # Prediction

    def _components(self, points: Tensor, posterior: bool, level: int | None = None) -> Components:
        return self._mixture(points).components(points, level, posterior=posterior)

    def _mean_gradient(self, points: Tensor) -> Tensor:
        return self._mixture(points).gradient(points)

    def _numbers_per_row(self) -> int:
        return self._mixture(torch.zeros(1)).numbers_per_row()

    def _check_level(self, level: int | None) -> None:
        last = len(self.mixture_) - 1
        whole = isinstance(level, Integral) and not isinstance(level, bool)
        if level is not None and not (whole and 0 <= int(level) <= last):
            raise ValueError(
                f"level must be None or an int between 0 and {last}, the finest. Got {level!r}."
            )

    def predict(self, X, return_std=False, level=None):
        """Predict the mean of y (Eq. 8 of Trask et al. 2022), and its standard deviation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        return_std : bool, "epistemic" or "noise", default=False
            True: also the predictive standard deviation, of Eq. 9 and of the coefficients'
            posterior together. ``"noise"``: that of Eq. 9 alone. ``"epistemic"``: that of the
            predicted mean through the coefficients.
        level : int, default=None
            Level of the tree: 0 predicts with one polynomial for each coarsest partition (Eq.
            36). None: the finest.

        Returns
        -------
        mean : ndarray or Tensor of shape (n,) or (n, n_outputs)
        std : ndarray or Tensor of the same shape
            In units of y; only if asked for.
        """
        check_is_fitted(self)
        self._check_level(level)
        return self._predict_level(X, return_std, level)

    def _partitions(self, X, level, read):
        """What `read` makes of the partitions' logarithms, block by block."""
        check_is_fitted(self)
        self._check_level(level)
        points, _, origin = self._query(X)
        return origin.send(
            self._in_blocks(points, lambda x, _: read(self._mixture(x).tree.log_proba(x, level)))
        )

    def partition_proba(self, X, level=None):
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

    def predict_partition(self, X, level=None):
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

    def refit(self, X, y, sample_weight=None, *, degree=None):
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
        self : HierarchicalPOURegressor
        """
        check_is_fitted(self)
        degree = self.degree_ if degree is None else degree
        if not isinstance(degree, Integral) or isinstance(degree, bool) or int(degree) < 0:
            raise ValueError(f"degree must be None or an int of at least 0. Got {degree!r}.")
        alpha = None if self.alpha == "auto" else float(self.alpha)
        with self._earlier_fit_kept():
            like = owned(self.scaling_["width"], torch.float64, torch.device("cpu"))
            box = Scaling.from_arrays(self.scaling_, like)
            prepared = self._prepare(X, y, sample_weight, box=box)
            self._check_memory(prepared.rows, None, degree)
            old = self._mixture(prepared.rows.X)
            experts, alpha = experts_for_gates(
                prepared.rows, old.tree, int(degree), alpha, old.first_blended
            )
            self.__dict__.update(
                scaling_=prepared.scaling.arrays(),
                _target_ndim=prepared.target_ndim,
                mixture_=Mixture(old.tree, experts, int(degree), old.first_blended).arrays(),
                degree_=int(degree),
                alpha_=alpha,
            )
        return self
