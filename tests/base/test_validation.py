"""Input that must work: containers, dtypes, tensors, odd shapes and extreme values."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from skpou.base.validation import Origin, check_tensor, origin_of, owned, resolve_device
from tests.estimators import (
    CONFIGURATIONS,
    ONE_OF_EACH,
    QUERY,
    QUICK,
    assert_same_bits,
    each_class,
    each_configuration,
    each_configuration_slowly,
    each_quick_class,
    each_solver,
    fitted,
    fitted_predictions,
    kinked_mean,
    make,
    predictions,
    quick_configurations,
    same_bits,
    stepped,
    tolerance,
)
from tests.examples import slow

X, Y = stepped()
CPU = torch.device("cpu")


# Containers: the same values, held otherwise, give the same bits


def unaligned(array):
    """Copy that starts 8 bytes beyond a multiple of 64 bytes."""
    buffer = np.empty(array.size + 16)
    start = (-buffer.ctypes.data % 64) // 8 + 1
    view = buffer[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


def strided(array):
    """View on every other row and column of a larger array."""
    wide = np.full([2 * n for n in array.shape], np.nan)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class Columns:
    """Object that numpy knows to be an array."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)

    def __len__(self):
        return len(self.array)


CONTAINERS = {
    "list": lambda a: a.tolist(),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "strided": strided,
    "unaligned": unaligned,
    "read only": read_only,
    "big endian": lambda a: a.astype(">f8"),
    "objects": lambda a: a.astype(object),
    "array interface": Columns,
    "tensor": torch.tensor,
    "tensor with gradient": lambda a: torch.tensor(a, requires_grad=True),
    "parameter": lambda a: torch.nn.Parameter(torch.tensor(a)),
    "strided tensor": lambda a: torch.tensor(strided(a)),
    "negated view": lambda a: torch._neg_view(torch.tensor(-a)),
    "list of tensors": lambda a: list(torch.tensor(a)),
}


# One function reads the input of all classes: the quickest sees every container and dtype.


def read(everything, some):
    """Parametrization of everything for the quickest class, and of what is slow for the others.

    The next one has some of it, and the rest marked slow, where all others have some.
    """
    first, second = QUICK
    others = [name for name in ONE_OF_EACH if name not in QUICK]
    rest = [case for case in everything if case not in some]
    return pytest.mark.parametrize(
        ("name", "case"),
        [
            *itertools.product([first], everything),
            *itertools.product([second], some),
            *slow(*itertools.product([second], rest), *itertools.product(others, some)),
        ],
    )


@read(CONTAINERS, ["objects", "strided tensor"])
def test_container(name, case):
    hold = CONTAINERS[case]
    model = make(name).fit(hold(X), hold(Y), sample_weight=hold(np.ones(len(X))))
    assert_same_bits(predictions(model, hold(QUERY)), fitted_predictions(name))


@each_quick_class
def test_memory_map(name, tmp_path):
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", Y)
    mapped = [np.load(tmp_path / file, mmap_mode="r") for file in ("X.npy", "y.npy")]
    assert_same_bits(predictions(make(name).fit(*mapped)), fitted_predictions(name))


@each_quick_class
@pytest.mark.parametrize("hold", [np.array, torch.tensor], ids=["array", "tensor"])
def test_fit_and_predict_change_nothing_of_the_caller(name, hold):
    data = [hold(X), hold(Y), hold(np.ones(len(X))), hold(QUERY)]
    model = make(name).fit(*data[:3])
    for part, original in zip(data, [X, Y, np.ones(len(X)), QUERY], strict=True):
        assert same_bits(np.asarray(part), original)
    expected = predictions(model, QUERY)
    data[0][:], data[1][:] = 7.0, -7.0
    assert_same_bits(predictions(model, data[3]), expected)


# Dtypes


@read(["float16", "float32", "int8", "int64", "uint8", "bool"], ["float16"])
def test_dtype_of_input_matters_only_by_its_values(name, case):
    points = (8 * X if "int" in case else X)[::3].astype(case)
    targets = (8 * Y if "int" in case else Y)[::3].astype(case)
    exact = make(name).fit(points.astype(float), targets.astype(float))
    for hold in (np.array, torch.tensor):
        given = make(name).fit(hold(points), hold(targets)).predict(hold(points[:9]))
        assert same_bits(np.asarray(given), exact.predict(points[:9].astype(float)))


