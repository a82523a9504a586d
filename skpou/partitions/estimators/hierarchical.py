"""HierarchicalPOURegressor: mixtures of polynomial experts on a tree of partitions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from skpou.base import (
    AUTO,
    COUNT,
    COUNT_OR_NONE,
    DENSITY,
    NOT_NEGATIVE,
    POSITIVE,
    Prepared,
    ResidueDensityMixin,
    StrOptions,
    fit_context,
    sections_of,
    unless_auto,
)
from skpou.core import Rows, Scaling, TrainingResult
from skpou.core.models import CLEAR_NOISE
from skpou.equations import PHYSICS_CONSTRAINTS
from skpou.networks import ACTIVATIONS
from skpou.partitions.estimators.discovery import discovery
from skpou.partitions.estimators.options import (
    FEWEST_OF_DENSITY,
    GATES,
    NETWORK_GATES,
    check_memory,
    check_together,
    parse_sizes,
    total_partitions,
)
from skpou.partitions.estimators.shared import BasePartitionRegressor
from skpou.partitions.estimators.streamed import StreamedPartitions
from skpou.partitions.estimators.trainers import Train, em_training, joint_training
from skpou.partitions.fit import PieceOptions
from skpou.partitions.mixtures.em import cycles_a_line
from skpou.partitions.pieces.spaces import POLYNOMIAL, SPACES

#: Parameters that only shape gates and their training, with their defaults.
OF_GATES = {
    "gate": "quadratic",
    "init": "data",
    "solver": "auto",
    "noise": "after",
    "alpha": "auto",
    "warm_start": False,
}


class WarmStart(BasePartitionRegressor):
    """What `HierarchicalPOURegressor` does with ``warm_start=True``."""

    def _warm_start_is_on(self, sizes: tuple[int, ...] | None) -> bool:
        if not (self.warm_start and self.__sklearn_is_fitted__()) or self._is_on_boxes():
            return False
        if self._fitted_sizes != sizes:
            raise ValueError(
                f"warm_start=True needs the n_partitions of the last fit, {self._fitted_sizes}. "
                f"Got {self.n_partitions!r}."
            )
        return True

    def _has_pieces(self, warm: bool) -> bool:
        """Whether there are pieces to go on from: what has a prior is found anew."""
        return warm and "prior" not in self.mixture_[-1]

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


class HierarchicalPOURegressor(ResidueDensityMixin, StreamedPartitions, WarmStart):
    """Polynomial pieces on a learned hierarchy of partitions, with error bars.

    The model is the mixture of experts of a hierarchical partition of unity network [1]_: a
    tree of softmax gates cuts the box of the data into partitions, each with a polynomial of
    bounded total degree and a noise level. Pieces are found bottom-up and gates go through the
    roots of neighbouring polynomials' differences, so that a piecewise polynomial is recovered
    to round-off between the samples, not only on them. The default needs no choice of yours; the
    training by expectation maximization that [1]_ prints, ``solver="em"``, is there for
    comparison and takes longer to a larger error.

    Parameters
    ----------
    n_partitions : "auto", int or tuple of int, default="auto"
        Upper bound of the number of partitions. An int bounds all of them and leaves the tree to
        the data: one level, or two where kinks separate groups of smoothly joined pieces.
        ``(4, 2)`` asks for at most 4 coarse partitions with at most 2 fine ones in each; any
        depth. ``"auto"``: as many as the data support.
    degree : "auto" or int, default="auto"
        Total degree of the polynomials, at least 0. ``"auto"``: chosen between 0 and 5 together
        with the number of pieces, or up to 40 for one smooth polynomial, see `solver`; with
        ``init="box"`` 2, or less where rows are too few for it.
    gate : {"quadratic", "linear", "rbf", "mlp", "residual"}, default="quadratic"
        Form of the gates' logits, hence of the boundaries: polynomials of degree 2 or 1,
        normalised Gaussian radial functions; or, with ``solver="em"``, plain and residual
        networks, one for each parent. With ``"quadratic"`` the coarsest sharp boundaries
        may take degree 3 or 4 where that removes nearly all of their error. Where there are
        fewer than five rows for each column of a gate, or many columns, gates are linear.
    hidden_layer_sizes : tuple of int, default=(10, 10)
        Hidden layers of ``"mlp"`` and ``"residual"`` gates.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Activation of their units.
    init : {"data", "box"}, default="data"
        ``"data"``: pieces discovered bottom-up. ``"box"``: exactly `n_partitions` random gates;
        networks by Box initialization, others by radial functions about random samples. Only
        for ``solver="em"`` and ``"varpro"``.
    solver : {"auto", "varpro", "em"}, default="auto"
        ``"auto"``: sharp gates at kinks and jumps, through the roots between pieces; inside
        them soft gates moved by variable projection, in a number that leave-one-out chooses. In up
        to three columns and 600 rows, or 3000 on lines, evenly placed soft partitions, or one
        polynomial whose coefficients have a prior variance that falls geometrically with the
        degree, at a rate for each column, take their place where they predict left-out rows and
        lines better. In tables with noise, of four columns or more, experts that deviate from one
        common polynomial as far as evidence allows take the place of pieces, with linear soft gates
        and a noise of their own, where they predict left-out rows better.
        ``"varpro"``: all gates soft, trained jointly. ``"em"``: expectation maximization in
        V-cycles (Algorithm 1); of all cycles the one of least residual is kept.
    smoothing : tuple of three int, default=(0, 1, 1)
        Of ``"em"``: relaxations of a level before and after that of the level above, and of the
        coarsest level in between: S_pre, S_coarse, S_post.
    learning_rate : float, default=5e-3
        Of ``"em"``: Adam's step for networks; other gates take Newton steps.
    noise : {"after", "em", "anneal"}, default="after"
        Of ``"em"``: noise of the partitions while training. ``"after"``: the rms of y, and Eq.
        18 at the end. ``"em"``: Eq. 18 in each cycle. ``"anneal"``: falls geometrically to 1e-4
        of the rms over `max_iter` cycles, then Eq. 18: far sharper for exact pieces.
    density : {"auto", "gaussian", "mixture"}, default="auto"
        Of y about its mean. ``"gaussian"``: each piece has its noise. ``"mixture"``: widths gated
        over X and the mean, from leave-one-out errors, for noise that varies within pieces.
        ``"auto"``: the mixture where it predicts left-out rows, at least 100, better; not with
        `physics`, nor of ``solver="em"``, whose own density is what it maximises. Rows count by
        their precision where one target's noise varies, unless this is ``"gaussian"``.
    alpha : "auto" or float, default="auto"
        Ridge of the polynomials' coefficients relative to the largest column norm, at least 0.
        ``"auto"``: by log evidence.
    physics : Equation, Condition, Symmetry or list of them, default=None
        Differential equations that the solution obeys, see `skpou.physics`. X and y are then
        boundary, initial and measured values; they may be empty. The partition is one of boxes,
        from a single one: boxes are cut where the residual at fresh points is large, and get a
        higher degree where their coefficients decay fast. Values, and slopes where there are
        second derivatives, are continued in the same least squares. Along a column whose
        conditions lie at its lower end only slabs are solved one after the other; in the plane
        they follow kinks in first values of hyperbolic equations along characteristics. An int for
        `n_partitions` bounds the boxes (of a slab, where there are some), an int for `degree`
        is that of all of them in every column; parameters of gates must keep their defaults.
    unknowns : dict of str to Unknown, default=None
        Constants of the equations that are fitted, see `skpou.physics.Unknown`.
    n_init : int, default=1
        Number of starts, of which the best score is kept.
    max_iter : int, default=1000
        Most levels of merging, of which a fit takes some ten to thirty; or most V-cycles.
    tol : float, default=1e-14
        Residual, relative to the rms of y, below which a fit counts as exact; not below
        round-off, 1e-13 in float64. ``"em"`` stops, too, when the residual changes by less than
        this share of itself in twenty cycles. With `physics` boxes are refined
        until the last coefficients are 1e4 times as large, relative to the solution.
    least_change : float, default=1e-4
        Of ``"em"``: share by which the residual must change in twenty cycles; `tol` where that is
        larger. With ``least_change=0, tol=0`` there are `max_iter` cycles unless the residual
        comes down to round-off: partitions may stand still for hundreds of cycles.
    batch_size : int, default=None
        Rows a block in predictions and a step of Adam. None: as many as fit into some 32 MB,
        and all of them. With a number, rows on disk are read in blocks of so many by
        ``solver="em"``: pieces are found on a sample, then cycles go over all rows.
    experts : {"polynomial", "fourier"}, default="polynomial"
        Space of the experts. ``"fourier"``: products of the waves ``sin(pi k t_j)`` and
        ``cos(pi k t_j)`` of the box coordinates t, with a total frequency of at most `degree`;
        their period is twice the box, so that pieces need not be periodic in it, and what has
        the box for its period has even k. For what oscillates: fewer functions than polynomials
        need. Only pieces and gates are found then, no smooth functions or shrunken
        experts in their place.
    warm_start : bool, default=False
        Start from the partitions of the last fit; n_partitions must not have changed. With
        ``"em"`` the gates go on in the box of the new data.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: starts, and errors
        at left-out rows.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. All is computed in it.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        starts.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is a level of merging, or a hundredth of the V-cycles.

    Attributes
    ----------
    coef_ : ndarray of shape (N, M) or (N, M, n_outputs)
        Coefficients of the finest partitions' polynomials in units of y: products of Legendre
        polynomials ``P_k(2 t - 1)`` of the box coordinates t, ordered by total degree, then
        lexicographically by their exponents. With ``experts="fourier"`` products of waves,
        ordered by total frequency, then by the columns' frequencies, sines before cosines.
    raw_polynomials_ : dict of ndarray
        The same polynomials in units of X; there are none with ``experts="fourier"``. ``"coef"``
        (N, M) or (N, M, n_outputs) multiply the products ``prod_j x_j ** p_j`` with the
        ``"powers"`` p (M, n_features_in_).
        ``"digits_lost"`` (N,) or (N, n_outputs): decimal digits, of the sixteen of float64, that
        cancel at worst when they are summed in the box of the data, in units of the rms of y
        about its mean. They are many where the box is narrow and far from zero; `coef_` loses
        none.
    tree_ : list of ndarray of int
        For each level, the coarsest first, the parent of every partition on the level above (0
        on the first level).
    degree_ : int
        Degree of the polynomials, or total frequency of the waves.
    alpha_ : float
        Ridge; of experts that deviate from a common polynomial, that of its highest degree; of
        one with a prior that falls with the degree, that of the constant.
    gate_ : str
        Form of the gates: ``"linear"`` where rows cannot carry the columns of `gate`, and where
        experts that deviate from a common polynomial took the place of pieces; `n_iter_` and
        `loss_curve_` are those of the pieces then.
    noise_ : ndarray of shape (N,) or (N, n_outputs)
        Noise standard deviation of every finest partition, in units of y.
    density_ : list of dict, or None
        Gates and variances of every target where the density is a mixture of gated widths, in
        scaled units; None where it is that of the pieces.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. Not with `physics`.
    n_iter_ : int
        Levels of merging, or V-cycles.
    loss_curve_ : list of float
        Score after each level; or, after each V-cycle, the negative log-likelihood of a row
        under the noise of that cycle. Lower is better.
    unknowns_ : dict of str to float
        Fitted constants of the equations; only with `physics`.
    unknowns_std_ : dict of str to float
        Their standard deviations; only with `physics`.
    equation_residual_ : float or list of float
        Root mean square of each equation's residual on fresh points; only with `physics`.
    model_ : dict
        Boxes, degrees, coefficients and deviations in scaled units; only with `physics`. Then
        there are no `mixture_` and no `gate_`, `degree_` is an array (N, d), `coef_` is padded
        with zeros to the products of the highest degrees, in lexicographic order, and `tree_`
        has one level.
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

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **BasePartitionRegressor._parameter_constraints,
        "n_partitions": [AUTO, COUNT, tuple],
        "degree": [AUTO, COUNT_OR_NONE],
        "gate": [StrOptions({*GATES, *NETWORK_GATES})],
        "hidden_layer_sizes": [tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "init": [StrOptions({"data", "box"})],
        "solver": [StrOptions({"auto", "varpro", "em"})],
        "smoothing": [tuple, list],
        "learning_rate": [POSITIVE],
        "noise": [StrOptions({"after", "em", "anneal"})],
        "density": [DENSITY],
        "alpha": [AUTO, NOT_NEGATIVE],
        **PHYSICS_CONSTRAINTS,
        "n_init": [COUNT],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
        "least_change": [NOT_NEGATIVE],
        "batch_size": [None, COUNT],
        "experts": [StrOptions(set(SPACES))],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        n_partitions="auto",
        degree="auto",
        *,
        gate="quadratic",
        hidden_layer_sizes=(10, 10),
        activation="tanh",
        init="data",
        solver="auto",
        smoothing=(0, 1, 1),
        learning_rate=5e-3,
        noise="after",
        density="auto",
        alpha="auto",
        physics=None,
        unknowns=None,
        n_init=1,
        max_iter=1000,
        tol=1e-14,
        least_change=1e-4,
        batch_size=None,
        experts="polynomial",
        warm_start=False,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.n_partitions = n_partitions
        self.degree = degree
        self.gate = gate
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.init = init
        self.solver = solver
        self.smoothing = smoothing
        self.learning_rate = learning_rate
        self.noise = noise
        self.density = density
        self.alpha = alpha
        self.physics = physics
        self.unknowns = unknowns
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.least_change = least_change
        self.batch_size = batch_size
        self.experts = experts
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BasePartitionRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> HierarchicalPOURegressor:
        """Find the pieces, their gates and their polynomials.

        Several outputs share the pieces.
        """
        sizes = parse_sizes(self.n_partitions)
        check_together(self.get_params(), sizes)
        physics = self._physics()
        if physics is not None:
            self._check_physics(physics, OF_GATES)
            most = None if sizes is None else total_partitions(sizes)
            degree = unless_auto(self.degree, int)
            return self._solve_on_boxes(X, y, sample_weight, physics, degree, most)
        warm = self._warm_start_is_on(sizes)
        if self._streams(X):
            with self._fitting(X, y, sample_weight):
                result = self._fit_streamed(X, y, sample_weight, sizes)
            self._warn_if_not_converged(result)
            return self
        with self._fitting(X, y, sample_weight):
            before = getattr(self, "n_features_in_", None)
            prepared = self._prepare(X, y, sample_weight)
            if warm and before != self.n_features_in_:
                raise ValueError(
                    f"warm_start=True needs the columns of the last fit, {before}. "
                    f"Got {self.n_features_in_}."
                )
            rows = prepared.rows
            exactly = self.init == "box" and not warm
            check_memory(
                tuple(rows.X.shape), total_partitions(sizes), self.degree, exactly, self.experts
            )
            pieces = self._piece_options(sizes, warm)
            last = self._mixture(rows.X).tree if warm and self.solver == "em" else None

            def training(prepared: Prepared) -> Train:
                if self.solver == "em":
                    report = self._reporter()
                    return em_training(prepared.rows, self.get_params(), pieces, last, report)
                if exactly:
                    return joint_training(prepared.rows, pieces)
                labels = self._warm_labels(prepared) if self._has_pieces(warm) else None
                return discovery(prepared.rows, pieces, labels, self._reporter())

            result = self._train_and_store(training(prepared), self.n_init, prepared, training)
        self._warn_if_not_converged(result)
        return self

    def _most_lines(self) -> int | None:
        # Rounds in which pieces are found are as many as it takes.
        random_start = self.solver == "em" and self.init == "box"
        if not random_start or self.physics is not None:
            return None
        most = int(self.max_iter)
        return int(self.n_init) * math.ceil(most / cycles_a_line(most))

    def _store_result(self, result: TrainingResult, prepared: Prepared) -> None:
        super()._store_result(result, prepared)
        self._fitted_sizes = parse_sizes(self.n_partitions)
        self._store_density(result.state, prepared.rows)

    def _store_density(self, model: Any, rows: Rows) -> None:
        # The density that expectation maximization fits stays unless another is asked for, and what
        # pieces of few or nearly exact rows miss is no noise: between rows it may be far more.
        own = self._is_on_boxes() or self.solver == "em" or rows.n_rows < FEWEST_OF_DENSITY
        own = own or float(model.experts[-1].noise.max()) < CLEAR_NOISE**2
        own = own and self.density == "auto"
        self.density_ = None if own else self._fitted_density(model, rows)

    _gaussian_model = BasePartitionRegressor._model

    def _piece_options(self, sizes: tuple[int, ...] | None, warm: bool) -> PieceOptions:
        degree = unless_auto(self.degree, int)
        return PieceOptions(
            sizes=sizes,
            degree=self.degree_ if degree is None and self._has_pieces(warm) else degree,
            gates=GATES["quadratic" if self.gate in NETWORK_GATES else self.gate],
            soft=self.solver == "varpro",
            alpha=unless_auto(self.alpha),
            max_iter=int(self.max_iter),
            tol=min(float(self.tol), 1.0),
            space=self.experts,
        )

    def _may_lean(self) -> bool:
        # Where pieces are asked for, they are what predicts.
        auto = (self.n_partitions, self.degree, self.solver, self.alpha)
        return auto == ("auto",) * 4 and self.experts == POLYNOMIAL
