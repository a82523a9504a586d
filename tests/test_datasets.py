"""The test problems: targets against their formulas, draws against their stated statistics."""

import numpy as np
import pytest

from skpou import datasets

GENERATORS = {name: getattr(datasets, name) for name in dir(datasets) if name.startswith("make_")}
N_FEATURES = {
    "make_bump": 1,
    "make_cross": 2,
    "make_curved_ridge": 2,
    "make_diode": 1,
    "make_multiscale": 1,
    "make_piecewise_quadratic": 1,
    "make_sine_bump": 1,
    "make_swiss_roll": 3,
    "make_transistor": 2,
    "make_triangle_wave": 1,
    "make_two_moons_3d": 3,
}
REGRESSION = sorted(set(N_FEATURES) - {"make_two_moons_3d"})


def line(low, high, n):
    return np.linspace(low, high, n)[:, None]


def test_all_generators_are_covered():
    assert set(GENERATORS) == {*N_FEATURES, "make_spectra"}


# What all have in common.


@pytest.mark.parametrize("n_samples", [1, 2, 37])
@pytest.mark.parametrize("name", N_FEATURES)
def test_shapes_and_types(name, n_samples):
    X, y = GENERATORS[name](n_samples, random_state=0)
    assert X.shape == (n_samples, N_FEATURES[name])
    assert X.dtype == np.float64
    assert y.shape == (n_samples,)
    assert y.dtype == (np.int64 if name == "make_two_moons_3d" else np.float64)


@pytest.mark.parametrize("name", N_FEATURES)
def test_same_seed_same_bits(name):
    generate = GENERATORS[name]
    X, y = generate(50, noise=0.1, random_state=3)
    X_again, y_again = generate(50, noise=0.1, random_state=np.random.RandomState(3))
    X_other, _ = generate(50, noise=0.1, random_state=4)
    np.testing.assert_array_equal(X, X_again)
    np.testing.assert_array_equal(y, y_again)
    assert not np.array_equal(X, X_other)


@pytest.mark.parametrize("name", REGRESSION)
def test_noise_is_gaussian_of_the_stated_deviation_on_unmoved_points(name):
    X, clean = GENERATORS[name](20_000, random_state=0)
    X_noisy, noisy = GENERATORS[name](20_000, noise=0.3, random_state=0)
    np.testing.assert_array_equal(X, X_noisy)
    error = (noisy - clean) / 0.3
    # Five standard errors of the mean, the deviation and the fourth moment.
    assert abs(error.mean()) < 5 / np.sqrt(20_000)
    assert abs(error.std() - 1) < 5 / np.sqrt(2 * 20_000)
    assert abs((error**4).mean() - 3) < 5 * np.sqrt(96 / 20_000)


@pytest.mark.parametrize("name", REGRESSION)
def test_given_points_are_evaluated(name):
    X, y = GENERATORS[name](200, random_state=1)
    X_given, y_given = GENERATORS[name](7, X=X)
    np.testing.assert_array_equal(X_given, X)
    np.testing.assert_array_equal(y_given, y)


@pytest.mark.parametrize("name", N_FEATURES)
def test_given_points_may_be_lists_of_integers(name):
    # A cross has a zero coordinate; a transistor without a collector voltage has no current.
    X = [[1] + [int(name == "make_transistor")] * (N_FEATURES[name] - 1)]
    X_given, y = GENERATORS[name](X=X)
    assert X_given.dtype == np.float64
    assert y.shape == (1,)


