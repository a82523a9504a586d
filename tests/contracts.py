"""What every basis, solver and training loop must do.

A part inherits all tests of its kind by writing two or three methods::

    class TestMyBasis(BasisContract):
        def make_basis(self): ...

        def naive(self, basis, x): ...

To run the tests over several configurations, override the fixture of the same kind with params.
"""

import copy
import pickle

import mpmath
import numpy as np
import pytest
import torch

from skpou.core.records import TrainingInterrupted

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
DTYPES = [torch.float64, torch.float32]
CODES = ("converged", "max_iter", "non_finite", "interrupted")


def mp_matrix(array):
    """Nested lists, arrays or tensors of two dimensions as an mpmath matrix, exactly."""
    rows = [[mpmath.mpf(float(value)) for value in row] for row in array]
    return mpmath.matrix(rows)


def from_mp(matrix):
    """mpmath matrix as a float64 array."""
    return np.array(matrix.tolist(), dtype=float)


def same_bits(a, b):
    """Whether two tensors have equal shapes, dtypes and bits; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


class BasisContract:
    """Tests of a `Basis`: write `make_basis` and `naive`."""

    #: Error allowed, in units of round-off, relative to the largest entry of a column.
    round_offs = 100
    #: Rows that the tests evaluate; three of them at the box's faces and outside it.
    n_rows = 7
    #: Difference allowed between a row alone and among others, where both round alike.
    row_atol = 1e-15

    def make_basis(self):
        """Return the basis."""
        raise NotImplementedError

    def naive(self, basis, x):
        """Return the list of all functions' values at one point x, a list of d mpmath numbers."""
        raise NotImplementedError

    @pytest.fixture
    def basis(self):
        return self.make_basis()

    def points(self, basis, dtype=torch.float64):
        X = np.random.default_rng(0).random((self.n_rows, basis.n_features))
        X[0], X[1], X[2] = 0.0, 1.0, X[2] * 1.5
        return torch.as_tensor(X).to(dtype)

    def naive_matrix(self, basis, X):
        with mpmath.workdps(50):
            rows = [[mpmath.mpf(float(v)) for v in x] for x in X]
            return from_mp(mpmath.matrix([self.naive(basis, x) for x in rows]))

    def naive_partial(self, basis, X, feature):
        """Central differences in 50 digits, exact to about 30."""
        with mpmath.workdps(50):
            h, result = mpmath.mpf("1e-15"), []
            for x in X:
                ahead = [mpmath.mpf(float(v)) for v in x]
                behind = list(ahead)
                ahead[feature] += h
                behind[feature] -= h
                pairs = zip(self.naive(basis, ahead), self.naive(basis, behind), strict=True)
                result.append([(a - b) / (2 * h) for a, b in pairs])
            return from_mp(mpmath.matrix(result))

    def assert_close(self, got, expected, dtype):
        assert got.dtype == dtype
        assert tuple(got.shape) == expected.shape
        scale = np.maximum(np.abs(expected).max(0), 1.0)
        error = np.abs(got.double().numpy() - expected) / scale
        assert error.max() <= self.round_offs * EPS[dtype], f"error {error.max():.1e}"

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_matrix_equals_naive_evaluation(self, basis, dtype):
        X = self.points(basis, dtype)
        got = basis.matrix(X)
        assert got.shape == (self.n_rows, basis.n_columns)
        self.assert_close(got, self.naive_matrix(basis, X), dtype)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_partial_equals_central_differences(self, basis, dtype):
        X = self.points(basis, dtype)
        rng = np.random.default_rng(1)
        coef = torch.as_tensor(rng.standard_normal((basis.n_columns, 2))).to(dtype)
        gradient = basis.evaluate_gradient(X, coef)
        for feature in range(basis.n_features):
            got = basis.partial(X, feature)
            self.assert_close(got, self.naive_partial(basis, X, feature), dtype)
            # Sums of all columns, in another order.
            size = got.abs() @ coef.abs() + 1
            apart = (gradient[:, feature] - got @ coef).abs() / size
            assert float(apart.max()) <= 10 * EPS[dtype]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_no_rows(self, basis, dtype):
        X = torch.empty((0, basis.n_features), dtype=dtype)
        results = [basis.matrix(X), *(basis.partial(X, j) for j in range(basis.n_features))]
        for result in results:
            assert result.shape == (0, basis.n_columns)
            assert result.dtype == dtype

    def test_rows_do_not_influence_each_other(self, basis):
        X = self.points(basis)
        for evaluate in self.evaluations(basis):
            full = evaluate(X)
            for i in range(len(X)):
                alone = evaluate(X[i : i + 1])
                torch.testing.assert_close(alone, full[i : i + 1], rtol=1e-15, atol=self.row_atol)
            order = torch.arange(len(X)).flip(0)[::2]
            torch.testing.assert_close(
                evaluate(X[order]), full[order], rtol=1e-15, atol=self.row_atol
            )

    def test_strided_input(self, basis):
        X = self.points(basis)
        wide = torch.full((len(X), 2 * basis.n_features), torch.nan, dtype=X.dtype)
        wide[:, ::2] = X
        for evaluate in self.evaluations(basis):
            torch.testing.assert_close(
                evaluate(wide[:, ::2]), evaluate(X), rtol=1e-15, atol=self.row_atol
            )

    def test_pickling(self, basis):
        X = self.points(basis)
        clones = [pickle.loads(pickle.dumps(basis)), copy.deepcopy(basis)]
        expected = [evaluate(X) for evaluate in self.evaluations(basis)]
        # Pickling after use must work too, when something may have been cached.
        clones.append(pickle.loads(pickle.dumps(basis)))
        for clone in clones:
            got = [evaluate(X) for evaluate in self.evaluations(clone)]
            assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))

    def test_input_is_neither_changed_nor_aliased(self, basis):
        X = self.points(basis)
        kept = X.clone()
        for evaluate in self.evaluations(basis):
            first = evaluate(X)
            second = evaluate(X)
            expected = second.clone()
            first.fill_(-7.0)
            assert same_bits(X, kept)
            assert same_bits(second, expected)
            assert same_bits(evaluate(X), expected)

    def evaluations(self, basis):
        """`matrix` and every `partial` as functions of X."""
        partials = [lambda X, j=j: basis.partial(X, j) for j in range(basis.n_features)]
        return [basis.matrix, *partials]


