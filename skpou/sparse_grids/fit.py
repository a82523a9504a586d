"""Sparse grid regression, and refinement where the surpluses are large."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpou.core import BestSoFar, Rows, TrainingResult, handing_over
from skpou.sparse_grids.basis.grid import SparseGrid
from skpou.sparse_grids.basis.plans import CONSTANT, LEFT, RIGHT, Factors, make_factors
from skpou.sparse_grids.model import COLUMNS
from skpou.sparse_grids.solution import (
    GIVEN_DECAY,
    MANY_COLUMNS,
    N_EXACT,
    GridOptions,
    Report,
    choose_level,
    direct_problem,
    fit_on_grid,
    pick_solver,
    ridge_of_some_rows,
)
from skpou.sparse_grids.solvers.ridge import IterativeProblem, RidgeSolution, best_ridge
from skpou.sparse_grids.solvers.rows import GridRows

#: Highest level of a refined grid in one dimension: subspaces are dense.
HIGHEST_REFINED = 16
#: Most functions of the subspaces that hold a refined grid, for each of its points.
FUNCTIONS_A_POINT = 64
#: Least number of points refined in a step.
LEAST_REFINED = 10
#: Decrease of the squares for each child along a column, in units of the noise, above which the
#: column matters: noise gives one, or less under a ridge.
LEAST_GAIN = 2.0
#: Share of the distinct rows that judge a refinement.
VALIDATION_SHARE = 0.15
#: Rows from which on any do: three are left out.
LEAST_TO_JUDGE = 20
#: Steps without a better validation error after which refinement stops.
PATIENCE = 2


def fit_sparse_grid(
    rows: Rows, options: GridOptions, rng: np.random.Generator, report: Report | None = None
) -> TrainingResult:
    """Fit a sparse grid function to distinct rows.

    Parameters
    ----------
    rows : Rows
        Points in the unit box, targets of about unit rms.

    Returns
    -------
    TrainingResult
        Its state is a `SparseGridModel`; its score twice the negative log evidence for a direct
        solution, the mean square of the residuals otherwise.
    """
    # Gram matrices need double precision.
    rows = rows.to(torch.float64)
    level = choose_level(rows.n_features, options)
    if options.n_refinements and rows.n_features:
        return _fit_refined(rows, level, options, rng, report)
    grid = options.grid(rows.n_features, level)
    with handing_over():
        return fit_on_grid(rows, grid, None, options, rng, report)


class PointSet:
    """Points of a grid that grows, with all ancestors of each, in the order of their arrival.

    Parameters
    ----------
    grid : SparseGrid
        The regular grid to start from.
    """

    def __init__(self, grid: SparseGrid):
        self.n_features = grid.n_features
        self.boundary, self.basis = grid.boundary, grid.basis
        highest = max(HIGHEST_REFINED, int(grid.factors.level.max()))
        self.factors: Factors = make_factors(1, highest, grid.boundary)
        self.number: dict[tuple, int] = {}
        self.points: list[tuple] = []
        self.subspaces: dict[tuple, int] = {}
        vectors = np.repeat(grid.plan.vectors, np.diff(grid.plan.first_function), axis=0)
        for vector, cell in zip(vectors.tolist(), grid.cells().tolist(), strict=True):
            self._append((*zip(vector, cell, strict=True),))

    def __len__(self) -> int:
        return len(self.points)

    def _append(self, point: tuple) -> None:
        self.number[point] = len(self.points)
        self.points.append(point)
        vector = tuple(factor for factor, _ in point)
        if vector not in self.subspaces:
            self.subspaces[vector] = self._size(vector)

    @property
    def n_functions(self) -> int:
        """Functions of all subspaces that hold a point."""
        return sum(self.subspaces.values())

    def _below(self, factor: int, cell: int) -> list[tuple[int, int]]:
        """Children of a one-dimensional function."""
        if factor + 1 >= self.factors.n_factors:
            return []
        kind = self.factors.kind[factor]
        if kind in (LEFT, RIGHT):
            return [(2, 0)]
        return [(factor + 1, 2 * cell), (factor + 1, 2 * cell + 1)]

    def _above(self, factor: int, cell: int) -> list[tuple[int, int]]:
        """Parents of a one-dimensional function."""
        kinds = self.factors.kind
        if kinds[factor] in (CONSTANT, LEFT, RIGHT):
            return []
        if kinds[0] == LEFT and factor == 2:
            return [(0, 0), (1, 0)]
        return [(factor - 1, cell >> 1)] if factor else []

    def add(self, point: tuple) -> None:
        """Add a point after its ancestors."""
        if point in self.number:
            return
        for j, (factor, cell) in enumerate(point):
            for parent in self._above(factor, cell):
                self.add((*point[:j], parent, *point[j + 1 :]))
        self._append(point)

    def missing_children(self, number: int, columns: list[int] | None = None) -> list[tuple]:
        """Children of a point, along some columns or all, that are not in the set."""
        point = self.points[number]
        children = [
            (*point[:j], child, *point[j + 1 :])
            for j in (range(self.n_features) if columns is None else columns)
            for child in self._below(*point[j])
        ]
        return [child for child in children if child not in self.number]

    def _missing(self, points: list[tuple]) -> set[tuple]:
        """These points and their ancestors as far as they are not in the set."""
        missing: set[tuple] = set()
        stack = list(points)
        while stack:
            point = stack.pop()
            if point in missing or point in self.number:
                continue
            missing.add(point)
            for j, (factor, cell) in enumerate(point):
                stack += [
                    (*point[:j], parent, *point[j + 1 :]) for parent in self._above(factor, cell)
                ]
        return missing

    def _new_functions(self, points: set[tuple]) -> int:
        """Functions of the subspaces that hold these points and none of the set."""
        vectors = {tuple(factor for factor, _ in point) for point in points}
        return sum(self._size(vector) for vector in vectors if vector not in self.subspaces)

    def _size(self, vector: tuple) -> int:
        """Functions of a subspace."""
        return 1 << int(self.factors.shift[list(vector)].sum())

    def first_refined(self, score: np.ndarray, n_refined: int) -> list[int]:
        """Points of largest score that have children to come."""
        order = np.argsort(-score, kind="stable").tolist()
        some = (number for number in order if self.missing_children(number))
        return list(itertools.islice(some, n_refined))

    def refine(
        self, score: np.ndarray, n_refined: int, max_points: int, columns: list[int] | None = None
    ) -> int:
        """Add children of the points of largest score, along some columns or all.

        Returns how many points came.
        """
        before = len(self)
        room = FUNCTIONS_A_POINT * max_points
        refined = 0
        for number in np.argsort(-score, kind="stable").tolist():
            children = self.missing_children(number, columns)
            missing = self._missing(children)
            if refined >= n_refined or len(self) + len(missing) > max_points:
                break
            if not children or self.n_functions + self._new_functions(missing) > room:
                continue
            for child in children:
                self.add(child)
            refined += 1
        return len(self) - before

    def children(self, numbers: list[int]) -> list[list[tuple]]:
        """Children of some points along each column that are not in the set, each once."""
        return [
            list(dict.fromkeys(c for n in numbers for c in self.missing_children(n, [j])))
            for j in range(self.n_features)
        ]

    def grid(self, n_points: int | None = None) -> tuple[SparseGrid, np.ndarray]:
        """Grid that holds the first points, and their numbers in it."""
        points = np.array(self.points[:n_points]).reshape(-1, self.n_features, 2)
        return self._grid_of(points, np.unique(points[:, :, 0], axis=0))

    def grid_of(self, children: list[tuple]) -> tuple[SparseGrid, np.ndarray]:
        """Grid that holds some children and little else, and their numbers in it."""
        vectors = set()
        for child in children:
            vector = [factor for factor, _ in child]
            vectors.add((*vector,))
            if self.factors.kind[0] == CONSTANT:  # as `SparseGrid` asks for
                for j in reversed(range(self.n_features)):
                    vector[j] = 0
                    vectors.add((*vector,))
        points = np.array(children).reshape(-1, self.n_features, 2)
        return self._grid_of(points, np.array(sorted(vectors)))

    def _grid_of(self, points: np.ndarray, vectors: np.ndarray) -> tuple[SparseGrid, np.ndarray]:
        level = self._level(int(vectors.max(initial=0)))
        grid = SparseGrid(self.n_features, level, self.boundary, vectors, self.basis)
        return grid, grid.rows_of(points[:, :, 0], points[:, :, 1])

    def _level(self, factor: int) -> int:
        """Level of a grid whose factors include this one."""
        level = int(self.factors.level[factor])
        if self.boundary == "full":
            return max(level - self.n_features + 1, 1)
        return max(level, 1)


def _fit_refined(
    rows: Rows, level: int, options: GridOptions, rng: np.random.Generator, report: Report | None
) -> TrainingResult:
    """Refine while rows that were held out are predicted better; then fit to all rows."""
    points = PointSet(options.grid(rows.n_features, level))
    search = _Refinement(rows, points, options, rng)

    def result(**ended: Any) -> TrainingResult:
        """The best grid so far, fitted to all rows."""
        n_points, curve = search.sizes.best, search.curve
        grid, numbers = points.grid(n_points)
        active = torch.as_tensor(numbers, device=rows.X.device)
        gram = search.gram_of_all(n_points)
        ridge = search.ridge if n_points > MANY_COLUMNS else None
        found = fit_on_grid(rows, grid, active, options, rng, report, gram, ridge)
        return dataclasses.replace(found, curve=curve, n_iter=max(len(curve), 1), **ended)

    def interrupted() -> TrainingResult | None:
        if search.sizes.is_empty:
            return None
        return result(code="interrupted", message="Refinement was interrupted.")

    with handing_over(interrupted):
        search.run(report)
    return result()


class _Refinement:
    """Solutions on a growing grid, judged by rows held out; Gram matrices grow with it."""

    def __init__(
        self, rows: Rows, points: PointSet, options: GridOptions, rng: np.random.Generator
    ):
        self.points, self.options, self.rng = points, options, rng
        n_held_out = int(VALIDATION_SHARE * rows.n_rows) if rows.n_rows >= LEAST_TO_JUDGE else 0
        order = torch.as_tensor(rng.permutation(rows.n_rows), device=rows.X.device)
        self.parts = [_part(rows, order[n_held_out:]), _part(rows, order[:n_held_out])]
        self.grams = [rows.X.new_zeros((0, 0)) for _ in self.parts]
        self.curve: list[float] = []
        self.sizes: BestSoFar[int] = BestSoFar()
        self.columns: set[int] = set()
        self.ridge: tuple[float, float] | None = None

    def run(self, report: Report | None) -> None:
        """Solve and refine until the number of steps, or the patience, is used up."""
        since_best = 0
        for step in range(self.options.n_refinements + 1):
            grid, numbers = self.points.grid()
            active = torch.as_tensor(numbers, device=self.parts[0].X.device)
            matrices = [self._grow(part, i, grid, active) for i, part in enumerate(self.parts)]
            solution, squares = self._solve(matrices[0])
            error = self._error(solution, matrices)
            self.curve.append(error)
            since_best = 0 if self.sizes.show(len(self.points), error) else since_best + 1
            if report is not None:
                report(f"{len(self.points)} points, alpha {solution.alpha:.1e}: {error:.4g}")
            if since_best >= PATIENCE or step == self.options.n_refinements:
                return
            if not self._refine(solution, squares, matrices[0]):
                return

    def _grow(self, part: Rows, i: int, grid: SparseGrid, active: Tensor) -> GridRows:
        """Rows on the new grid; the Gram matrix gets the rows and columns of new points."""
        matrix = GridRows(grid, part.X, part.weight, active, self.options.batch_size)
        # Both parts or none: the matrix of all rows is their sum.
        n_rows = self.parts[0].n_rows
        if pick_solver(n_rows, matrix.n_columns, self.options.solver) == COLUMNS:
            old = self.grams[i]
            new = matrix.gram(first=len(old))
            upper = torch.cat([old, new[:, : len(old)].T], 1)
            self.grams[i] = torch.cat([upper, new])
        return matrix

    def _solve(self, matrix: GridRows) -> tuple[RidgeSolution, Tensor]:
        """Solution for the rows that are not held out, and the columns' squared norms."""
        part = self.parts[0]
        method = pick_solver(matrix.n_rows, matrix.n_columns, self.options.solver)
        if method == "iterative":
            return self._iterate(matrix)
        problem = direct_problem(matrix, part.y, gram=self.grams[0])
        if self.options.alpha is not None:
            solution = problem.solve(self.options.alpha, GIVEN_DECAY)
        elif self.ridge is None:
            solution = best_ridge(problem, part.total_weight, part.within.sum(0))
        else:
            # From step to step the best ridge moves little. Its decay moves, too: the grid grows
            # where the function is rough.
            solution = best_ridge(
                problem, part.total_weight, part.within.sum(0), start=self.ridge, stride=1
            )
        self.ridge = solution.alpha, solution.decay
        squares = self.grams[0].diagonal() if method == COLUMNS else matrix.column_squares()
        return dataclasses.replace(solution, coef=problem.of_columns(solution)), squares

    def _iterate(self, matrix: GridRows) -> tuple[RidgeSolution, Tensor]:
        """What `_solve` returns, by conjugate gradients, with the ridge of the last step."""
        part, options = self.parts[0], self.options
        problem = IterativeProblem(matrix, part.y, matrix.costs(), N_EXACT)
        if options.alpha is not None:
            self.ridge = options.alpha, GIVEN_DECAY
        elif self.ridge is None:
            # Chosen points have no closed kernel; a regular grid stands for them.
            level = choose_level(part.n_features, GridOptions(boundary=options.boundary))
            grid = options.grid(part.n_features, level)
            self.ridge = ridge_of_some_rows(part, grid, problem.scale, self.rng, None)
        return problem.solve(*self.ridge), problem.squares

    def _error(self, solution: RidgeSolution, matrices: list[GridRows]) -> float:
        """Mean square error on the rows held out, or score without any."""
        part = self.parts[1]
        if not part.n_rows:
            training = self.parts[0]
            return solution.score(training.total_weight, training.within.sum(0))
        residual = part.y * matrices[1].root - matrices[1].matmul(solution.coef)
        return float(residual.square().sum() / part.weight.sum())

    def _refine(self, solution: RidgeSolution, squares: Tensor, matrix: GridRows) -> int:
        """Refine points whose functions carry most of the prediction's mean square.

        Along the columns that have mattered so far: no point is spent on the others.
        """
        if len(self.points) >= self.options.max_points:
            return 0
        score = (solution.coef.square().sum(1) * squares).cpu().numpy()
        n_refined = max(LEAST_REFINED, int(self.options.refine_fraction * len(self.points)))
        first = self.points.first_refined(score, n_refined)
        gains = self._gains(self.points.children(first), solution, squares, matrix)
        self.columns |= {j for j, gain in enumerate(gains) if gain > LEAST_GAIN}
        # Where none does, noise is left, or what several columns do together further below.
        columns = sorted(self.columns) or list(range(len(gains)))
        n_refined = n_refined * len(gains) // len(columns)
        return self.points.refine(score, n_refined, self.options.max_points, columns)

    def _gains(
        self,
        children: list[list[tuple]],
        solution: RidgeSolution,
        squares: Tensor,
        matrix: GridRows,
    ) -> list[float]:
        """Decrease of the squares by a child along each column, a mean in units of the noise.

        Each child is taken alone, under the ridge of the solution.
        """
        part = self.parts[0]
        # Some are children along several columns.
        chosen = list(dict.fromkeys(child for some in children for child in some))
        if not chosen:
            return [0.0] * len(children)
        left = part.y * matrix.root - matrix.matmul(solution.coef)
        tiny = torch.finfo(left.dtype).tiny
        noise = float(left.square().sum() + part.within.sum()) / part.total_weight
        grid, numbers = self.points.grid_of(chosen)
        active = torch.as_tensor(numbers, device=part.X.device)
        rows = GridRows(grid, part.X, part.weight, active, self.options.batch_size)
        ridge = solution.alpha**2 * float(squares.max()) * solution.decay ** rows.costs()
        size = (rows.column_squares() + ridge).clamp_min(tiny)
        gain = rows.rmatmul(left).square().sum(1) / size / max(noise, tiny)
        place = {child: i for i, child in enumerate(chosen)}
        parts = ([place[child] for child in some] for some in children)
        return [float(gain[own].mean()) if own else 0.0 for own in parts]

    def gram_of_all(self, n_points: int) -> Tensor | None:
        """Gram matrix of the first points and all rows."""
        if n_points > min(map(len, self.grams)):
            return None
        first, *others = (gram[:n_points, :n_points] for gram in self.grams)
        return sum(others, first)


def _part(rows: Rows, picked: Tensor) -> Rows:
    """Some of the rows, in their order."""
    return rows.subset(picked.sort().values)