@pytest.mark.parametrize("name", N_FEATURES)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 0}, "n_samples.*Got 0"),
        ({"n_samples": 10.0}, "n_samples.*Got 10.0"),
        ({"noise": -0.1}, "noise.*Got -0.1"),
        ({"noise": "low"}, "noise.*Got 'low'"),
        ({"random_state": "now"}, "random_state.*Got 'now'"),
        ({"X": np.ones((3, 4))}, r"X must have shape \(n, \d\), got \(3, 4\)"),
        ({"X": np.ones(3)}, "2D array"),
        ({"X": np.empty((0, 1))}, "0 sample"),
        ({"X": [[np.nan]]}, "X contains NaN"),
    ],
)
def test_bad_parameters_are_refused_by_name(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        GENERATORS[name](**parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("make_piecewise_quadratic", {"n_pieces": 0}, "n_pieces.*Got 0"),
        ("make_piecewise_quadratic", {"n_pieces": 2.5}, "n_pieces.*Got 2.5"),
        ("make_triangle_wave", {"frequency": 0}, "frequency.*Got 0"),
        ("make_curved_ridge", {"kind": "rough"}, "kind.*Got 'rough'"),
        ("make_curved_ridge", {"printed": True}, "kind='smooth'"),
        ("make_swiss_roll", {"point_noise": -1.0}, "point_noise.*Got -1.0"),
        ("make_swiss_roll", {"response": "cubed"}, "response.*Got 'cubed'"),
        ("make_diode", {"log": "e"}, "log.*Got 'e'"),
        ("make_diode", {"X": [[0.5], [0.0]]}, "positive voltages.*got 0.0 V"),
        ("make_cross", {"X": [[0.0, 0.5], [0.25, 0.5]]}, r"row 1 is \[0.25, 0.5\]"),
    ],
)
def test_bad_own_parameters_are_refused_by_name(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        GENERATORS[name](**parameters)


@pytest.mark.parametrize("name", N_FEATURES)
def test_docstrings_are_complete(name):
    text = GENERATORS[name].__doc__
    assert "%" not in text.replace(" % ", "")  # every placeholder is filled in
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"    {section}\n    {'-' * len(section)}\n" in text
    assert f"X : ndarray of shape (n, {N_FEATURES[name]})" in text


# The domains.


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("make_bump", 0, 1),
        ("make_sine_bump", 0, 1),
        ("make_piecewise_quadratic", 0, 1),
        ("make_triangle_wave", 0, 1),
        ("make_curved_ridge", 0, 1),
        ("make_multiscale", -1, 1),
        ("make_diode", 0.01, 1.208),
    ],
)
def test_points_are_uniform_on_the_domain(name, low, high):
    X, _ = GENERATORS[name](20_000, random_state=0)
    share = (np.sort(X, axis=0) - low) / (high - low)
    expected = (np.arange(20_000)[:, None] + 0.5) / 20_000
    # The Kolmogorov-Smirnov distance exceeds this with probability 1e-5.
    assert np.abs(share - expected).max() < 2.5 / np.sqrt(20_000)
    assert share.min() >= 0
    assert share.max() <= 1


# The smooth targets.


def test_bump():
    _, y = datasets.make_bump(X=[[0.5], [0.55], [0.4], [0.0]])
    np.testing.assert_allclose(y, np.exp([0, -0.5, -2, -50]), rtol=1e-13)


def test_sine_bump_is_the_sum():
    x = line(0, 1, 101)
    _, y = datasets.make_sine_bump(X=x)
    np.testing.assert_allclose(
        y - datasets.make_bump(X=x)[1], np.sin(2 * np.pi * x[:, 0]), atol=1e-15
    )


def test_multiscale():
    _, y = datasets.make_multiscale(X=[[-0.5], [0.0]])
    np.testing.assert_allclose(y, [0.2 * np.exp(-0.65), np.sin(1) + 0.2], rtol=1e-15)


def test_cross_draws_both_arms_evenly():
    X, y = datasets.make_cross(1001, random_state=0)
    assert (X[:, 1] == 0).sum() == 501
    assert (X[:, 0] == 0).sum() == 500
    assert X.min() < -0.99
    assert X.max() > 0.99
    np.testing.assert_array_equal(y, np.sin(2 * np.pi * X.sum(axis=1)))


# The waves.


def slopes(generate, x, step, **parameters):
    """One-sided difference quotients just below and just above each of the points ``x``."""
    at = np.asarray(x)[:, None]
    below, centre, above = (generate(X=at + h, **parameters)[1] for h in (-step, 0, step))
    return (centre - below) / step, (above - centre) / step


@pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
def test_quadratic_wave_has_p_pieces_kinked_at_the_integers(p):
    generate = datasets.make_piecewise_quadratic
    x = line(0, 1, 200 * p + 1)
    _, y = generate(X=x, n_pieces=p)
    curvature = np.diff(y, 2) * (200 * p) ** 2
    kinks = np.flatnonzero(np.abs(curvature - 8 * p**2) > 1)
    # Everywhere else one parabola of second derivative 8 p^2.
    np.testing.assert_array_equal(kinks + 1, 200 * np.arange(1, p))
    left, right = slopes(generate, np.arange(p + 1) / p, 1e-7, n_pieces=p)
    np.testing.assert_allclose(left, 4 * p, rtol=1e-5)
    np.testing.assert_allclose(right, -4 * p, rtol=1e-5)
    np.testing.assert_allclose(generate(X=line(0, 1, p + 1), n_pieces=p)[1], 1, rtol=1e-14)


@pytest.mark.parametrize("p", [1, 4, 7])
def test_quadratic_wave_is_continuous(p):
    step = 1e-6
    x = np.arange(0, 1, step)[:, None]
    _, y = datasets.make_piecewise_quadratic(X=x, n_pieces=p)
    assert np.abs(np.diff(y)).max() <= 4 * p * step * (1 + 1e-6)
    assert y.min() >= 0
    assert y.max() <= 1


def test_one_piece_is_a_single_parabola():
    x = line(0, 1, 1001)
    _, y = datasets.make_piecewise_quadratic(X=x, n_pieces=1)
    np.testing.assert_allclose(y, (2 * x[:, 0] - 1) ** 2, atol=4e-16)


@pytest.mark.parametrize("p", [1, 3])
def test_printed_wave_jumps_at_the_half_integers_and_reaches_nine(p):
    x = line(0, 1, 2000 * p)  # an even number of intervals' ends: no point on a jump
    _, y = datasets.make_piecewise_quadratic(X=x, n_pieces=p, printed=True)
    jumps = np.flatnonzero(np.abs(np.diff(y)) > 4)
    np.testing.assert_allclose(x[jumps, 0], (np.arange(p) + 0.5) / p, atol=1e-3)
    _, at_jump = datasets.make_piecewise_quadratic(X=[[0.5 / p]], n_pieces=p, printed=True)
    assert at_jump == pytest.approx(9)
    assert y.max() <= 9
    assert y.min() > 1


@pytest.mark.parametrize("p", [1, 2, 5])
def test_triangle_wave_has_two_pieces_a_period_and_its_square_one(p):
    x = line(0, 1, 200 * p + 1)
    _, y = datasets.make_triangle_wave(X=x, frequency=p)
    kinks = np.flatnonzero(np.abs(np.diff(y, 2)) > 1e-3)
    np.testing.assert_array_equal(kinks + 1, 100 * np.arange(1, 2 * p))
    np.testing.assert_allclose(np.abs(np.diff(y)) * 200 * p, 2 * p, rtol=1e-9)
    assert (y.min(), y.max()) == (-1, pytest.approx(0, abs=1e-14))
    _, squared = datasets.make_triangle_wave(X=x, frequency=p, squared=True)
    _, wave = datasets.make_piecewise_quadratic(X=x, n_pieces=p)
    np.testing.assert_array_equal(squared, wave)


def test_curved_ridge_is_constant_along_its_parabolas():
    x1 = np.linspace(0, 1, 51)
    for height in (0.1, 0.25, 0.6):
        X = np.column_stack([x1, height + (x1 - 0.5) ** 2])
        _, smooth = datasets.make_curved_ridge(X=X)
        _, kinked = datasets.make_curved_ridge(X=X, kind="kinked")
        np.testing.assert_allclose(smooth, np.sin(2 * np.pi * height), atol=1e-14)
        wave = datasets.make_piecewise_quadratic(X=[[height]], n_pieces=4)[1]
        np.testing.assert_allclose(kinked, wave[0], atol=1e-13)