@each_quick_class
def test_bfloat16(name):
    points, targets = torch.tensor(X).bfloat16(), torch.tensor(Y).bfloat16()
    model = make(name).fit(points, targets)
    exact = make(name).fit(points.double(), targets.double())
    assert torch.equal(model.predict(points), exact.predict(points.double()))


@each_quick_class
def test_nullable_columns(name):
    points = pd.DataFrame(np.rint(8 * X), columns=["a", "b"])
    model = make(name).fit(points, Y)
    nullable = make(name).fit(points.astype("Int64"), pd.Series(Y, dtype="Float64"))
    assert same_bits(nullable.predict(points.astype("Int64")), model.predict(points))


@each_configuration
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_tensors_come_out_as_tensors_in_the_dtype_of_the_estimator(name, given):
    points = torch.tensor(QUERY, dtype=given, requires_grad=True)
    wanted = getattr(torch, CONFIGURATIONS[name].dtype)
    model = fitted(name)
    mean, std = model.predict(points, return_std=True)
    results = [mean, std, model.predict_gradient(points), model.predict_quantile(points)]
    results += [model.sample_y(points), model.log_density(points, mean)]
    if hasattr(model, "partition_proba"):
        results.append(model.partition_proba(points))
        assert model.predict_partition(points).dtype == torch.int64
    for result in results:
        assert isinstance(result, torch.Tensor)
        assert (result.dtype, result.device, result.requires_grad) == (wanted, CPU, False)
    arrays = predictions(model, points.detach().numpy())
    assert same_bits(mean.numpy(), arrays["mean"])
    assert {str(v.dtype) for v in arrays.values()} <= {CONFIGURATIONS[name].dtype, "int64"}


@each_class
@pytest.mark.parametrize("requires_grad", [False, True])
def test_score_of_tensors_is_a_float(name, requires_grad):
    model = fitted(name)
    targets = torch.tensor(Y, requires_grad=requires_grad)
    score = model.score(torch.tensor(X), targets, sample_weight=torch.ones(len(X)))
    assert type(score) is float
    assert score == model.score(X, Y) > 0.9


@each_quick_class
def test_tensor_in_fit_and_array_in_predict(name):
    model = make(name).fit(torch.tensor(X), torch.tensor(Y))
    assert_same_bits(predictions(model), fitted_predictions(name))
    mixed = make(name).fit(torch.tensor(X), Y, sample_weight=[1] * len(X))
    assert_same_bits(predictions(mixed), fitted_predictions(name))


@each_configuration
@pytest.mark.gpu
def test_gpu_agrees_with_cpu(name):
    def on_gpu(array):
        return torch.tensor(array, device="cuda")

    model = make(name).fit(on_gpu(X), Y)  # y follows X
    result = model.predict(on_gpu(QUERY), return_std=True)
    assert all(part.device.type == "cuda" for part in result)
    expected = make(name, device="cpu").fit(X, Y).predict(QUERY, return_std=True)
    for part, reference in zip(result, expected, strict=True):
        np.testing.assert_allclose(part.cpu().numpy(), reference, rtol=1e-3, atol=1e-3)
    # A model that was fitted on a GPU predicts arrays, there or on the CPU.
    np.testing.assert_allclose(model.set_params(device="cpu").predict(QUERY), expected[0], 1e-3)


# Shapes


@quick_configurations
@pytest.mark.parametrize("shape", [(), (1,), (2,)], ids=str)
def test_shapes_of_targets(name, shape):
    targets = Y if not shape else Y[:, None] * np.arange(1, 1 + shape[0])
    model = make(name).fit(X, targets) if shape else fitted(name)
    n, d = QUERY.shape
    results = predictions(model)
    wanted = {"gradient": (n, *shape, d), "quantiles": (n, *shape, 3), "samples": (n, *shape, 2)}
    for kind in ("mean", "std", "epistemic", "noise"):
        wanted[kind] = (n, *shape)
    assert {kind: results[kind].shape for kind in wanted} == wanted
    assert results["log_density"].shape == (n,)
    if shape == (1,):
        for kind, value in fitted_predictions(name).items():
            assert same_bits(results[kind].reshape(value.shape), value), kind