class ParametricBasisContract:
    """Tests of a `ParametricBasis`: write `make_basis` and `naive`."""

    #: Error allowed, in units of round-off, relative to the largest entry.
    round_offs = 1000
    #: Sizes of theta, relative to `make_basis`'s, that must not give NaN.
    growths = (1e2, 1e4, 1e8)

    def make_basis(self):
        """Return the basis and a theta."""
        raise NotImplementedError

    def naive(self, basis, theta):
        """Return the rows of the matrix, lists of mpmath numbers, for a list of mpmath numbers."""
        raise NotImplementedError

    @pytest.fixture
    def case(self):
        return self.make_basis()

    def coef(self, basis, m=1):
        return torch.as_tensor(np.random.default_rng(4).standard_normal((basis.n_columns, m)))

    def assert_close(self, got, expected):
        assert got.dtype == torch.float64
        assert tuple(got.shape) == expected.shape
        scale = max(np.abs(expected).max(initial=0.0), np.finfo(float).tiny)
        error = np.abs(got.numpy() - expected).max(initial=0.0) / scale
        assert error <= self.round_offs * EPS[torch.float64], f"error {error:.1e}"

    def naive_jacobian(self, basis, theta, coef):
        """Central differences (n, m, k) in 60 digits, exact to about 30."""
        with mpmath.workdps(60):
            h, columns = mpmath.mpf("1e-18"), []
            exact, coef = [mpmath.mpf(v) for v in theta.tolist()], mp_matrix(coef)
            for i in range(len(exact)):
                ends = []
                for sign in (1, -1):
                    moved = [v + sign * h * (j == i) for j, v in enumerate(exact)]
                    ends.append(mpmath.matrix(self.naive(basis, moved)) * coef)
                columns.append(from_mp((ends[0] - ends[1]) / (2 * h)))
            return np.stack(columns, 2)

    def test_matrix_equals_naive_double_loop(self, case):
        basis, theta = case
        with mpmath.workdps(60):
            rows = self.naive(basis, [mpmath.mpf(v) for v in theta.tolist()])
            expected = from_mp(mpmath.matrix(rows))
        assert theta.shape == (basis.n_parameters,)
        assert expected.shape[1] == basis.n_columns
        self.assert_close(basis.matrix(theta), expected)

    def test_jacobian_equals_central_differences(self, case):
        basis, theta = case
        coef = self.coef(basis, 2)
        expected = self.naive_jacobian(basis, theta, coef)
        self.assert_close(basis.jacobian(theta, coef), expected)

    @pytest.mark.parametrize("m", [1, 3])
    def test_outputs_do_not_influence_each_other(self, case, m):
        basis, theta = case
        coef = self.coef(basis, m)
        full, n = basis.jacobian(theta, coef), len(basis.matrix(theta))
        assert full.shape == (n, m, basis.n_parameters)
        for j in range(m):
            self.assert_close(basis.jacobian(theta, coef[:, j : j + 1])[:, 0], full[:, j].numpy())

    def test_jacobian_is_linear_in_the_coefficients(self, case):
        basis, theta = case
        coef = self.coef(basis, 2)
        first, second = (basis.jacobian(theta, coef[:, j : j + 1]) for j in range(2))
        mixed = basis.jacobian(theta, 3 * coef[:, :1] - 2 * coef[:, 1:])
        self.assert_close(mixed, (3 * first - 2 * second).numpy())
        assert not basis.jacobian(theta, 0 * coef).any()

    def test_huge_parameters_give_no_nan(self, case):
        basis, theta = case
        for growth in self.growths:
            assert not torch.isnan(basis.matrix(growth * theta)).any()
            assert not torch.isnan(basis.jacobian(growth * theta, self.coef(basis, 2))).any()

    def test_same_bits_and_input_is_neither_changed_nor_aliased(self, case):
        basis, theta = case
        coef = self.coef(basis, 2)
        kept = [theta.clone(), coef.clone()]
        for evaluate in (basis.matrix, lambda theta: basis.jacobian(theta, coef)):
            first = evaluate(theta)
            expected = first.clone()
            first.fill_(-7.0)
            assert same_bits(evaluate(theta), expected)
        assert all(same_bits(a, b) for a, b in zip((theta, coef), kept, strict=True))


