"""What the neural sparse grids' regressor and classifier share."""

from __future__ import annotations

import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skpou.base import (
    AUTO,
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Interval,
    Stream,
    StrOptions,
    TorchEstimator,
    noise_lines,
    random_generator,
    seed_of,
    unless_auto,
    warn_of_rows_outside,
)
from skpou.core import (
    TORCH_SEEDS,
    Blocks,
    Report,
    Rows,
    Scaling,
    TrainingResult,
    merge_rows,
    torch_seeded,
)
from skpou.core.linalg import rows_within
from skpou.core.models import ClassPredictor, Predictor
from skpou.networks import ACTIVATIONS, Network
from skpou.neural_sparse_grids.descent.descent import OPTIMIZERS, MoreRows
from skpou.neural_sparse_grids.descent.objectives import DescentOptions
from skpou.neural_sparse_grids.encoders.encoder import BUILT_IN, Encoder, EncoderForm, name_of
from skpou.neural_sparse_grids.encoders.starts import GIVEN
from skpou.neural_sparse_grids.fit import (
    COEF_SOLVERS,
    NeuralGridOptions,
    fit_head,
    fit_neural_sparse_grid,
    pick_coef_solver,
    with_slope,
)
from skpou.neural_sparse_grids.model import NEAR_FACE, NeuralGrid, active_fraction, embedded
from skpou.neural_sparse_grids.steps import Steps, teach_block
from skpou.sparse_grids import BOUNDARIES, LEVEL, SparseGrid, count_points

#: Rows from which on early_stopping="auto" holds some out, as in scikit-learn's boosting.
MANY_ROWS = 10_000
#: Most points of a grid whose Gram matrix or vectors fit into memory.
MOST_POINTS = 1_000_000
#: Most points of a grid whose dense matrices are inverted: of more that takes some ten seconds.
MOST_DENSE_POINTS = 3000
#: Rows that are read together from disk: a shuffle of so many mixes them well.
ROWS_READ = 50_000
#: Share of the embeddings near the faces from which on a warning is due: beyond half, most
#: rows lie where training stops.
MANY_ON_FACES = 0.5


class NeuralGridEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TorchEstimator):
    """Parameters, embedding and state of both estimators."""

    #: The method of a classifier; a regressor has none.
    _method: str | None = None
    _dropped_by_fit: tuple[str, ...] = ("_steps", "_conformal_scores")
    _size_parameters = "hidden_layer_sizes, level or batch_size"

    _own_constraints: dict = {
        "hidden_layer_sizes": [COUNT, tuple, list],
        "n_components": [COUNT],
        "level": [LEVEL],
        "boundary": [StrOptions(set(BOUNDARIES))],
        "margin": [Interval(Real, 0, 0.5, closed="left")],
        "encoder": [StrOptions(set(BUILT_IN)), callable],
        "image_shape": [None, tuple, list],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "coef_solver": [StrOptions(set(COEF_SOLVERS))],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "learning_rate": [POSITIVE],
        "batch_size": [COUNT],
        "max_iter": [COUNT],
        "tol": [NOT_NEGATIVE],
        "alpha": [AUTO, NOT_NEGATIVE],
        "early_stopping": [AUTO, "boolean"],
        "validation_fraction": [SHARE],
        "n_iter_no_change": [COUNT],
        "bounds": [None, "array-like"],
    }

    # Training

    def _form(self) -> EncoderForm:
        """Form of the encoder, but for the number of columns.

        Raises
        ------
        ValueError
            If parameters do not go together.
        """
        kind = self.encoder if isinstance(self.encoder, str) else name_of(self.encoder)
        given = self.hidden_layer_sizes
        sizes = (given,) if isinstance(given, Integral) else tuple(given)
        sizes = Network(1, sizes, "plain", self.activation).hidden_layer_sizes
        shape = self.image_shape
        if kind == "cnn":
            shape = tuple(shape) if shape is not None else ()
            whole = all(isinstance(s, Integral) and not isinstance(s, bool) for s in shape)
            if len(shape) != 3 or not whole or min(shape) < 1:
                raise ValueError(
                    "encoder='cnn' needs image_shape=(channels, height, width), positive ints. "
                    f"Got image_shape={self.image_shape!r}."
                )
            shape = tuple(int(s) for s in shape)
        elif shape is not None:
            raise ValueError(
                f"image_shape={shape!r} goes with encoder='cnn'. Got encoder={self.encoder!r}."
            )
        n_points, _ = count_points(int(self.n_components), int(self.level), self.boundary)
        density = self._method == "density"
        most = MOST_DENSE_POINTS if density else MOST_POINTS
        if n_points > most:
            raise ValueError(
                f"level={self.level} with boundary={self.boundary!r} in n_components="
                f"{self.n_components} dimensions has {n_points} grid points, more than {most}"
                f"{', whose matrices method=' + repr('density') + ' inverts' if density else ''}. "
                "Lower level or n_components."
            )
        d = int(self.n_components)
        form = EncoderForm(kind, 0, d, sizes, self.activation, shape, float(self.margin))
        pick_coef_solver(self._options(form, 0), 1, 1, 1)
        return form

    def _options(self, form: EncoderForm, n_rows: int) -> NeuralGridOptions:
        early = n_rows >= MANY_ROWS if self.early_stopping == "auto" else bool(self.early_stopping)
        descent = DescentOptions(
            coef_solver=self.coef_solver,
            optimizer=self.optimizer,
            learning_rate=float(self.learning_rate),
            batch_size=int(self.batch_size),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
            alpha=unless_auto(self.alpha),
            n_iter_no_change=int(self.n_iter_no_change),
        )
        return NeuralGridOptions(
            form,
            level=int(self.level),
            boundary=self.boundary,
            method=self._method,
            descent=descent,
            init=getattr(self, "init", "auto"),
            validation_fraction=float(self.validation_fraction) if early else None,
        )

    def _form_of_columns(self, form: EncoderForm) -> EncoderForm:
        """The form for the columns of X."""
        d = int(self.n_features_in_)
        if form.image_shape is not None and np.prod(form.image_shape) != d:
            raise ValueError(
                f"image_shape={self.image_shape!r} has {np.prod(form.image_shape)} pixels, but X "
                f"has {d} features."
            )
        return EncoderForm(**{**vars(form), "n_features": d})

    def _new_encoder(
        self, form: EncoderForm, scaling: Scaling, like: Tensor, rng: np.random.Generator
    ) -> Encoder:
        """Encoder with parameters as torch draws them, on the device and in the dtype of `like`."""
        box = (scaling.columns, scaling.offset, scaling.width)
        with torch_seeded(int(rng.integers(TORCH_SEEDS)), like.device):
            return Encoder(form, *box).to(device=like.device, dtype=like.dtype)

    def _sorts_columns(self) -> bool:
        # The first units are drawn column by column, and rows that are held out by theirs.
        return True

    def _take_steps(
        self, form: EncoderForm, rows: Rows, scaling: Scaling, state: dict[str, Any] | None
    ) -> tuple[TrainingResult, dict[str, Any]]:
        """One pass over a block of rows after those before, and the state for the next."""
        form = self._form_of_columns(form)
        options = self._options(form, 0)
        rows = rows.to(self._torch_dtype())
        if state is None:
            seed = seed_of(self.random_state)
            encoder = self._new_encoder(form, scaling, rows.X, np.random.default_rng(seed))
            steps = None
        else:
            seed, steps = int(state["seed"]), Steps.from_arrays(state, rows.X)
            encoder = self._model(rows.X).encoder
        with torch_seeded(seed + (0 if steps is None else steps.n_blocks), rows.X.device):
            result, after = teach_block(rows, encoder, steps, options, seed)
        return result, {**after.arrays(), "seed": seed}

    def _train(
        self,
        form: EncoderForm,
        rows: Rows,
        scaling: Scaling,
        more: MoreRows | None = None,
        report: Report | None = None,
        start: Encoder | None = None,
    ) -> TrainingResult:
        """Build the encoder and train it; `more` rows take part in steps of minibatches.

        A given encoder is what the training starts from.
        """
        form = self._form_of_columns(form)
        options = self._options(form, rows.n_rows)
        if more is not None and self._method is not None:
            # The logits of more rows than a sample has are found by steps on all of them; only
            # what is held out of the sample tells how sure they may be.
            options = replace(
                options,
                descent=replace(options.descent, coef_solver="gradient"),
                validation_fraction=float(self.validation_fraction),
            )
        solver = pick_coef_solver(options, rows.n_rows, rows.n_features, rows.n_outputs)
        dtype = torch.float64 if solver == "varpro" else self._torch_dtype()
        rng = random_generator(self.random_state)
        encoder = self._new_encoder(form, scaling, rows.X.to(dtype), rng)
        if start is not None:
            encoder.load_state_dict(start.state_dict())
            options = replace(options, init=GIVEN)
        report = report or self._reporter()
        return fit_neural_sparse_grid(rows.to(dtype), encoder, options, rng, report, more)

    def _stream(self, X: Any, y: Any, sample_weight: Any) -> Stream:
        """Rows in blocks, which are not the batches of the steps; see `SummedEstimator._stream`."""
        with self._alike():
            return Stream(X, y, sample_weight, max(int(self.batch_size), ROWS_READ))

    def _more(self, X: Any, sample: Rows, others: Blocks) -> MoreRows | None:
        """The rows that are not in the sample; None where all are."""
        n_others = X.shape[0] - sample.n_rows
        return None if n_others <= 0 else MoreRows(others, n_others)

    def _rows_in(self, scaling: Scaling, X: Tensor, y: Tensor, weight: Tensor) -> Rows:
        """Distinct rows of a later block, in the box of the first."""
        points = scaling.points(X).to(self._torch_dtype()).to(torch.float64)
        outside = ((points < 0) | (points > 1)).any(1) & (weight > 0)
        warn_of_rows_outside(int(outside.sum()))
        return merge_rows(points, y, weight, counts=self._counts_repeats)

    def _warn_of_faces(self, result: TrainingResult) -> None:
        share = result.chosen["on_faces"]
        if share > MANY_ON_FACES:
            # Past this method, fit and its wrapper, to the line that called fit.
            warnings.warn(
                f"{100 * share:.0f} % of the embeddings lie within {NEAR_FACE} of a face of the "
                "grid's box, where most of its functions are zero and boundary='zero' stops "
                "training. Raise margin or alpha, or lower learning_rate.",
                UserWarning,
                stacklevel=4,
            )

    def _most_lines(self) -> int | None:
        # Rounds of "varpro", which "auto" may become, are as many as it takes.
        known = self.coef_solver in ("gradient", "direct", "iterative")
        return int(self.max_iter) if known else None

    def _refit(self, model: NeuralGrid, rows: Rows) -> TrainingResult:
        """New coefficients for the encoder as it is."""
        options = self._options(model.encoder.form, rows.n_rows)
        grid = model.head.grid
        latent = embedded(model.encoder, rows)
        rng = random_generator(self.random_state)
        result = fit_head(latent, grid, options, rng, report=self._reporter())
        model = NeuralGrid(model.encoder, result.state, latent.X[0, :0])
        result.state = with_slope(model, rows)
        result.curve = self.loss_curve_
        result.n_iter = self.n_iter_
        result.chosen["coef_solver"] = self.coef_solver_
        result.chosen["active_fraction"] = active_fraction(grid, latent.X)
        return result

    def _state_of(self, result: TrainingResult) -> dict[str, Any]:
        """Fitted attributes."""
        return {
            "model_": result.state.arrays(),
            "alpha_": result.chosen["alpha"],
            "level_": result.chosen["level"],
            "coef_solver_": result.chosen["coef_solver"],
            "active_fraction_": result.chosen["active_fraction"],
            "n_iter_": result.n_iter,
            "loss_curve_": result.curve,
        }

    def _box(self) -> Scaling:
        """Box of the last fit."""
        return Scaling.from_arrays(self.scaling_, torch.zeros(0, dtype=torch.float64, device="cpu"))

    # Fitted state

    def __setstate__(self, state):
        """Restore a state whose encoder is built in or its parameter: a name would be imported."""
        try:
            kinds = [part["encoder"]["form"]["kind"] for part in parts_of(state["model_"])]
            given = state["encoder"]
        except (KeyError, TypeError):  # Not fitted; what is damaged is told of below.
            kinds, given = [], None
        own = BUILT_IN if given is None or isinstance(given, str) else (*BUILT_IN, name_of(given))
        for kind in kinds:
            if kind not in own:
                raise ValueError(
                    f"This saved {type(self).__name__} has an encoder {kind!r}, but "
                    f"encoder={given!r}. Loading calls no function but that of the parameter."
                )
        super().__setstate__(state)

    def _model(self, like: Tensor) -> Any:
        return NeuralGrid.from_arrays(self.model_, like)

    def _rows_a_block(self, model: Predictor | ClassPredictor) -> int:
        # batch_size is that of training steps.
        return rows_within(model.numbers_per_row())

    def _summary_lines(self) -> list[str]:
        parts = parts_of(self.model_)
        form, each = parts[0]["encoder"]["form"], ", one for each output" * (len(parts) > 1)
        sizes = ", ".join(map(str, form["hidden_layer_sizes"]))
        coded = f"{self.n_features_in_} columns to {form['n_components']}"
        return [
            "",
            f"Encoder: {form['kind']} ({sizes}), {coded} coordinates{each}",
            f"Sparse grid: level {self.level_}, {len(self.grid_points_)} points, of which "
            f"{self.active_fraction_:.0%} have rows near them",
            *(noise_lines(self.noise_) if hasattr(self, "noise_") else []),
        ]

    @property
    def grid_points_(self) -> Any:
        """Grid points in the unit box of the embedding."""
        check_is_fitted(self)
        heads = [part["head"] for part in parts_of(self.model_)]
        finest = max(heads, key=lambda head: head["level"])
        return SparseGrid(finest["n_features"], finest["level"], finest["boundary"]).points()

    @property
    def _n_features_out(self) -> int:
        return sum(part["head"]["n_features"] for part in parts_of(self.model_))

    def transform(self, X) -> Any:
        """Embed points in the unit box of the grid.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, n_components)
            Of outputs that are fitted apart ``n_components`` columns for each.
        """
        points, _, origin = self._query(X)
        model = self._unpacked_model(points)
        with torch.no_grad():
            return origin.send(self._in_blocks(points, model, lambda x, _: model.encoder(x)))


def parts_of(model: dict[str, Any]) -> list[dict[str, Any]]:
    """States of the grids of a stored model: one for each output where these are apart."""
    return model.get("own", [model])