@pytest.mark.parametrize(("printed", "n_pieces"), [(False, 5), (True, 6)])
def test_kinked_ridge_has_five_pieces_and_printed_six(printed, n_pieces):
    # From the corner s = -1/4 up to s = 1: every piece is crossed once.
    s = np.linspace(-0.25, 1, 4002)[1:-1]
    X = np.column_stack([0.5 - np.sqrt(np.clip(-s, 0, None)), np.clip(s, 0, None)])
    _, y = datasets.make_curved_ridge(X=X, kind="kinked", printed=printed)
    curvature = np.diff(y, 2) / (s[1] - s[0]) ** 2
    breaks = np.flatnonzero(np.abs(curvature - 128) > 1)
    assert 1 + (np.diff(breaks, prepend=-9) > 2).sum() == n_pieces


# The diode.


def diode_current(voltage, current):
    """Right-hand side of the circuit's equation, written in currents instead of logarithms."""
    thermal = 1.38064852e-23 * 300.15 / 1.6021766208e-19
    u = voltage - 0.568 * current
    ideal = 2.52e-14 * np.expm1(u / (1.15 * thermal))
    recombination = 1e-16 * np.expm1(u / (2 * thermal)) * ((1 - u) ** 2 + 0.005) ** 0.25
    return ideal / (1 + np.sqrt(ideal / 0.05)) + recombination


def test_diode_satisfies_its_equation():
    voltage = np.concatenate([np.logspace(-9, -2, 50), np.linspace(0.01, 1.208, 2001)])
    _, current = datasets.make_diode(X=voltage[:, None], log=False)
    np.testing.assert_allclose(diode_current(voltage, current), current, rtol=1e-12)


def test_diode_logarithm_and_current_agree():
    x = line(0.01, 1.208, 101)
    _, decades = datasets.make_diode(X=x)
    _, current = datasets.make_diode(X=x, log=False)
    np.testing.assert_allclose(10**decades, current, rtol=1e-13)
    assert decades[0] == pytest.approx(-14, abs=0.01)
    assert np.all(np.diff(decades) > 0)


@pytest.mark.filterwarnings("error")
def test_diode_at_extreme_voltages():
    _, current = datasets.make_diode(X=[[1e-300], [1e-12], [50.0], [1e5]], log=False)
    assert np.all((current > 0) & (current < [1e-299, 1e-11, 50 / 0.568, 1e5 / 0.568]))
    # The junction takes a few volts; the resistance carries the rest.
    np.testing.assert_allclose(current[3], 1e5 / 0.568, rtol=0.05)


def test_diode_agrees_with_the_simulated_circuit(shared_data):
    voltage, current = np.loadtxt(
        shared_data / "devices" / "diode.csv.gz", delimiter=",", skiprows=1, unpack=True
    )
    _, ours = datasets.make_diode(X=voltage[:, None], log=False)
    # 1.33e-8 over 13 decades; a wrong sixth digit of k / q would show as 1e-5.
    np.testing.assert_allclose(ours, current, rtol=1.4e-8)


# The thesis' problems.


def test_swiss_roll_lies_on_the_roll():
    X, y = datasets.make_swiss_roll(5000, random_state=0)
    t = np.hypot(X[:, 0], X[:, 2])
    assert t.min() >= 1.5 * np.pi
    assert t.max() <= 4.5 * np.pi
    np.testing.assert_allclose(X[:, 0], t * np.cos(t), atol=1e-12)
    np.testing.assert_allclose(X[:, 2], t * np.sin(t), atol=1e-12)
    assert (X[:, 1].min(), X[:, 1].max()) == (pytest.approx(0, abs=5e-3), pytest.approx(3, 5e-3))
    s = (t - 1.5 * np.pi) / (3 * np.pi)
    np.testing.assert_allclose(y, np.sin(5 * np.pi * s) + X[:, 1] ** 2, atol=1e-13)
    _, printed = datasets.make_swiss_roll(response="printed", X=X)
    np.testing.assert_allclose(printed, np.sin(5 * np.pi * t) + X[:, 1] ** 2, atol=1e-12)


