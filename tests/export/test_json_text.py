import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from skpou import HierarchicalPOURegressor, MultiStageRegressor
from skpou.export import SCHEMA, to_json
from skpou.multi_stage import fit as multi_stage
from skpou.multi_stage.families import grid
from tests import estimators
from tests.export.exported import REFUSED, each_model, fitted, outputs, spread

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "read_json.py"
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}


def reader():
    """The example, which knows nothing of the package."""
    spec = importlib.util.spec_from_file_location("read_json", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(value, schema, place=""):
    """What contradicts a schema, as far as ours uses the language of schemas."""
    if "oneOf" in schema:
        found = [faults(value, choice, place) for choice in schema["oneOf"]]
        return [] if [] in found else [f"{place}: none of {len(found)}: {min(found, key=len)}"]
    if "const" in schema and value != schema["const"]:
        return [f"{place}: {value!r} is not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is none of {schema['enum']}"]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    fits = any(
        isinstance(value, TYPES[t]) and (t == "boolean" or not isinstance(value, bool))
        for t in types
    )
    if types and not fits:
        return [f"{place}: {value!r:.40} is no {types}"]
    if "minimum" in schema and value < schema["minimum"]:
        return [f"{place}: {value} < {schema['minimum']}"]
    if isinstance(value, list):
        pairs = enumerate(value)
        return [f for i, v in pairs for f in faults(v, schema.get("items", {}), f"{place}[{i}]")]
    found = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [f"{place}: no {k}" for k in schema.get("required", []) if k not in value]
        if not schema.get("additionalProperties", True):
            found += [f"{place}: {k} is unknown" for k in value if k not in known]
        for key in value.keys() & known.keys():
            found += faults(value[key], known[key], f"{place}.{key}")
    return found


@each_model("networks", "two outputs on a grid", "a constant column")
def test_the_reader_predicts_the_same(name):
    model, X = fitted(name)
    text = json.loads(to_json(model))
    assert faults(text, SCHEMA) == []
    X = X[:8]  # the reader goes point by point
    evaluate = reader().evaluate
    expected = outputs(model, X)
    error = np.abs([evaluate(text, x) for x in X] - expected) / spread(model)
    # NumPy sums Legendre series in another way.
    size = np.abs(expected / spread(model)).max()
    assert error.max() <= 1e-12 + 4 * np.finfo(float).eps * size


def test_a_sparse_grid_in_a_stage(monkeypatch):
    monkeypatch.setattr(grid, "FEWEST_ROWS", 200)
    monkeypatch.setattr(grid, "FEWEST_COLUMNS", 2)
    monkeypatch.setattr(multi_stage, "FAMILIES", (grid.Grids(),))
    X = np.random.default_rng(0).random((200, 2))
    model = MultiStageRegressor().fit(X, np.abs(X[:, 0] - 0.5) * np.abs(X[:, 1] - 0.5))
    assert [stage["kind"] for stage in model.model_["stages"]] == ["sparse_grid"]
    text, evaluate = json.loads(to_json(model)), reader().evaluate
    assert faults(text, SCHEMA) == []
    error = [evaluate(text, x)[0] for x in X[:8]] - model.predict(X[:8])
    assert np.abs(error).max() <= 1e-12


def test_the_schema_refuses_what_is_not_in_it():
    text = json.loads(to_json(fitted("tree")[0]))
    for change in (
        {"version": 2},
        {"n_features": 0},
        {"more": 1},
        {"steps": [{**text["steps"][0], "operation": "add"}]},
        {"steps": [{**text["steps"][0], "offset": ["0"]}]},
    ):
        assert faults({**text, **change}, SCHEMA), change
    del text["steps"]
    assert faults(text, SCHEMA)
    json.dumps(SCHEMA)


def test_reader_is_short():
    code = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    start = next(i for i, line in enumerate(code) if line.startswith("FUNCTIONS"))
    end = next(i for i, line in enumerate(code) if line.startswith("def main"))
    assert end - start <= 65


def test_names_box_and_noise():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"voltage": np.linspace(1, 3, 40), "one": 1.0})
    model = HierarchicalPOURegressor().fit(X, np.abs(X["voltage"] - 2))
    text = json.loads(to_json(model))
    assert text["feature_names"] == ["voltage", "one"]
    assert text["box"] == {"columns": [0], "low": [1.0], "high": [3.0]}
    np.testing.assert_array_equal(np.ravel(text["noise"]), model.noise_)


@pytest.mark.parametrize("name", REFUSED)
def test_other_estimators_are_refused(name):
    with pytest.raises(TypeError, match="Got"):
        to_json(estimators.make(name))
