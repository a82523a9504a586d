"""AdditivePOURegressor: main effects, pairs and triples of columns, with a density of the rest."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral

import torch

from skpou.additive.fit import MOST_ROWS, AdditiveOptions, fit_additive
from skpou.additive.fitted_terms import FittedTermsRegressor
from skpou.additive.given import places_of_terms
from skpou.additive.model import AdditiveModel
from skpou.additive.sums import AdditiveColumns, columns_of_box, columns_of_sample, fit_sums
from skpou.base import (
    AUTO,
    COUNT,
    NOT_NEGATIVE,
    Interval,
    Prepared,
    StrOptions,
    Summary,
    SummedRegressor,
    fit_context,
    random_generator,
    sections_of,
    unless_auto,
)
from skpou.core import Rows, Scaling, TrainingResult


class AdditivePOURegressor(FittedTermsRegressor):
    """Sums of functions of one, two and three columns, for tables with noise.

    Every term is a product of one-dimensional partitions of unity, cubic B-splines, taken in the
    order of their smoothness. Which terms there are, how many functions they have and how
    strongly they are shrunk is found by the evidence of the data [1]_, and so is whether columns
    are transformed first [2]_. The density of y about the mean is a mixture of Gaussians, gated
    over the columns and fitted to exact leave-one-out errors, so that intervals hold for rows
    that were not fitted.

    Parameters
    ----------
    max_order : int, default=3
        Most columns in a term, from 1 to 3. Triples are tried where two of their pairs matter.
    n_splines : "auto" or int, default="auto"
        Most functions of a main effect, at least 1. ``"auto"``: 4 to 12, fewer for many columns.
    remainder : {"auto", "columns", "local", "both", False}, default="auto"
        What may join the terms over all columns, where left-out rows are predicted better so.
        ``"columns"``: a block of up to 500 columns of a smooth kernel, for what no few columns
        tell. ``"local"``: what the terms leave at each row, smoothed from the 50 nearest ones, for
        rough detail; the model then holds all rows, some ``4 (n_features + 3)`` bytes of each.
        ``"both"``: either or both. ``"auto"``: the same, the local block from 500 rows of four
        columns on. False: none, for models to be read.
    density : {"mixture", "gaussian"}, default="mixture"
        ``"mixture"``: of up to 8 Gaussians whose weights depend on the point.
        ``"gaussian"``: one, of the same width everywhere.
    max_columns : int, default=800
        Most columns of the terms; it bounds time and memory. A block over all columns of X has
        up to as many again, but no more than 500.
    transform_columns : "auto" or bool, default="auto"
        Whether columns may be made more Gaussian by the transform of [2]_ first. ``"auto"``:
        with and without; both have a share in the prediction where they are close.
    max_iter : int, default=100
        Most iterations for the strengths of the terms.
    tol : float, default=1e-6
        Change of the log evidence a row at which they end.
    terms : "auto" or list of tuple of int, default="auto"
        Columns of X in every term, one to three each: ``[(0,), (1,), (0, 1)]``. A pair has what
        its main effects do not have, which are terms of their own. ``"auto"``: as
        evidence says; in `partial_fit` all main effects, and all pairs unless ``max_order=1`` or
        they do not fit.
    batch_size : int, default=None
        Rows a block in predictions. Given, rows on disk (``np.memmap``, HDF5, zarr), and those of
        many processes, are summed block by block and never held together; terms are searched for
        among 10000 of them. None: as many as fit into memory.
    bounds : array-like of shape (d, 2), default=None
        Lower and upper bound of every column. None: those of the rows, in `partial_fit` of those
        of its first call, where knots are at equal distances between them.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: targets, columns
        with and without a transform, and errors at left-out rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. Coefficients are solved for in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        rows of the remainder where there are many.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is one of growth.

    Attributes
    ----------
    terms_ : list of tuple of int
        Columns of every term: main effects, pairs, triples, and all columns for the remainder.
    effective_dof_ : ndarray of shape (n_terms,) or (n_outputs, n_terms)
        Effective degrees of freedom of each term.
    intercept_ : float or ndarray of shape (n_outputs,)
        What terms are added to, in units of y: the mean of the predictions over the data.
    noise_ : float or ndarray of shape (n_outputs,)
        Root mean square of the noise over the data, in units of y.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. It is missing where rows are
        streamed.
    n_iter_ : int
        Most iterations that a target took.
    scaling_ : dict of ndarray
        Box of the data (columns that vary, offset, width), mean and scale of the targets.
    model_ : list of dict
        State of every target in scaled units: bases, coefficients, their posterior, densities, and
        the rows of the local block where there is one.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    The standard deviation is predictive: noise and model together, in units of y. Outside the
    box of the data it grows with the distance.

    Several targets are fitted one by one and are independent given X.

    References
    ----------
    .. [1] D. MacKay, "Bayesian interpolation", Neural Computation 4 (1992).
    .. [2] I.-K. Yeo, R. Johnson, "A new family of power transformations to improve normality or
       symmetry", Biometrika 87 (2000).

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import AdditivePOURegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, (300, 3))
    >>> y = np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.standard_normal(300)
    >>> model = AdditivePOURegressor().fit(X, y)
    >>> mean, std = model.predict([[0.5, 0.5, 0.5]], return_std=True)
    >>> bool(abs(mean[0] - np.sin(1.5) - 0.25) < 0.05)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **FittedTermsRegressor._parameter_constraints,
        "max_order": [Interval(Integral, 1, 3, closed="both")],
        "n_splines": [AUTO, COUNT],
        "remainder": [StrOptions({"auto", "columns", "local", "both"}), "boolean"],
        "density": [StrOptions({"mixture", "gaussian"})],
        "max_columns": [COUNT],
        "transform_columns": [AUTO, "boolean"],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
        "terms": [AUTO, list, tuple],
        "batch_size": [None, COUNT],
        "bounds": [None, "array-like"],
    }

    _size_parameters = "max_columns"

    def __init__(
        self,
        max_order=3,
        *,
        n_splines="auto",
        remainder="auto",
        density="mixture",
        max_columns=800,
        transform_columns="auto",
        max_iter=100,
        tol=1e-6,
        terms="auto",
        batch_size=None,
        bounds=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.max_order = max_order
        self.n_splines = n_splines
        self.remainder = remainder
        self.density = density
        self.max_columns = max_columns
        self.transform_columns = transform_columns
        self.max_iter = max_iter
        self.tol = tol
        self.terms = terms
        self.batch_size = batch_size
        self.bounds = bounds
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SummedRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> AdditivePOURegressor:
        """Find the terms, their coefficients and the density of the rest.

        Each of several outputs has terms of its own.
        """
        with self._fitting(X, y, sample_weight):
            if self._streams(X):
                result = self._fit_streamed(X, y, sample_weight)
            else:
                prepared = self._prepare(X, y, sample_weight)
                first = self._trained(prepared)
                many = prepared.rows.n_rows > MOST_ROWS
                result, prepared = self._without_outliers(
                    first,
                    prepared,
                    lambda rest: self._trained(rest, first.state),
                    (lambda rest: self._terms_alone(rest, first.state)) if many else None,
                )
                self._judge_between_rows(result.state, prepared)
                self._store_result(result, prepared)
        self._warn_if_not_converged(result)
        return self

    def _trained(self, prepared: Prepared, known: AdditiveModel | None = None) -> TrainingResult:
        """A fit to prepared rows, which may go on from one to nearly the same."""
        options, rng = self._options(prepared.scaling), random_generator(self.random_state)
        report = self._reporter(stoppable=False)
        result = fit_additive(prepared.rows, options, rng, report, known)
        return self._no_worse_than_the_mean(result, prepared)

    def _terms_alone(self, prepared: Prepared, known: AdditiveModel) -> TrainingResult:
        """A fit of known terms with one Gaussian and no local block: a small part of the time."""
        options = replace(self._options(prepared.scaling), mixture=False, local=False)
        rng = random_generator(self.random_state)
        return fit_additive(prepared.rows, options, rng, None, known)

    def _summed_columns(self, box: Scaling) -> tuple[AdditiveColumns, int]:
        columns = columns_of_box(len(box.columns), self._options(box), box.offset)
        return columns, columns.n_columns

    def _streamed_columns(self, box: Scaling, sample: Rows) -> tuple[AdditiveColumns, int]:
        rng, report = random_generator(self.random_state), self._reporter(stoppable=False)
        columns = columns_of_sample(sample, self._options(box), rng, report)
        return columns, columns.n_columns

    def _fit_sums(
        self, summary: Summary, prepared: Prepared, columns: AdditiveColumns
    ) -> TrainingResult:
        scaling, sums = prepared.scaling, summary.sums
        y, sample = sums.targets(scaling.mean, scaling.scale), prepared.rows.to(torch.float64)
        return fit_sums(sums, y, columns, sample, self._options(scaling))

    def _options(self, box: Scaling) -> AdditiveOptions:
        transforms = (
            (True, False) if self.transform_columns == "auto" else (bool(self.transform_columns),)
        )
        return AdditiveOptions(
            max_order=int(self.max_order),
            n_splines=unless_auto(self.n_splines, int),
            remainder=self.remainder in ("auto", "columns", "both"),
            local="auto" if self.remainder == "auto" else self.remainder in ("local", "both"),
            mixture=self.density == "mixture",
            max_columns=int(self.max_columns),
            transforms=transforms,
            max_iter=int(self.max_iter),
            tol=float(self.tol),
            terms=places_of_terms(self.terms, box, self.n_features_in_),
        )

    def _may_give_way(self) -> bool:
        # It takes a term of all columns.
        return self.remainder not in (False, True) and isinstance(self.terms, str)

    def _may_lean(self) -> bool:
        return self._may_give_way()