def test_swiss_roll_point_noise_moves_points_not_the_response():
    X, y = datasets.make_swiss_roll(20_000, random_state=0)
    moved, y_moved = datasets.make_swiss_roll(20_000, point_noise=0.1, random_state=0)
    np.testing.assert_array_equal(y, y_moved)
    np.testing.assert_allclose((moved - X).std(axis=0), 0.1, rtol=5 / np.sqrt(40_000))


def test_swiss_roll_height_is_the_square_of_the_recorded_column():
    X, y = datasets.make_swiss_roll(100, point_noise=0.1, response="height", random_state=0)
    np.testing.assert_array_equal(y, X[:, 1] ** 2)


def test_two_moons_without_noise_lie_on_half_circles():
    X, y = datasets.make_two_moons_3d(2001, random_state=0)
    np.testing.assert_array_equal(np.bincount(y), [1001, 1000])
    upper, lower = X[y == 0], X[y == 1]
    np.testing.assert_allclose(np.hypot(upper[:, 0], upper[:, 1]), 1, rtol=1e-14)
    assert upper[:, 1].min() >= 0
    np.testing.assert_allclose(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), 1, rtol=1e-14)
    assert lower[:, 1].max() <= 0.5
    assert 0 <= X[:, 2].min() < X[:, 2].max() <= 1
    np.testing.assert_array_equal(datasets.make_two_moons_3d(X=X)[1], y)


def test_two_moons_noise_displaces_the_plane_only():
    X, y = datasets.make_two_moons_3d(20_000, random_state=0)
    moved, y_moved = datasets.make_two_moons_3d(20_000, noise=0.2, random_state=0)
    np.testing.assert_array_equal(y, y_moved)
    np.testing.assert_array_equal(X[:, 2], moved[:, 2])
    deviation = (moved - X)[:, :2].std(axis=0)
    np.testing.assert_allclose(deviation, 0.2, rtol=5 / np.sqrt(40_000))


@pytest.mark.parametrize(("noise", "rate"), [(0.1, 0.9989), (0.2, 0.9678)])
def test_two_moons_bayes_rule_reaches_the_stated_rate(noise, rate):
    X, y = datasets.make_two_moons_3d(40_000, noise=noise, random_state=0)
    _, best = datasets.make_two_moons_3d(noise=noise, X=X)
    error = 5 * np.sqrt(rate * (1 - rate) / 40_000)
    assert (best == y).mean() == pytest.approx(rate, abs=error)


# Spectra, whose columns follow from the labels


def spectrum(*labels):
    return datasets.make_spectra(labels=[labels])[0][0]


def at(wavelength):
    """Number of the column nearest to a wavelength in angstrom."""
    return int(np.abs(np.geomspace(3850, 9200, 3800) - wavelength).argmin())


def test_spectra_are_normalised_and_repeatable():
    X, y = datasets.make_spectra(30, noise=0.1, random_state=3)
    again, same = datasets.make_spectra(30, random_state=np.random.RandomState(3))
    assert X.shape == (30, 3800)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1)
    np.testing.assert_array_equal(y, same)
    assert (y >= [4000, 1, -3]).all()
    assert (y <= [9000, 5, 0.5]).all()
    assert (again > 0).all()
    error = (X - again) * np.sqrt(3800) / 0.1  # The mean flux is near the root mean square.
    assert abs(error.std() - 1) < 0.15


def test_spectra_do_not_depend_on_the_others_in_their_block():
    labels = np.random.default_rng(0).uniform([4000, 1, -3], [9000, 5, 0.5], (1005, 3))
    X, y = datasets.make_spectra(labels=labels)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_allclose(X[1002], spectrum(*labels[1002]), rtol=1e-12)


def test_lines_answer_to_the_labels_as_those_of_stars_do():
    def depth(x, line, width=25):
        k = at(line)
        return 1 - x[k] / max(x[k - width], x[k + width])

    hot, cool = spectrum(8900, 4, -1), spectrum(4800, 4, -1)
    assert depth(hot, 6562.8) > 2 * depth(cool, 6562.8)
    assert depth(cool, 5183.6) > 2 * depth(hot, 5183.6)
    rich, poor = spectrum(5800, 4.4, 0.3), spectrum(5800, 4.4, -2.5)
    assert depth(rich, 3933.7) > 2 * depth(poor, 3933.7)
    # Pressure widens hydrogen's lines.
    dwarf, giant = spectrum(8000, 5, -1), spectrum(8000, 2, -1)
    wing = [x[at(4861.3) + 15] / x[at(4861.3) + 120] for x in (dwarf, giant)]
    assert wing[0] < wing[1]
    # Wien's law: what is hotter is bluer.
    assert np.argmax(hot) < np.argmax(cool)


