"""NeuralSparseGridClassifier: classes by functions on a sparse grid behind an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skpou.base import (
    BaseClassifier,
    PreparedClasses,
    SampledClassifier,
    StrOptions,
    SummedClassifier,
    available_if,
    fit_context,
    indicators_of,
    lies_on_disk,
    sections_of,
)
from skpou.core import Scaling
from skpou.core.linalg import count, gather
from skpou.neural_sparse_grids.estimator import NeuralGridEstimator
from skpou.sparse_grids import METHODS


class NeuralSparseGridClassifier(NeuralGridEstimator, SampledClassifier):
    """Classification on a sparse grid of few dimensions into which a network maps the data.

    A neural network, the encoder, maps a point into the unit box, and one function a class on a
    sparse grid of that box (Eq. 3.23 of [1]_) is its logit, probability or density. Each latent
    coordinate is scaled by itself, so that the embeddings fill the grid.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int, default=(15, 15)
        Widths of the hidden layers of ``encoder="mlp"``, at least 1.
    n_components : int, default=2
        Dimension of the embedding and of the grid, at least 1.
    level : int, default=5
        Level of the sparse grid, from 1 to 30. ``"varpro"`` begins with coarser ones, and keeps
        one where the evidence is against finer ones: see `level_`.
    method : {"softmax", "one_hot", "density"}, default="softmax"
        What the grid's functions are. ``"softmax"``: logits of the classes (Eq. 3.23).
        ``"one_hot"``: regressions on the classes' indicators. ``"density"``: densities of the
        classes in the box of the grid, and Bayes' rule; see `SparseGridClassifier`.
    boundary : {"modified", "zero", "full", "truncated"}, default="modified"
        The functions at the faces of the grid's box; see `SparseGridRegressor`. Under ``"zero"``
        training stops for rows whose embeddings reach a face.
    margin : float, default=0.0
        Distance of the embeddings from the faces, from 0 to below 0.5.
    encoder : {"mlp", "cnn"} or function, default="mlp"
        ``"mlp"``: a plain network. ``"cnn"``: three convolutions of 3 x 3 with batch
        normalisation and pooling, for images. A function ``(n_features_in, n_components) ->
        torch.nn.Module`` that can be imported: its module maps (n, n_features_in) to
        (n, n_components) finite numbers, in float64 unless `dtype` is another, which are
        scaled and squashed into the box.
    image_shape : tuple of int, default=None
        Channels, height and width of the images in the rows of X; for ``encoder="cnn"``.
    activation : {"tanh", "relu", "sin"}, default="tanh"
        Function of the hidden units of ``"mlp"``.
    coef_solver : {"auto", "gradient", "direct", "iterative", "varpro"}, default="auto"
        How the coefficients of the grid are found. ``"gradient"``: by minibatch steps, along with
        the encoder (SGD in [1]_). ``"direct"``: by least squares before every step of the encoder
        (LS). ``"iterative"``: by some steps of conjugate gradients before every step (ILS).
        ``"varpro"``: eliminated; Levenberg-Marquardt steps of the encoder. ``"auto"``: varpro
        for an ``"mlp"`` whose matrices are small, unless method is ``"density"``, else gradient.
        Direct, iterative and, without ``"softmax"``, varpro train the encoder on the classes'
        indicators; the grid is then fitted by `method`.
    optimizer : {"adam", "sgd"}, default="adam"
        Steps of all solvers but ``"varpro"``.
    learning_rate : float, default=1e-2
        Highest rate of the one-cycle schedule, positive.
    batch_size : int, default=256
        Rows a step of ``"gradient"``.
    max_iter : int, default=200
        Passes over the rows, or steps of ``"varpro"``.
    tol : float, default=1e-8
        Relative residual that counts as none, and relative change of the loss over
        `n_iter_no_change` passes that ends training.
    alpha : "auto" or float, default="auto"
        Ridge of the coefficients relative to the largest column norm, at least 0, which grows by
        4 from level to level; for ``"density"`` the length over which densities are smoothed.
        ``"auto"``: by log evidence or as in `SparseGridClassifier`, 1e-2 for the logits of
        first-order training.
    early_stopping : "auto" or bool, default="auto"
        Whether rows are held out to judge the iterates, of which the best is returned. ``"auto"``:
        from 10,000 rows on.
    validation_fraction : float, default=0.1
        Share of the rows held out, between 0 and 1.
    n_iter_no_change : int, default=10
        Passes without a better score on the rows held out after which training stops.
    bounds : array-like of shape (d, 2), default=None
        Lower and upper bound of every column, from which points are scaled. None: those of the
        rows, in `partial_fit` of those of its first call.
    n_jobs : int, default=None
        Threads, as joblib counts them, for predictions of many rows and for what a fit can do side
        by side; None is 1. Results do not depend on it. Side by side in a fit: nothing.
    device : str, default="auto"
        ``"auto"``: that of X if it is a tensor, else CUDA where there is one; or ``"cpu"``,
        ``"cuda"``, ``"cuda:1"``.
    dtype : {"float64", "float32"}, default="float64"
        Precision of inputs and predictions. The encoder is trained in it; ``"varpro"`` and the last
        coefficients are computed in float64.
    random_state : int, RandomState, Generator or None, default=None
        Source of all random draws. None is a fixed one: two fits give the same bits. Drawn are the
        start and the minibatches.
    verbose : int, default=0
        Above 0: print a line for each step, and what remains where the number of steps is known. A
        step is a pass, or a round of steps.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels in their order.
    coef_ : ndarray of shape (n_points, n_classes)
        Coefficients (surpluses) of one function a class.
    grid_points_ : ndarray of shape (n_points, n_components)
        Grid points in the unit box of the embedding.
    active_fraction_ : float
        Share of the grid's functions that are not zero at some training point.
    level_ : int
        Level of the grid.
    alpha_ : float
        Ridge of level 1, or length.
    coef_solver_ : str
        How the coefficients were found.
    n_iter_ : int
        Passes, or steps.
    loss_curve_ : list of float
        Loss for each pass or each round of steps: mean negative log likelihood, or mean square of
        the residual.
    scaling_ : dict of ndarray
        Box of the data: columns that vary, in the order of the fit, offset, width.
    model_ : dict
        State in scaled units: encoder, grid, coefficients.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had any.

    Notes
    -----
    Probabilities are calibrated on left-out observations: a factor on what the logits add to those
    of the classes' shares makes their classes most likely. A logistic regression of the same rows,
    in the columns and in ramps between their quantiles, is joined to the logits by a factor of its
    own where left-out observations are better for it.

    Observations are left out by a Newton step in all parameters; where these are too many, and
    with other encoders than ``"mlp"``, in those of the grid alone, of which long trainings are
    surer than they should be. Where rows are held out (`early_stopping`) these are taken.
    `partial_fit` does without.

    References
    ----------
    .. [1] Zhen Zhang, "Neural Sparse Grids for High-Dimensional Data" (TU Munich, 2021), chapter 3.

    Examples
    --------
    >>> from skpou import NeuralSparseGridClassifier
    >>> from skpou.datasets import make_two_moons_3d
    >>> X, y = make_two_moons_3d(2000, noise=0.1, random_state=0)
    >>> model = NeuralSparseGridClassifier().fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.99
    True
    """

    __module__ = "skpou"  # Saved models name it by the place users import it from.
    _parameter_constraints: dict = {
        **BaseClassifier._parameter_constraints,
        **NeuralGridEstimator._own_constraints,
        "method": [StrOptions(set(METHODS))],
    }

    def __init__(
        self,
        hidden_layer_sizes=(15, 15),
        *,
        n_components=2,
        level=5,
        method="softmax",
        boundary="modified",
        margin=0.0,
        encoder="mlp",
        image_shape=None,
        activation="tanh",
        coef_solver="auto",
        optimizer="adam",
        learning_rate=1e-2,
        batch_size=256,
        max_iter=200,
        tol=1e-8,
        alpha="auto",
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        bounds=None,
        n_jobs=None,
        device="auto",
        dtype="float64",
        random_state=None,
        verbose=0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.level = level
        self.method = method
        self.boundary = boundary
        self.margin = margin
        self.encoder = encoder
        self.image_shape = image_shape
        self.activation = activation
        self.coef_solver = coef_solver
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.alpha = alpha
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.bounds = bounds
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _method(self):
        return self.method

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BaseClassifier.fit)
    def fit(self, X, y, sample_weight=None) -> NeuralSparseGridClassifier:
        """Train the encoder and the grid.

        Rows on disk stay there with ``method="softmax"`` and ``coef_solver`` ``"auto"``, which
        then is ``"gradient"``: it takes its steps block by block.
        """
        form = self._form()
        with self._fitting(X, y, sample_weight):
            more = None
            if self._streams(X):
                prepared, others = self._sampled_classes(X, y, sample_weight)
                more = self._more(X, prepared.rows, others)
            else:
                prepared = self._prepare_classes(X, y, sample_weight)
            result = self._train_and_store(
                lambda data: self._train(form, data.rows, data.scaling, more), prepared
            )
        self._warn_if_not_converged(result)
        self._warn_of_faces(result)
        return self

    def _streams(self, X: Any) -> bool:
        """Whether fit reads rows in blocks: those on the disk of one process, for its steps."""
        steps = self.method == "softmax" and self.coef_solver in ("auto", "gradient")
        return steps and lies_on_disk(X) and count() == 1

    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(BaseClassifier.fit)
    def refit_grid(self, X, y, sample_weight=None) -> NeuralSparseGridClassifier:
        """Fit the grid again by `method`, the encoder as it is: ``NSG*``."""
        check_is_fitted(self)
        with self._earlier_fit_kept():
            prepared = self._prepare_classes(X, y, sample_weight, box=self._box())
            self._train_and_store(
                lambda data: self._refit(self._model(data.rows.X), data.rows), prepared
            )
        return self

    def _has_partial_fit(self):
        if self.method == "softmax":
            return True
        raise AttributeError(
            f"partial_fit is for method='softmax': method={self.method!r} needs all rows at once."
        )

    @available_if(_has_partial_fit)
    @fit_context(prefer_skip_nested_validation=True)
    @sections_of(SummedClassifier.partial_fit)
    def partial_fit(self, X, y, classes=None, sample_weight=None) -> Any:
        """Take minibatch steps through a block of rows, after those through earlier blocks.

        One pass over the rows in shuffled batches of `batch_size`, at a constant `learning_rate`,
        for the encoder and the coefficients together, as with ``coef_solver="gradient"``. The
        first block sets the level, the start, the classes' shares and, unless `bounds` are given,
        the box; it should be like all others. The first call after `fit` starts anew.
        """
        form, state = self._form(), self.__dict__.get("_steps")
        with self._earlier_fit_kept():
            data = self._block(X, y, classes, sample_weight, state)
            result, after = self._take_steps(form, data.rows, data.scaling, state)
            self._store_result(result, data)
        self._steps = after
        self._warn_if_not_converged(result)
        return self

    def _block(self, X, y, classes, sample_weight, state) -> PreparedClasses:
        """Rows in the box, and of the classes, of the first block."""
        X, codes, weight, own = self._own_classes(X, y, sample_weight, state is None)
        if state is not None:
            known = self.classes_
        else:
            known = own if classes is None else np.unique(np.asarray(classes))
        X, codes, weight = (torch.cat(gather(part)) for part in (X, codes, weight))
        indicators = indicators_of(codes, own, known)
        if state is None:
            rows, scaling, _ = self._merged(X, indicators, weight)
        else:
            scaling = self._box()
            scaling = Scaling.from_arrays(scaling.arrays(), X)
            rows = self._rows_in(scaling, X, indicators, weight)
        return PreparedClasses(rows, scaling, known)

    def _summary_lines(self):
        return [*super()._summary_lines(), *self._calibration_lines()]

    @property
    def coef_(self) -> Any:
        """Coefficients."""
        check_is_fitted(self)
        return self.model_["head"]["coef"]
