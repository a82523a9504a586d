"""POURegressor: polynomials on one level of partitions of unity."""

from __future__ import annotations

from skpou.base import (
    AUTO,
    COUNT,
    COUNT_OR_NONE,
    NOT_NEGATIVE,
    SHARE,
    Prepared,
    StrOptions,
    fit_context,
    is_by_default,
    sections_of,
    unless_auto,
)
from skpou.core import TrainingResult
from skpou.equations import PHYSICS_CONSTRAINTS
from skpou.networks import ACTIVATIONS
from skpou.partitions.blends.soft_partitions import SoftOptions
from skpou.partitions.estimators.options import GATES, NETWORK_GATES, check_memory, parse_form
from skpou.partitions.estimators.shared import BasePartitionRegressor
from skpou.partitions.estimators.trainers import Train, joint_training, soft_training
from skpou.partitions.fewer import fit_again, fit_no_worse
from skpou.partitions.fit import PieceOptions
from skpou.partitions.gates.tree import GateForm, NetworkForm
from skpou.partitions.grown import can_grow
from skpou.partitions.pieces.spaces import SPACES
from skpou.partitions.smooth.fit import smooth_where_better

#: Parameters that only shape gates and their training, with their defaults.
OF_GATES = {"gate": "rbf", "init": "data", "solver": "varpro", "alpha": "auto"}

#: Share of the rows that may be set apart as outliers for the pieces to go on from where they were:
#: more may have drawn them.
FEW = 0.01