@each_configuration_slowly
@pytest.mark.parametrize("constants", [[0.1], [0.0, -1e300]], ids=str)
def test_constant_target(name, constants):
    if CONFIGURATIONS[name].dtype == "float32":
        constants = np.maximum(constants, -3.0)  # -1e300 is no float32.
    targets = np.full((len(X), len(constants)), constants).squeeze()
    model = make(name).fit(X, targets)
    mean, std = (
        part.reshape(len(QUERY), -1) for part in model.predict(10 * QUERY, return_std=True)
    )
    assert (mean == np.array(constants, mean.dtype)).all()
    sizes = [float(abs(constant)) or 1.0 for constant in constants]
    assert (std <= 100 * np.finfo(std.dtype).eps * np.array(sizes)).all()
    assert (model.predict_gradient(QUERY) == 0).all()


@quick_configurations
def test_constant_column_has_no_effect(name):
    wide = np.column_stack([X[:, 0], np.full(len(X), 0.7), X[:, 1]])
    points = np.column_stack([QUERY[:, 0], np.linspace(-9, 9, len(QUERY)), QUERY[:, 1]])
    results, expected = predictions(make(name).fit(wide, Y), points), fitted_predictions(name)
    gradient = results.pop("gradient")
    assert same_bits(gradient[:, [0, 2]], expected.pop("gradient"))
    assert (gradient[:, 1] == 0).all()
    assert_same_bits(results, expected)


def test_no_slope_along_a_column_of_subnormal_numbers():
    """Its range has no digits, and what is left of a descent over it is beyond all numbers."""
    some = np.column_stack([5e-324 * np.arange(30), X[:30]])
    gradient = make("grid").fit(some, Y[:30]).predict_gradient(some)
    assert (gradient[:, 0] == 0).all()
    assert (gradient[:, 1:] != 0).any()
    assert np.isfinite(gradient).all()


@each_solver
def test_only_constant_columns(name):
    mean, std = make(name).fit(np.ones((10, 2)), np.arange(10.0)).predict(QUERY, True)
    np.testing.assert_allclose(mean, 4.5, rtol=1e-6)
    np.testing.assert_allclose(std, np.std(np.arange(10.0)), rtol=0.3)


@each_configuration_slowly
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7])
def test_few_rows(name, n_rows):
    results = predictions(make(name).fit(X[:n_rows], Y[:n_rows]))
    assert all(np.isfinite(result).all() for result in results.values())
    assert (results["std"] > 0).all()
    if n_rows == 1:
        assert (results["mean"] == results["mean"].dtype.type(Y[0])).all()


@each_configuration_slowly
def test_fewer_rows_than_columns(name):
    points = np.random.default_rng(0).random((6, 7))
    model = make(name)
    if "max_points" in model.get_params():
        # A given level may have more points in so many dimensions than max_points.
        model.set_params(level="auto")
    model.fit(points, np.arange(6.0))
    assert all(np.isfinite(v).all() for v in predictions(model, points).values())


@each_solver
def test_one_row_of_positive_weight_is_that_row_alone(name):
    weight = np.zeros(len(X))
    weight[4] = 3.0
    weighted = make(name).fit(X, Y, sample_weight=weight)
    assert_same_bits(predictions(weighted), predictions(make(name).fit(X[4:5], Y[4:5])))


@each_configuration_slowly
def test_different_targets_at_the_same_points(name):
    points = np.repeat(X[:12], 5, axis=0)
    noise = np.random.default_rng(0).standard_normal(60)
    model = make(name).fit(points, kinked_mean(points) + noise)
    results = predictions(model)
    assert all(np.isfinite(value).all() for value in results.values())
    assert 0.5 < np.median(results["noise"]) < 2
    same = make(name).fit(np.zeros((60, 2)), noise)
    np.testing.assert_allclose(same.predict(QUERY), noise.mean(), rtol=1e-4, atol=1e-6)


# Extreme values