def test_labels_can_be_read_from_spectra():
    """Already by a linear model, which knows nothing of saturation."""
    X, y = datasets.make_spectra(500, random_state=0)
    design = X - X[:300].mean(0)
    gram = design @ design[:300].T
    weights = np.linalg.solve(gram[:300] + 1e-8 * np.eye(300), y[:300] - y[:300].mean(0))
    error = gram[300:] @ weights + y[:300].mean(0) - y[300:]
    assert (error.std(0) < 0.25 * y.std(0)).all()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"labels": [[5000.0, 4.0]]}, r"labels must have shape \(n, 3\), got \(1, 2\)"),
        ({"labels": [[5000.0, 4.0, 1.0]]}, r"labels must lie between .* Got 1\.0 in column 2"),
        ({"noise": -1.0}, "'noise' parameter of make_spectra"),
        ({"n_samples": 0}, "'n_samples' parameter of make_spectra"),
    ],
)
def test_bad_parameters_of_spectra(params, match):
    with pytest.raises(ValueError, match=match):
        datasets.make_spectra(**params)


# Transistor


def test_transistor_saturates_and_amplifies():
    """Sixty millivolts a decade, and hardly more current at larger collector voltages."""
    base = np.array([0.45, 0.5, 0.55])
    _, y = datasets.make_transistor(X=np.column_stack([base, np.full(3, 2.0)]))
    decade = 1.38064852e-23 * 300.15 / 1.6021766208e-19 * np.log(10)  # V
    np.testing.assert_allclose(np.diff(y), 0.05 / decade, rtol=0.01)
    _, current = datasets.make_transistor(X=[[0.5, 2.0], [0.5, 4.0], [0.5, 0.1]], log=False)
    assert 1.0 < current[1] / current[0] < 1.0 + 2.5 / 74  # Early's voltage
    assert current[2] < current[0]
    assert current.dtype == np.float64


def test_transistor_refuses_a_logarithm_of_a_negative_current():
    with pytest.raises(ValueError, match=r"X has a current of -.* \[0.5, 0.0\]"):
        datasets.make_transistor(X=[[0.5, 2.0], [0.5, 0.0]])


# Tables


def test_meats():
    meats = datasets.load_meats()
    assert meats.data.shape == (215, 100) and meats.target.shape == (215, 3)
    assert len(meats.feature_names) == len(meats.wavelength) == 100
    assert np.isfinite(meats.data).all()
    # Water, fat and protein are nearly all of it.
    assert (np.abs(meats.target.sum(1) - 98) < 5).all()


def test_steam():
    steam = datasets.load_steam()
    temperature, pressure = steam.data.T
    density, enthalpy, entropy = steam.target.T
    # Verification values of IAPWS-IF97 have no place in the table; water at 20 degrees and steam
    # near an ideal gas do: p = rho R T with R of the standard, in kJ/(kg K).
    cold = (temperature == 20) & (pressure == 0.1)
    assert density[cold] == pytest.approx(998.2, abs=0.1)
    hot = (temperature == 400) & (pressure == 0.1)
    assert density[hot] == pytest.approx(100 / (0.461526 * 673.15), rel=2e-3)
    # Along an isobar heat goes in: dh = T ds, summed by the trapezoidal rule within the vapour.
    line = (pressure == 1.0) & steam.is_steam
    kelvin = temperature[line] + 273.15
    heat = np.sum(np.diff(entropy[line]) * (kelvin[1:] + kelvin[:-1]) / 2)
    assert heat == pytest.approx(np.ptp(enthalpy[line]), rel=1e-4)
    assert steam.is_steam[hot].all() and not steam.is_steam[cold].any()
