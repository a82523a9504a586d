"""Neural sparse grids: an encoder in front of a sparse grid, trained in one of four ways."""

from __future__ import annotations

import copy
import itertools
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from skpou.core import TORCH_SEEDS, Report, Rows, TrainingResult, handing_over, tell, torch_seeded
from skpou.core.classes import LeftOutClasses
from skpou.core.models import mean_slope, worse_than_the_shares
from skpou.core.optim import shares_of_classes
from skpou.neural_sparse_grids.descent.descent import MoreRows, descend_encoder
from skpou.neural_sparse_grids.descent.objectives import DescentOptions
from skpou.neural_sparse_grids.encoders.encoder import Encoder, EncoderDerivatives, EncoderForm
from skpou.neural_sparse_grids.encoders.starts import start_encoder
from skpou.neural_sparse_grids.encoders.trained import Trained
from skpou.neural_sparse_grids.heads import HEADS, ClassHead
from skpou.neural_sparse_grids.left_out import doubt, left_out_by_newton, left_out_by_split
from skpou.neural_sparse_grids.model import NeuralGrid, active_fraction, embedded, share_on_faces
from skpou.neural_sparse_grids.projected.rows import FIRST_SPREAD, Ridges
from skpou.neural_sparse_grids.projected.squares import EncodedProblem, first_ridges
from skpou.neural_sparse_grids.projected.varpro import (
    CAUTIOUS_ROWS,
    FIRST_LEVEL,
    FIRST_LEVEL_OF_MANIFOLD,
    MEMORISED,
    VarproOptions,
    VarproTraining,
)
from skpou.sparse_grids import (
    GIVEN_DECAY,
    GridOptions,
    SparseGrid,
    SparseGridModel,
    count_points,
    fit_classes,
    fit_on_grid,
)

COEF_SOLVERS = ("auto", "gradient", "direct", "iterative", "varpro")
#: Most columns of the joint Gram matrix, 128 MB, and most multiplications of a step of variable
#: projection, some seconds on one core.
VARPRO_COLUMNS, VARPRO_WORK = 4000, 8e10
#: Noise that an encoder may have memorised, in units of the variance of y, that is none.
NONE_MEMORISED = 5e-8
#: Mean square of the residual, in units of the variance of y, from which on a fit has found
#: nothing.
NOTHING_FOUND = 0.8
#: Share of the rows that counts as free whatever the encoder was fitted with: more than that of
#: `free_rows`, since the number of parameters that rows determine is but an estimate.
LEAST_FREE_OF_ENCODER = 0.2


@dataclass(frozen=True)
class NeuralGridOptions:
    """What to fit; the meaning is that of the estimators' parameters.

    Attributes
    ----------
    method : {"softmax", "one_hot", "density"} or None
        None for a regression.
    init : str
        See `start_encoder`.
    validation_fraction : float or None
        Share of the rows that is held out; None: no early stopping.
    gain : float
        Factor on the first scaled embedding; beyond 1 it is pushed towards the corners.
    """

    form: EncoderForm
    level: int = 6
    boundary: str = "modified"
    method: str | None = None
    descent: DescentOptions = field(default_factory=DescentOptions)
    init: str = "auto"
    validation_fraction: float | None = None
    gain: float = 1.0

    @property
    def start(self) -> str:
        """Start of the encoder: only that of a regression has another one than "scale"."""
        plain = self.method is not None or self.form.kind != "mlp"
        return "scale" if self.init == "auto" and plain else self.init


def pick_coef_solver(options: NeuralGridOptions, n_rows: int, n_inputs: int, n_outputs: int) -> str:
    """Solver of the coefficients; "auto" is variable projection where its matrices are small.

    Raises
    ------
    ValueError
        If "varpro" is asked for with an encoder whose derivatives are not at hand.
    """
    form, solver = options.form, options.descent.coef_solver
    if solver == "varpro" and form.kind != "mlp":
        raise ValueError(
            "coef_solver='varpro' needs encoder='mlp', whose derivatives are at hand row by row. "
            f"Got encoder={form.kind!r}: use coef_solver='gradient', 'direct' or 'iterative'."
        )
    if solver != "auto":
        return solver
    if form.kind != "mlp" or options.method == "density":
        return "gradient"
    widths = (n_inputs, *form.hidden_layer_sizes, form.n_components)
    k = sum(a * b + b for a, b in itertools.pairwise(widths))
    G = count_points(form.n_components, options.level, options.boundary)[0]
    m = n_outputs if options.method is None else max(n_outputs - 1, 1)
    columns = k + G * (m if options.method == "softmax" else 1)
    work = n_rows * (m * k * k + columns**2)
    return "varpro" if columns <= VARPRO_COLUMNS and work <= VARPRO_WORK else "gradient"