class SolverContract:
    """Tests of a solver for weighted rows: write `solve`, `reference` and `make_target`."""

    #: Condition numbers of the matrices that are compared with the reference.
    conditions = {torch.float64: (1.0, 1e3, 1e7), torch.float32: (1.0, 10.0, 1e2)}
    n_rows, n_columns = 12, 4

    def solve(self, A, y, weight):
        """Return the solution as a tensor."""
        raise NotImplementedError

    def reference(self, A, y, weight):
        """Return the solution in mpmath, from mpmath matrices A and y and a list of weights."""
        raise NotImplementedError

    def make_target(self, A, rng):
        """Return the targets y of the rows of A."""
        raise NotImplementedError

    def allowed(self, condition, dtype):
        """Return the relative error allowed against the reference."""
        return 50 * EPS[dtype] * condition

    def problem(self, condition=10.0, dtype=torch.float64, n_rows=None, seed=0):
        """Matrix of the given condition number, targets, and weights from 1 to 3."""
        rng = np.random.default_rng(seed)
        n, p = n_rows or self.n_rows, self.n_columns
        U = np.linalg.qr(rng.standard_normal((max(n, p), p)))[0][:n]
        V = np.linalg.qr(rng.standard_normal((p, p)))[0]
        A = torch.as_tensor(U * np.geomspace(1, 1 / condition, p) @ V.T).to(dtype)
        weight = torch.as_tensor(rng.integers(1, 4, n)).to(dtype)
        return A, self.make_target(A, rng), weight

    def expected(self, A, y, weight):
        with mpmath.workdps(50):
            targets = y if y.ndim == 2 else y[:, None]
            solution = self.reference(mp_matrix(A), mp_matrix(targets), [*map(float, weight)])
            return from_mp(solution)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("step", range(3))
    def test_against_mpmath(self, step, dtype):
        condition = self.conditions[dtype][step]
        A, y, weight = self.problem(condition, dtype)
        got, expected = self.solve(A, y, weight), self.expected(A, y, weight)
        assert got.dtype == dtype
        error = np.linalg.norm(got.double().numpy() - expected) / np.linalg.norm(expected)
        allowed = self.allowed(condition, dtype)
        assert error <= allowed, f"relative error {error:.1e}, allowed {allowed:.1e}"

    def test_weights_equal_repeated_rows(self):
        A, y, weight = self.problem()
        times = weight.long()
        repeated = [part.repeat_interleave(times, 0) for part in (A, y)]
        ones = torch.ones(int(times.sum()), dtype=A.dtype)
        torch.testing.assert_close(
            self.solve(A, y, weight), self.solve(*repeated, ones), rtol=1e-11, atol=1e-12
        )

    def test_rows_in_another_order(self):
        A, y, weight = self.problem()
        order = torch.as_tensor(np.random.default_rng(1).permutation(len(A)))
        torch.testing.assert_close(
            self.solve(A, y, weight),
            self.solve(A[order], y[order], weight[order]),
            rtol=1e-11,
            atol=1e-12,
        )

    def test_rows_of_weight_zero_do_not_count(self):
        A, y, weight = self.problem()
        weight[::4] = 0
        kept = weight > 0
        torch.testing.assert_close(
            self.solve(A, y, weight),
            self.solve(A[kept], y[kept], weight[kept]),
            rtol=1e-11,
            atol=1e-12,
        )

    def test_same_bits_on_every_call(self):
        A, y, weight = self.problem(1e5)
        first = self.solve(A, y, weight)
        held = []
        for i in range(50):
            # Other allocations between the calls: no bit may come from uninitialised memory.
            held.append(torch.full((17 * i + 1,), torch.nan))
            assert same_bits(self.solve(A, y, weight), first)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("n_rows", [1, 2, 12])
    @pytest.mark.parametrize("rank", [0, 1, 2])
    def test_rank_deficiency_gives_finite_results(self, rank, n_rows, dtype):
        A, y, weight = self.problem(dtype=dtype, n_rows=n_rows)
        A[:, rank:] = A[:, :1] if rank else 0.0
        assert torch.isfinite(self.solve(A, y, weight)).all()

    def test_input_is_not_changed(self):
        given = self.problem()
        kept = [part.clone() for part in given]
        self.solve(*given)
        assert all(same_bits(a, b) for a, b in zip(given, kept, strict=True))


