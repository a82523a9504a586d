import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, SparseGridRegressor
from skpou.export import to_spice
from tests import estimators
from tests.examples import slow
from tests.export.exported import REFUSED, each_model, fitted, outputs, spread

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "spice.py"
NGSPICE = shutil.which("ngspice")
needs_ngspice = pytest.mark.skipif(NGSPICE is None, reason="needs the circuit simulator ngspice")


def simulated(netlist, folder, command="op"):
    """Vectors of one analysis by name, with all digits."""
    path = folder / "circuit.cir"
    control = ["set filetype=ascii", command, "write circuit.raw"]
    lines = ["test", netlist, ".control", *control, ".endc", ".end"]
    path.write_text("\n".join(lines))
    done = subprocess.run(
        [NGSPICE, "-b", path], cwd=folder, capture_output=True, text=True, check=False
    )
    raw = folder / "circuit.raw"
    assert raw.exists(), done.stdout + done.stderr
    head, values = raw.read_text().split("Values:")
    names = [line.split()[1] for line in head.split("\nVariables:")[1].strip().splitlines()]
    numbers = np.array(values.split(), dtype=float).reshape(-1, len(names) + 1)
    return dict(zip(names, numbers[:, 1:].T))


def at_points(model, X, folder, **options):
    """Outputs (n, m) of an instance of the subcircuit for each point, in one circuit."""
    m = len(model.scaling_["scale"])
    lines = [to_spice(model, output="voltage", **options)]
    for k, x in enumerate(X):
        pins = [f"p{k}_{j}" for j in range(len(x))]
        lines += [f"V{pin} {pin} 0 {value!r}" for pin, value in zip(pins, x.tolist())]
        targets = [f"q{k}_{i}" for i in range(m)]
        lines.append(f"X{k} {' '.join([*pins, *targets])} 0 model")
    found = simulated("\n".join(lines), folder)
    return np.array([[found[f"v(q{k}_{i})"][0] for i in range(m)] for k in range(len(X))])


@needs_ngspice
@each_model("networks", "units", "two outputs on a grid", "a constant column")
def test_simulator_evaluates_the_mean(name, tmp_path):
    model, X = fitted(name)
    box, columns = model.scaling_, model.scaling_["columns"]
    unit = (X[:, columns] - box["offset"]) / box["width"]
    X = X[((unit > 0) & (unit < 1)).all(1)][:12]
    expected = outputs(model, X)
    found = at_points(model, X, tmp_path)
    # ngspice keeps eleven digits of each number in an expression.
    largest = np.abs(np.reshape(model.coef_, (-1, expected.shape[1]))).max(0)
    largest = np.maximum(largest, np.abs(expected).max(0))
    error = np.abs(found - expected).max(0) / np.maximum(spread(model), largest)
    assert error.max() <= 1e-9


@needs_ngspice
def test_outside_the_box_it_goes_on_linearly(tmp_path):
    x = np.linspace(1, 2, 60)[:, None]
    model = HierarchicalPOURegressor(1, 3).fit(x, x[:, 0] ** 3)
    low, inside, high = at_points(model, np.array([[-9.0], [1.5], [12.0]]), tmp_path)[:, 0]
    np.testing.assert_allclose([low, inside, high], [1 - 3 * 10, 1.5**3, 8 + 12 * 10], rtol=1e-9)


@needs_ngspice
def test_beyond_a_face_of_the_box(tmp_path):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.uniform((0, -1), (2, 1), (200, 2)), [[0, -1], [2, 1]]])
    model = HierarchicalPOURegressor(1, 1).fit(X, 3 * X[:, 0] - X[:, 1])
    found = at_points(model, np.array([[5.0, 0.0], [-1.0, 4.0]]), tmp_path)[:, 0]
    np.testing.assert_allclose(found, [15, -7], rtol=1e-9)


@needs_ngspice
def test_currents_flow_from_the_output_to_the_reference(tmp_path):
    V = np.linspace(-1, 1, 200)[:, None]
    model = HierarchicalPOURegressor().fit(V, 1e-3 * np.maximum(V[:, 0], 0))
    circuit = to_spice(model, name="ideal") + "\nVin a 0 3\nR1 a d 2k\nX1 d d 0 ideal"
    # 3 V over 2 kohm and a diode of 1 kohm: 1 mA.
    np.testing.assert_allclose(simulated(circuit, tmp_path)["i(vin)"], -1e-3, rtol=1e-9)


@needs_ngspice
@pytest.mark.parametrize("device", ["diode", *slow("transistor")])
def test_circuits_have_the_waveforms_of_the_simulators_own_devices(device):
    """The example's rectifier and amplifier: within 1e-4 of the amplitude at all times."""
    spec = importlib.util.spec_from_file_location("spice_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    _, waves = example.compare(device, example.fit(device))
    assert np.ptp(waves["simulator's own"]) > 2  # it rectifies, or amplifies
    assert np.abs(example.difference(waves)).max() < 1e-4


def test_lines_are_short_and_the_box_is_told():
    text = to_spice(fitted("two outputs")[0])
    assert max(map(len, text.splitlines())) <= 100
    assert ".subckt model x1 x2 y1 y2 ref" in text
    assert "x1 (x1) 2." in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "1n4148"}, "name must be letters, digits and underscores. Got '1n4148'"),
        ({"name": None}, "name must be"),
        ({"output": "power"}, "output must be 'current' or 'voltage'. Got 'power'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        to_spice(fitted("grid")[0], **options)


@pytest.mark.parametrize("name", REFUSED)
def test_other_estimators_are_refused(name):
    with pytest.raises(TypeError, match="Got"):
        to_spice(estimators.make(name))


def test_named_columns():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"v be": np.linspace(0, 1, 30)})
    assert "x1 (v be) 0 to 1" in to_spice(SparseGridRegressor(level=2).fit(X, X["v be"]))