def fit_neural_sparse_grid(
    rows: Rows,
    encoder: Encoder,
    options: NeuralGridOptions,
    rng: np.random.Generator,
    report: Report | None = None,
    more: MoreRows | None = None,
) -> TrainingResult:
    """Train an encoder and the grid behind it.

    Parameters
    ----------
    rows : Rows
        Points in the unit box; targets of about unit rms, or the shares of the classes.
    encoder : Encoder
        Changed in place.
    rng : numpy.random.Generator
        Source of the start, of splits and minibatches.
    more : MoreRows, default=None
        Rows that the passes of ``"gradient"`` go on with; the others are judged by, and start.

    Returns
    -------
    TrainingResult
        Its state is a `NeuralGrid`.
    """
    training = NeuralGridTraining(rows, encoder, options, rng, report, more)
    # Layers such as dropout draw from torch's own generator.
    with (
        torch_seeded(int(rng.integers(TORCH_SEEDS)), rows.X.device),
        handing_over(training.interrupted),
    ):
        training.run()
    return training.result()


class NeuralGridTraining:
    """One training; the parameters are those of `fit_neural_sparse_grid`."""

    def __init__(
        self,
        rows: Rows,
        encoder: Encoder,
        options: NeuralGridOptions,
        rng: np.random.Generator,
        report: Report | None = None,
        more: MoreRows | None = None,
    ):
        self.rows, self.encoder, self.options, self.more = rows, encoder, options, more
        self.part = rows
        self.held_out: Tensor | None = None
        self.rng, self.report = rng, report
        self.trained = Trained(level=options.level)
        #: What a second climb has reached.
        self.other: Trained | None = None
        self.solver = pick_coef_solver(options, rows.n_rows, rows.n_features, rows.n_outputs)
        self.head = HEADS[options.method](self.solver, options.descent.alpha)
        self.start = "scale"
        #: Whether the climb that begins may be given up for another one.
        self.yields = False

    def run(self) -> None:
        """Start the encoder and train it."""
        options, encoder = self.options, self.encoder
        part, held_out = self._split()
        self.part = part
        encoder.eval().requires_grad_(False)
        self.start = start_encoder(encoder, part, options.start, self.rng)
        # The moments of minibatches suit classes; a regression's grid must not move beneath it.
        encoder.scaling.follows = self.start == "scale" and options.method is not None
        if options.gain != 1.0:
            encoder.scaling.follows = False  # Minibatches would undo it at once.
            encoder.scaling.variance /= options.gain**2
        flat = not part.n_features or part.n_rows < 2 or not bool((part.y != part.y[:1]).any())
        if flat:
            self.trained.keep(encoder, options.level, 0.0)
            self.trained.code, self.trained.n_iter = "converged", 1
            return
        taught = self.head.taught(part)
        judged = None if held_out is None else self.head.taught(held_out, part)
        if self.solver == "varpro":
            self._varpro(taught, judged)
            return
        grid = SparseGrid(options.form.n_components, options.level, options.boundary)
        descend_encoder(
            encoder, grid, taught, judged, self.head.objective(), options.descent, self.rng,
            self.trained, self._told(), self.more if self.solver == "gradient" else None,
        )  # fmt: skip

    def _told(self) -> Report | None:
        """The report, with the model after each line for those who ask."""
        report = self.report
        return None if report is None else lambda line: tell(report, line, self.so_far)

    def so_far(self) -> TrainingResult | None:
        """What a training that ends here would leave; the training itself does not change."""
        trained = self._reached()
        if trained.state is None:
            return None
        part = copy.copy(self)
        part.encoder, part.trained = copy.deepcopy(self.encoder), copy.copy(trained)
        part.trained.curve, part.rng = list(self.trained.curve), np.random.default_rng(0)
        return part.result()

    def _split(self) -> tuple[Rows, Rows | None]:
        """Rows to train with, and those held out: where more take part, not more than half."""
        rows, share = self.rows, self.options.validation_fraction
        n_held_out = 0 if share is None else round(share * rows.n_rows)
        if share is not None and self.more is not None and self.solver == "gradient":
            n_held_out = min(n_held_out + round(share * self.more.n_rows), rows.n_rows // 2)
        if not n_held_out or n_held_out >= rows.n_rows:
            return rows, None
        order = torch.as_tensor(self.rng.permutation(rows.n_rows), device=rows.X.device)
        fitted, self.held_out = (
            part.sort().values for part in (order[n_held_out:], order[:n_held_out])
        )
        return rows.subset(fitted), rows.subset(self.held_out)

    def _varpro(self, part: Rows, held_out: Rows | None) -> None:
        """Climb from the start; with few rows twice, from bold and from cautious ridges.

        Cautious ones may miss what there is, bold ones memorise noise: the better score is kept.
        Where bold ones leave so little that they have memorised no noise, there is none;
        and where they use up most, they go on only if cautious ones do no better or find nothing,
        and are kept where the evidence is not for nothing.
        """
        few = part.n_rows <= CAUTIOUS_ROWS and self.start != "isomap"
        if not few or not self.head.climbs_twice:
            self._climb(part, held_out, self.trained, cautious=False)
            return
        start = {k: v.clone() for k, v in self.encoder.state_dict().items()}
        self.yields = held_out is None
        self._climb(part, held_out, self.trained, cautious=False)
        self.yields = False
        if self._is_clear(part):
            return
        self.encoder.load_state_dict(start)
        self.other = other = Trained(level=self.options.level)
        self._climb(part, held_out, other, cautious=True)
        nothing = not other.curve or other.curve[-1] > NOTHING_FOUND
        no_better = nothing or not other.score < self.trained.score
        if self.trained.code == "memorised" and no_better:
            self.encoder.load_state_dict(start)
            self.trained = Trained(level=self.options.level)
            self._climb(part, held_out, self.trained, cautious=False)
        if other.score < self.trained.score:
            self.trained = other

    def _is_clear(self, part: Rows) -> bool:
        """Whether a climb has left nothing and could not have memorised it."""
        trained = self.trained
        if not trained.curve or trained.code == "memorised":
            return False
        # Of n rows with noise, k parameters take a share of k / n along with them.
        taken = min(trained.determined / part.n_rows, 1.0)
        return taken * trained.curve[-1] < (1 - taken) * NONE_MEMORISED

    def _climb(
        self, part: Rows, held_out: Rows | None, trained: Trained, *, cautious: bool
    ) -> None:
        options, descent = self.options, self.options.descent
        manifold = self.start == "isomap"
        VarproTraining(
            self.encoder,
            part,
            held_out,
            self.head.problem(cautious),
            VarproOptions(
                first_level=FIRST_LEVEL_OF_MANIFOLD if manifold else FIRST_LEVEL,
                level=options.level,
                boundary=options.boundary,
                max_iter=descent.max_iter,
                tol=descent.tol,
                cautious=cautious,
                rival=self.trained if cautious and self.trained.code != "memorised" else None,
                yields=self.yields,
            ),
            trained,
            self._told(),
        ).run(self.rng)

    # The result

    def interrupted(self) -> TrainingResult | None:
        """What is best so far, if there is anything."""
        self.trained = self._reached()
        self.trained.code = "interrupted"
        return None if self.trained.state is None else self.result()

    def _reached(self) -> Trained:
        """What there is so far; a climb that was given up at once has left nothing."""
        return self.trained if self.trained.state or self.other is None else self.other

    def result(self) -> TrainingResult:
        """Model of the best state, with the grid's coefficients for all rows."""
        trained, options, encoder = self.trained, self.options, self.encoder
        if trained.state is None:
            raise FloatingPointError(
                "The first evaluation of the encoder is not finite. Lower learning_rate."
            )
        encoder.load_state_dict(trained.state)
        encoder.eval().requires_grad_(False)
        latent = embedded(encoder, self.rows)
        grid = SparseGrid(options.form.n_components, trained.level, options.boundary)
        head = self._fitted_head(latent, grid)
        chosen = {
            **head.chosen,
            "level": trained.level,
            "coef_solver": self.solver,
            "init": self.start,
            "active_fraction": active_fraction(grid, latent.X),
            "on_faces": share_on_faces(latent.X, options.form.margin),
        }
        model = with_slope(NeuralGrid(encoder, head.state, latent.X[0, :0]), self.rows)
        if options.method is None and trained.determined > MEMORISED * self.rows.n_rows:
            doubt(model, self.rows)
        code, message = trained.code, self._message(trained.code)
        n_iter, left_out = max(trained.n_iter, 1), head.left_out
        if options.method is not None and left_out is None:
            left_out = self._left_out(model, latent)
        return TrainingResult(
            model, head.score, n_iter, trained.curve, code, message, chosen, left_out
        )

    def _left_out(self, model: NeuralGrid, latent: Rows) -> LeftOutClasses | None:
        """What the model says of observations that coefficients trained along do not know."""
        if self.held_out is not None:
            return left_out_by_split(model, self.rows, self.held_out)
        if not self.head.has_logits:
            return None
        chosen = self.trained.chosen
        ridges = Ridges(
            self._alpha(), chosen.get("decay", GIVEN_DECAY), 1.0, chosen.get("spread", FIRST_SPREAD)
        )
        return left_out_by_newton(model, self.rows, latent, ridges, self.rng)

    def _alpha(self) -> float:
        """Ridge of the coefficients that were trained along."""
        given = self.head.default_alpha if self.head.alpha is None else self.head.alpha
        return self.trained.chosen.get("alpha", given)

    def _fitted_head(self, latent: Rows, grid: SparseGrid) -> TrainingResult:
        """Coefficients on the grid: those trained along, or the solution for all rows."""
        options, head = self.options, self.head
        coef = self.trained.coef if head.keeps_coef() else None
        if not isinstance(head, ClassHead):
            result = fit_head(latent, grid, options, self.rng, self._determined(grid))
            if coef is not None:
                result.state = with_coef(result.state, coef, latent)
            return result
        if coef is None:
            return fit_head(latent, grid, options, self.rng)
        model = head.model(grid, coef.to(latent.X), self.part.to(latent.X.dtype))
        terms = latent.weight @ (latent.y * model.log_proba(latent.X)).sum(1)
        score = -float(terms) / latent.total_weight
        if self.part is not self.rows and worse_than_the_shares(
            model, latent, shares_of_classes(latent)
        ):
            # The rows held out may be most of all: those that are left know nothing of them.
            return fit_head(latent, grid, options, self.rng)
        return TrainingResult(model, score, 1, chosen={"alpha": self._alpha()})

    def _determined(self, grid: SparseGrid) -> float:
        """Parameters of the encoder that the rows have determined, where that is affordable."""
        solver, rows = self.solver, self.rows
        if solver == "varpro" or not self._varpro_fits() or not rows.n_features:
            return self.trained.determined
        part = rows.to(torch.float64)
        encoder = self.encoder.to(torch.float64)
        derivatives = EncoderDerivatives(encoder, part.X)
        alpha = self.options.descent.alpha
        problem = EncodedProblem(derivatives, grid, part, first_ridges(alpha), alpha is not None)
        fit = problem.solve(encoder.network_body.theta.detach())
        for _ in range(2):  # Ridges, then what is determined under them
            fit = problem.adapt(fit)
        self.encoder.to(rows.X.dtype)
        return fit.determined

    def _varpro_fits(self) -> bool:
        """Whether the matrices of variable projection are small."""
        options, rows = self.options, self.rows
        automatic = replace(options, descent=replace(options.descent, coef_solver="auto"))
        sizes = (rows.n_rows, rows.n_features, rows.n_outputs)
        return pick_coef_solver(automatic, *sizes) == "varpro"

    def _message(self, code: str) -> str:
        n = len(self.trained.curve)
        return {
            "max_iter": f"coef_solver={self.solver!r} used all "
            f"max_iter={self.options.descent.max_iter} iterations while the loss was still "
            "falling. Raise max_iter.",
            "non_finite": f"The loss became non-finite after {n} iterations; the best parameters "
            "before are kept. Lower learning_rate.",
            "interrupted": "The best parameters so far are kept.",
        }.get(code, "")


def with_slope(model: NeuralGrid, rows: Rows) -> NeuralGrid:
    """The model with the slope of its mean over the rows; classes have none."""
    if model.encoder.form.kind != "mlp" or not isinstance(model.head, SparseGridModel):
        count = model.head.coef.shape[1]
        return replace(model, slope=torch.ones(count, dtype=torch.float64, device="cpu"))
    like = rows.X
    double = NeuralGrid(model.encoder.to(torch.float64), model.head, model.slope)
    slope = mean_slope(double, like.to(torch.float64), rows.weight)  # type: ignore[arg-type]
    model.encoder.to(like.dtype)
    return replace(model, slope=slope)


def fit_head(
    latent: Rows,
    grid: SparseGrid,
    options: NeuralGridOptions,
    rng: np.random.Generator,
    determined: float = 0.0,
    report: Report | None = None,
) -> TrainingResult:
    """Function on the grid for given embeddings: a `SparseGridModel` or a `GridClasses`.

    Parameters
    ----------
    latent : Rows
        Embeddings for points.
    rng : numpy.random.Generator
        Source of the rows that choose a ridge.
    determined : float, default=0
        Parameters of the encoder that the rows have determined: they count as spent in the
        variance of the noise.
    """
    grid_options = GridOptions(
        grid.level, grid.boundary, options.descent.alpha, max_points=sys.maxsize
    )
    if options.method is not None:
        return fit_classes(latent, options.method, grid_options, rng, report)
    result = fit_on_grid(latent, grid, None, grid_options, rng, report)
    n = latent.total_weight
    if latent.n_rows > 1:
        free = max(n - determined, LEAST_FREE_OF_ENCODER * n)
        result.state.noise = result.state.noise * (n / free)
    return result


def with_coef(model: SparseGridModel, coef: Tensor, latent: Rows) -> SparseGridModel:
    """The model with other coefficients, and the noise that these leave."""
    model.coef = coef.to(model.coef)
    squares = latent.weight @ (latent.y - model.mean(latent.X)).square() + latent.within.sum(0)
    model.noise = torch.maximum(model.noise, squares / latent.total_weight)
    return model