@quick_configurations
@pytest.mark.parametrize("size", [1e300, 1e-300, 1e-320])
def test_huge_and_tiny_targets(name, size):
    model = make(name)
    if model.dtype == "float32" and not 1e-30 < size < 1e30:
        # Results that float32 cannot hold: never NaN, and no silent infinity.
        try:
            mean, std = model.fit(X, size * Y).predict(QUERY, return_std=True)
        except ValueError as error:
            assert "escale" in str(error)
        else:
            assert np.isfinite(mean).all()
            assert np.isfinite(std).all()
        return
    mean, std = model.fit(X, size * Y).predict(QUERY, return_std=True)
    expected = fitted(name).predict(QUERY, return_std=True)
    rtol = 1e-2 if size == 1e-320 else 1e-4
    if size == 1e-320 and name in (
        "varpro",
        "lbfgs",
        "neural grid",
        "networks and sines",
        "recipe",
    ):
        # These targets keep four digits, which sends a long descent elsewhere.
        error = np.sqrt(np.mean((mean / size - expected[0]) ** 2))
        assert error < 0.1 * np.std(Y)
        return
    np.testing.assert_allclose(mean / size, expected[0], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(std / size, expected[1], rtol=rtol, atol=rtol)


@quick_configurations
@pytest.mark.parametrize("size", [1e300, 1e-308])
def test_huge_and_tiny_points(name, size):
    model = make(name).fit(size * X, Y)
    expected = fitted(name).predict(QUERY)
    np.testing.assert_allclose(model.predict(size * QUERY), expected, rtol=1e-3, atol=1e-4)


@quick_configurations
@pytest.mark.filterwarnings("ignore:.*of the embeddings lie", "ignore:solver='(gd|lsgd)' used all")
def test_tiny_variation_on_a_large_offset(name):
    points = 1e9 + 1e-3 * X  # A spacing of 1e-7 is left: the values are those of the sum.
    held = (points - 1e9) / 1e-3
    model = make(name).fit(points, Y)
    exact = make(name).fit(held, Y)
    rounded = (1e9 + 1e-3 * QUERY - 1e9) / 1e-3
    np.testing.assert_allclose(
        model.predict(1e9 + 1e-3 * QUERY), exact.predict(rounded), rtol=1e-3, atol=1e-3
    )
    # A thousandth of that leaves some twenty values to a column.
    results = predictions(make(name).fit(1e9 + 1e-6 * X[::2], Y[::2]), 1e9 + 1e-6 * QUERY)
    assert all(np.isfinite(value).all() for value in results.values())


# Networks may need more cycles to reach so far.
@pytest.mark.filterwarnings(
    "ignore:Training stopped at max_iter", "ignore:solver='(gd|lsgd)' used all"
)
@each_configuration_slowly
@pytest.mark.parametrize("outlier", ["X", "y"])
def test_one_row_far_off(name, outlier):
    points, targets = X[::2].copy(), Y[::2].copy()
    if outlier == "X":
        points[3, 0] = 1e150
    else:
        targets[3] = 1e30
    model = make(name).fit(points, targets)
    assert all(np.isfinite(value).all() for value in predictions(model).values())


@quick_configurations
def test_targets_of_different_units(name):
    sizes = np.array([1.0, 1e20, 1e-20])
    mean, std = make(name).fit(X, Y[:, None] * sizes).predict(QUERY, return_std=True)
    for part, reference in zip((mean, std), (mean[:, :1], std[:, :1]), strict=True):
        rtol = max(1e-4, 20 * tolerance(name))
        np.testing.assert_allclose(part / sizes, np.tile(reference, 3), rtol=rtol)


@quick_configurations
@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_size_of_weights_does_not_matter_without_repeated_points(name, size):
    model = make(name).fit(X, Y, sample_weight=np.full(len(X), size))
    np.testing.assert_allclose(
        model.predict(QUERY), fitted(name).predict(QUERY), rtol=1e-3, atol=1e-4
    )


# The helpers themselves


def test_resolve_device():
    array, tensor = origin_of(X), origin_of(torch.tensor(X))
    assert (array, tensor) == (Origin(False, CPU), Origin(True, CPU))
    assert resolve_device("cpu", array) == resolve_device("auto", tensor) == CPU
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto", array).type == expected


def test_owned_copies():
    array, tensor = X.copy(), torch.tensor(X)
    for value in (array, tensor, strided(X)):
        copy = owned(value, torch.float64, CPU)
        copy.fill_(0.0)
        assert same_bits(np.asarray(value), X)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float16, torch.float64),
        (torch.bfloat16, torch.float64),
        (torch.int32, torch.float64),
        (torch.bool, torch.float64),
    ],
)
def test_check_tensor_casts_what_numpy_or_solvers_lack(dtype, result):
    assert check_tensor(torch.zeros(3, dtype=dtype), "X").dtype == result