class TrainingContract:
    """Tests of a training loop that returns a `TrainingResult`: write `make_rows` and `run`.

    The state offers ``components(X).expectation()``, ``arrays()`` and ``from_arrays``.
    """

    def make_rows(self, order=None, times=1, dtype=torch.float64):
        """Return merged rows from raw ones: in the order `order`, each one `times` times."""
        raise NotImplementedError

    def run(self, rows, rng, report=None):
        """Train; returns the result."""
        raise NotImplementedError

    def predict(self, state, X):
        """Return the mean of the state at X."""
        return state.components(X).expectation()

    def rebuild(self, state, like):
        """Return a state made from the arrays of another one."""
        arrays = pickle.loads(pickle.dumps(state.arrays()))
        degree = state.degree
        return type(state).from_arrays(state.tree.n_features, degree, arrays, like)

    def points(self, rows, n_points=200):
        X = np.random.default_rng(5).random((n_points, rows.n_features))
        return torch.as_tensor(X).to(rows.X.dtype)

    def train(self, rows=None, report=None, seed=3):
        rows = self.make_rows() if rows is None else rows
        return rows, self.run(rows, np.random.default_rng(seed), report)

    def usual(self):
        """One training that tests of a class share: rows as before and after, result, lines."""
        cls = type(self)
        if "trained" not in vars(cls):
            rows, lines = self.make_rows(), []
            before = copy.deepcopy(rows)
            cls.trained = before, *self.train(rows, lines.append), lines
        return cls.trained

    def test_record(self):
        _, _, result, _ = self.usual()
        assert result.n_iter >= 1
        assert len(result.curve) >= 1
        assert np.isfinite(result.curve).all()
        assert np.isfinite(result.score)
        assert result.code in CODES
        assert result.code == "converged" or result.message

    def test_same_seed_gives_the_same_bits(self):
        _, rows, first, _ = self.usual()
        _, second = self.train(rows)
        X = self.points(rows)
        assert same_bits(self.predict(first.state, X), self.predict(second.state, X))
        assert first.curve == second.curve
        assert first.score == second.score
        assert first.n_iter == second.n_iter

    def test_state_survives_as_arrays(self):
        _, rows, result, _ = self.usual()
        X = self.points(rows)
        again = self.rebuild(result.state, rows.X)
        for a, b in ((result.state, again), (result.state, self.rebuild(again, rows.X))):
            got, expected = b.components(X), a.components(X)
            for name in ("log_pi", "mean", "noise", "epistemic"):
                assert same_bits(getattr(got, name), getattr(expected, name)), name

    @pytest.mark.parametrize("times", [1, 3])
    def test_order_and_repetition_of_rows_do_not_matter(self, times):
        _, rows, result, _ = self.usual()
        order = np.random.default_rng(6).permutation(rows.n_rows)
        _, other = self.train(self.make_rows(order, times))
        X = self.points(rows)
        assert same_bits(self.predict(result.state, X), self.predict(other.state, X))
        assert result.score == other.score

    def test_rows_are_not_changed(self):
        before, rows, _, _ = self.usual()
        for name in ("X", "y", "weight", "within"):
            assert same_bits(getattr(rows, name), getattr(before, name)), name

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_predictions_keep_the_dtype_and_are_finite(self, dtype):
        if dtype == torch.float64:
            _, rows, result, _ = self.usual()
        else:
            rows, result = self.train(self.make_rows(dtype=dtype))
        prediction = self.predict(result.state, self.points(rows))
        assert prediction.dtype == dtype
        assert prediction.shape == (200, rows.n_outputs)
        assert torch.isfinite(prediction).all()

    def test_interrupt_leaves_a_usable_result(self):
        _, rows, _, lines = self.usual()
        assert len(lines) >= 2, "the loop reports too little to be interrupted"
        n = len(lines)
        for n_calls in sorted({1, 2, 1 + n // 2, n}):
            result = self.interrupted(rows, n_calls)
            if n_calls == 1 and result is None:
                continue  # There was nothing yet.
            assert result.code == "interrupted"
            assert result.n_iter >= 1
            assert not np.isnan(result.curve).any()
            assert torch.isfinite(self.predict(result.state, self.points(rows))).all()

    def interrupted(self, rows, n_calls):
        """Result that Ctrl-C leaves when it is pressed in the n_calls-th report."""
        count = 0

        def press(_):
            nonlocal count
            count += 1
            if count == n_calls:
                raise KeyboardInterrupt

        with pytest.raises(TrainingInterrupted) as caught:
            self.train(rows, press)
        assert isinstance(caught.value, KeyboardInterrupt)
        return caught.value.result