class POURegressor(BasePartitionRegressor):
    """Polynomials on exactly so many partitions of unity, with error bars.

    A partition of unity network [1]_ of one level: a softmax of gates cuts the box of the data
    into partitions, each with a polynomial of bounded total degree. Gates and polynomials are
    fitted together by variable projection. Where kinks or jumps separate all pieces, gates are
    sharp and go through the roots between neighbouring polynomials.

    Parameters
    ----------
    n_partitions : int, default=8
        Number of partitions. Those without samples enough for a polynomial stay empty; with
        ``init="data"`` and ``solver="varpro"`` so do those without which left-out rows are
        predicted better: with noise half as many and so on are tried. Without, soft pieces are
        found a second and a third time, from half as many and from a degree less, so that more
        pieces and higher degrees are no worse.
        Polynomials of more than 100 columns are no more than there are rows for their unknowns.
    degree : int, default=2
        Total degree of the polynomials, at least 0.
    gate : {"rbf", "quadratic", "linear", "residual", "mlp"}, default="rbf"
        Form of the gates' logits: normalised Gaussian radial functions, polynomials of degree 2
        or 1, a residual or a plain network. Where there are fewer than five rows for each column
        of a gate, polynomials are linear. Error bars leave out what the data do not say about
        gates that are networks, which matters with few rows, and about all gates with noise above
        a thousandth of y.
    init : {"data", "box"}, default="data"
        ``"data"``: pieces discovered bottom-up, halved until there are enough; or evenly placed
        ones of one width, not moved, where rows are few and left-out rows say so. ``"box"``: radial
        functions about random samples or networks by Box initialization; all gates stay soft.
    solver : {"varpro", "lsgd"}, default="varpro"
        ``"varpro"``: Levenberg-Marquardt on the gates, polynomials eliminated by least squares.
        ``"lsgd"``: Algorithm 2 of [1]_, least squares for the polynomials between gradient steps
        of the gates, first with a ridge that decays, then without one; all gates stay soft.
    hidden_layer_sizes : tuple of int, default=(10, 10)
        Widths of the hidden layers of networks.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of their units.
    alpha : "auto" or float, default="auto"
        Ridge of the polynomials' coefficients relative to the largest column norm, at least 0.
        ``"auto"``: tied to progress in training, by log evidence at its end. With
        ``solver="lsgd"`` the ridge at the start, by default 0.3, while the last one is always
        chosen by log evidence.
    alpha_decay : float, default=0.5
        Of ``solver="lsgd"``: factor of the squared ridge each time progress stagnates, in (0, 1).
    patience : int, default=50
        Of ``solver="lsgd"``: steps without progress that count as stagnation.
    pre_iter : "auto" or int, default="auto"
        Of ``solver="lsgd"``: most steps with the ridge that decays, at least 0 and at most
        `max_iter`; the others are without a ridge. ``"auto"``: half of `max_iter`.
    physics : Equation, Condition, Symmetry or list of them, default=None
        Differential equations that the solution obeys, see `skpou.physics`. X and y are then
        boundary, initial and measured values; they may be empty. The partitions are exactly
        `n_partitions` boxes, cut one after the other where the error is largest, with products
        of polynomials of the given degree in every column; parameters of gates must keep their
        defaults. See `HierarchicalPOURegressor` for boxes and degrees that are chosen.
    unknowns : dict of str to Unknown, default=None
        Constants of the equations that are fitted, see `skpou.physics.Unknown`.
    n_init : int, default=1
        Number of starts, of which the best score is kept.
    max_iter : int, default=1000
        Most levels of merging, of which a fit takes some ten to thirty, and most steps on the
        gates; those of ``solver="varpro"`` are also bounded by their cost.
    tol : float, default=1e-14
        Residual, relative to the rms of y, below which a fit counts as exact; not below
        round-off, 1e-13 in float64.
    batch_size : int, default=None
        Rows a block in predictions. None: as many as fit into memory.
    experts : {"polynomial", "fourier"}, default="polynomial"
        Space of the experts. ``"fourier"``: products of the waves ``sin(pi k t_j)`` and
        ``cos(pi k t_j)`` of the box coordinates t, with a total frequency of at most `degree`;
        their period is twice the box, so that pieces need not be periodic in it, and what has
        the box for its period has even k. For what oscillates: fewer functions than polynomials
        need. Pieces are then kept whatever even
        partitions would do.
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
        step is a level of merging.

    Attributes
    ----------
    coef_ : ndarray of shape (N, M) or (N, M, n_outputs)
        Coefficients of the partitions' polynomials in units of y: products of Legendre
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
    degree_ : int
        Degree of the polynomials, or total frequency of the waves.
    alpha_ : float
        Ridge.
    gate_ : str
        Form of the gates: ``"linear"`` where rows cannot carry the columns of `gate`.
    noise_ : ndarray of shape (N,) or (N, n_outputs)
        Noise standard deviation of every partition, in units of y.
    outliers_ : ndarray of shape (k,)
        Numbers of the rows of X that were set apart as outliers; the fit is that of the others,
        and so is `noise_`. Not with `physics`.
    n_iter_ : int
        Levels of merging, or steps on the gates with ``init="box"``, networks or
        ``solver="lsgd"``.
    loss_curve_ : list of float
        Score after each of them; lower is better.
    unknowns_ : dict of str to float
        Fitted constants of the equations; only with `physics`.
    unknowns_std_ : dict of str to float
        Their standard deviations; only with `physics`.
    equation_residual_ : float or list of float
        Root mean square of each equation's residual on fresh points; only with `physics`.
    model_ : dict
        Boxes, degrees, coefficients and deviations in scaled units; only with `physics`. Then
        there are no `mixture_` and no `gate_`, and `degree_` is an array (N, d).
    scaling_ : dict of ndarray
        Box of the data (columns that vary, offset, width), mean and scale of the targets.
    mixture_ : list of dict
        State of the level in scaled units: gates, coefficients, posterior factors, noise.
    tree_ : list of ndarray of int
        A single array of zeros: all partitions have one parent.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    References
    ----------
    .. [1] K. Lee, N. Trask, R. Patel, M. Gulian, E. Cyr, "Partition of unity networks: deep
       hp-approximation", AAAI-MLPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import POURegressor
    >>> X = np.linspace(0, 1, 300)[:, None]
    >>> y = np.sin(6 * X[:, 0])
    >>> model = POURegressor(4, 4).fit(X, y)
    >>> model.partition_proba(X).shape
    (300, 4)
    >>> bool(abs(model.predict([[0.5012]])[0] - np.sin(6 * 0.5012)) < 1e-8)
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **BasePartitionRegressor._parameter_constraints,
        "n_partitions": [COUNT],
        "degree": [COUNT_OR_NONE],
        "gate": [StrOptions({*GATES, *NETWORK_GATES})],
        "init": [StrOptions({"data", "box"})],
        "solver": [StrOptions({"varpro", "lsgd"})],
        "hidden_layer_sizes": [tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "alpha": [AUTO, NOT_NEGATIVE],
        "alpha_decay": [SHARE],
        "patience": [COUNT],
        "pre_iter": [AUTO, COUNT_OR_NONE],
        **PHYSICS_CONSTRAINTS,
        "n_init": [COUNT],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
        "batch_size": [None, COUNT],
        "experts": [StrOptions(set(SPACES))],
    }

    def __init__(
        self,
        n_partitions=8,
        degree=2,
        *,
        gate="rbf",
        init="data",
        solver="varpro",
        hidden_layer_sizes=(10, 10),
        activation="tanh",
        alpha="auto",
        alpha_decay=0.5,
        patience=50,
        pre_iter="auto",
        physics=None,
        unknowns=None,
        n_init=1,
        max_iter=1000,
        tol=1e-14,
        batch_size=None,
        experts="polynomial",
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.n_partitions = n_partitions
        self.degree = degree
        self.gate = gate
        self.init = init
        self.solver = solver
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.alpha = alpha
        self.alpha_decay = alpha_decay
        self.patience = patience
        self.pre_iter = pre_iter
        self.physics = physics
        self.unknowns = unknowns
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.experts = experts
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BasePartitionRegressor.fit)
    def fit(self, X, y, sample_weight=None) -> POURegressor:
        """Find the partitions and their polynomials.

        Several outputs share the partitions.
        """
        form = parse_form(self.gate, self.hidden_layer_sizes, self.activation)
        if isinstance(self.n_partitions, bool):
            raise ValueError(f"n_partitions must be a positive int. Got {self.n_partitions!r}.")
        if self.pre_iter != "auto" and self.pre_iter > self.max_iter:
            raise ValueError(
                f"pre_iter={self.pre_iter!r} are more steps than max_iter={self.max_iter!r}."
            )
        physics = self._physics()
        if physics is not None:
            self._check_physics(physics, OF_GATES)
            degree, number = int(self.degree), int(self.n_partitions)
            return self._solve_on_boxes(X, y, sample_weight, physics, degree, number, exactly=True)
        with self._fitting(X, y, sample_weight):
            prepared = self._prepare(X, y, sample_weight)
            check_memory(
                tuple(prepared.rows.X.shape),
                int(self.n_partitions),
                self.degree,
                True,
                self.experts,
            )
            before: list[tuple[int, TrainingResult]] = []
            train = self._training(prepared, form, before)
            result = self._train_and_store(
                train, self.n_init, prepared, lambda others: self._training(others, form, before)
            )
        self._warn_if_not_converged(result)
        return self

    def _may_interpolate(self) -> bool:
        # Partitions of a number that was given are what was asked for.
        return is_by_default(self)

    def _most_lines(self) -> int | None:
        soft = self.gate in NETWORK_GATES or self.solver == "lsgd"
        if not soft or self.init != "box" or self.physics is not None:
            return None
        return int(self.n_init) * int(self.max_iter)

    def _training(
        self,
        prepared: Prepared,
        form: GateForm | NetworkForm,
        before: list[tuple[int, TrainingResult]],
    ) -> Train:
        """Training from a random start, or from pieces of hardly other rows `before`.

        These come with their number of rows.
        """
        alpha = unless_auto(self.alpha)
        network = self.gate in NETWORK_GATES
        pieces = PieceOptions(
            sizes=(int(self.n_partitions),),
            degree=int(self.degree),
            gates=GATES["quadratic" if network else self.gate],
            tol=min(float(self.tol), 1.0),
            alpha=alpha,
            max_iter=int(self.max_iter),
            exactly=True,
            space=self.experts,
        )
        if network or self.solver == "lsgd":
            soft = SoftOptions(
                int(self.n_partitions),
                int(self.degree),
                form,
                solver=self.solver,
                alpha_decay=float(self.alpha_decay),
                patience=int(self.patience),
                pre_iter=unless_auto(self.pre_iter, int),
                alpha=alpha,
                max_iter=int(self.max_iter),
                tol=float(self.tol),
                space=self.experts,
            )
            report = self._reporter()
            return soft_training(prepared.rows, pieces, soft, self.init == "data", report)
        if self.init == "box":
            return joint_training(prepared.rows, pieces)
        rows, report = prepared.rows, self._reporter()
        last = [found for n, found in before if (1 - FEW) * n <= rows.n_rows and can_grow(found)]

        def train(rng):
            if last:
                found = fit_again(rows, pieces, last[-1], report)
            else:
                found = fit_no_worse(rows, pieces, rng, report)
            before.append((rows.n_rows, found))
            return smooth_where_better(found, rows, pieces)

        return train
