"""Programs as C99: value and gradient, without any library but that of mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from skpou.export.families import POINT, Program, Step, program_of

#: Numbers on a line of an array.
NUMBERS_A_LINE = 4
#: Names that mean something else in C99, in ``math.h`` or in every file.
RESERVED = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|"
    "inline|int|long|register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|"
    "union|unsigned|void|volatile|while|main|evaluate|DIMENSIONS|apply_.*|v\\d.*|"
    "tanh|sin|cos|exp|log1p|fabs|floor|ldexp"
)

#: One function an operation. A vector holds, for each entry, its value and the derivatives along
#: the k columns that the mean depends on, k = 0 for a value alone.
HELPERS = {
    "scale": """
static void scale(int n, const int *columns, const double *offset, const double *width,
                  double factor, double shift, const double *x, double *out, int k)
{
    int i, l, w = k + 1;
    for (i = 0; i < n; i++) {
        out[i * w] = factor * ((x[columns[i]] - offset[i]) / width[i]) + shift;
        for (l = 1; l < w; l++)
            out[i * w + l] = l == i + 1 ? factor / width[i] : 0.0;
    }
}
""",
    "affine": """
static void affine(int n, int p, const double *matrix, const double *bias, const double *v,
                   double *out, int k)
{
    int i, j, l, w = k + 1;
    for (i = 0; i < n; i++) {
        for (l = 0; l < w; l++)
            out[i * w + l] = 0.0;
        for (j = 0; j < p; j++)
            for (l = 0; l < w; l++)
                out[i * w + l] += matrix[i * p + j] * v[j * w + l];
        out[i * w] += bias[i];
    }
}
""",
    "apply": """
static void apply(int n, double (*function)(double, double *), const double *v, double *out, int k)
{
    int i, l, w = k + 1;
    for (i = 0; i < n; i++) {
        double slope;
        out[i * w] = function(v[i * w], &slope);
        for (l = 1; l < w; l++)
            out[i * w + l] = slope * v[i * w + l];
    }
}
""",
    "distances": """
static void distances(int n, int p, const double *centres, const double *rate, const double *v,
                      double *out, int k)
{
    int i, j, l, w = k + 1;
    for (i = 0; i < n; i++) {
        for (l = 0; l < w; l++)
            out[i * w + l] = 0.0;
        for (j = 0; j < p; j++) {
            double step = v[j * w] - centres[i * p + j];
            out[i * w] += step * step;
            for (l = 1; l < w; l++)
                out[i * w + l] += 2.0 * step * v[j * w + l];
        }
        for (l = 0; l < w; l++)
            out[i * w + l] *= rate[i];
    }
}
""",
    "legendre": """
static void legendre(int n, int degree, const double *v, double *out, int k)
{
    int i, j, l, w = k + 1;
    for (i = 0; i < n; i++) {
        const double *t = v + i * w;
        double *p = out + i * (degree + 1) * w, slope = 1.0, before = 0.0;
        for (l = 0; l < w; l++)
            p[l] = l ? 0.0 : 1.0;
        for (j = 1; j <= degree; j++) {
            double *next = p + j * w, *last = next - w, save = slope;
            if (j == 1)
                next[0] = t[0];
            else {
                next[0] = ((2 * j - 1) * t[0] * last[0] - (j - 1) * (last - w)[0]) / j;
                slope = before + (2 * j - 1) * last[0];
                before = save;
            }
            for (l = 1; l < w; l++)
                next[l] = slope * t[l];
        }
    }
}
""",
    "products": """
static void products(int n, const int *parent, const int *factor, const double *v, double *out,
                     int k)
{
    int i, l, w = k + 1;
    for (l = 0; l < w; l++)
        out[l] = l ? 0.0 : 1.0;
    for (i = 1; i < n; i++) {
        const double *a = out + parent[i] * w, *b = v + factor[i] * w;
        out[i * w] = a[0] * b[0];
        for (l = 1; l < w; l++)
            out[i * w + l] = a[l] * b[0] + a[0] * b[l];
    }
}
""",
    "softmax": """
static void softmax(int n, const int *group, int sharp, const double *v, double *out, int k)
{
    int g, i, l, w = k + 1;
    for (g = 0; g < n; g++) {
        int largest = -1;
        double total = 0.0;
        for (i = 0; i < n; i++)
            if (group[i] == g && (largest < 0 || v[i * w] > v[largest * w]))
                largest = i;
        if (largest < 0)
            continue;
        for (i = 0; i < n; i++)
            if (group[i] == g)
                total += exp(v[i * w] - v[largest * w]);
        for (i = 0; i < n; i++)
            if (group[i] == g)
                out[i * w] = exp(v[i * w] - v[largest * w]) / total;
        if (sharp && k) /* The gradient is that of the chosen piece. */
            for (i = 0; i < n; i++)
                if (group[i] == g)
                    out[i * w] = i == largest ? 1.0 : 0.0;
        for (l = 1; l < w; l++) {
            double mean = 0.0;
            for (i = 0; i < n; i++)
                if (group[i] == g)
                    mean += out[i * w] * v[i * w + l];
            for (i = 0; i < n; i++)
                if (group[i] == g)
                    out[i * w + l] = sharp ? 0.0 : out[i * w] * (v[i * w + l] - mean);
        }
    }
}
""",
    "multiply": """
static void multiply(int n, const int *left, const int *right, const double *u, const double *v,
                     double *out, int k)
{
    int i, l, w = k + 1;
    for (i = 0; i < n; i++) {
        const double *a = u + left[i] * w, *b = v + right[i] * w;
        out[i * w] = a[0] * b[0];
        for (l = 1; l < w; l++)
            out[i * w + l] = a[l] * b[0] + a[0] * b[l];
    }
}
""",
    "sum": """
static void sum(int n, int m, const int *group, const double *v, double *out, int k)
{
    int i, l, w = k + 1;
    for (i = 0; i < m * w; i++)
        out[i] = 0.0;
    for (i = 0; i < n; i++)
        for (l = 0; l < w; l++)
            out[group[i] * w + l] += v[i * w + l];
}
""",
    "add": """
static void add(int n, const double *v, double *out, int k)
{
    int i;
    for (i = 0; i < n * (k + 1); i++)
        out[i] += v[i];
}
""",
    "sparse_grid": """
static void sparse_grid(int d, int n_vectors, int m, const int *kind, const int *shift,
                        const int *vectors, const int *first, const double *coef,
                        const double *u, double *out, int k)
{
    int r, j, l, i, w = k + 1;
    for (i = 0; i < m * w; i++)
        out[i] = 0.0;
    for (r = 0; r < n_vectors; r++) {
        /* The one function of each level vector that is not zero at u. */
        double value[1 + DIMENSIONS] = {1.0};
        int number = 0;
        for (j = 0; j < d; j++) {
            int f = vectors[r * d + j];
            double scale = ldexp(1.0, shift[f]), z = u[j * w] * scale, cell = floor(z), own, rate;
            cell = cell < 0.0 ? 0.0 : cell > scale - 1.0 ? scale - 1.0 : cell;
            z -= cell;
            own = 1.0 - fabs(2.0 * z - 1.0);
            rate = z < 0.5 ? 2.0 * scale : -2.0 * scale;
            if (kind[f] == 0)
                own = 1.0, rate = 0.0;
            else if (kind[f] == 1)
                own = 1.0 - u[j * w], rate = -1.0;
            else if (kind[f] == 2)
                own = u[j * w], rate = 1.0;
            else if (kind[f] == 4 && cell == 0.0)
                own = 2.0 - 2.0 * z, rate = -2.0 * scale;
            else if (kind[f] == 4 && cell == scale - 1.0)
                own = 2.0 * z, rate = 2.0 * scale;
            number = number * (1 << shift[f]) + (int)cell;
            for (l = 1; l < w; l++)
                value[l] = value[l] * own + value[0] * rate * u[j * w + l];
            value[0] *= own;
        }
        for (i = 0; i < m; i++)
            for (l = 0; l < w; l++)
                out[i * w + l] += coef[(first[r] + number) * m + i] * value[l];
    }
}
""",
}

#: Functions of `apply` with their slopes.
FUNCTION_SOURCES = {
    "tanh": "double s = tanh(z); *slope = 1.0 - s * s; return s;",
    "sin": "*slope = cos(z); return sin(z);",
    "cos": "*slope = -sin(z); return cos(z);",
    "relu": "*slope = z > 0.0 ? 1.0 : 0.0; return z > 0.0 ? z : 0.0;",
    "log_cosh": "double a = fabs(z); *slope = tanh(z);\n"
    "    return a + log1p(exp(-2.0 * a)) - 0.69314718055994530942;",
    "exp_minus": "double s = exp(-z); *slope = -s; return s;",
    "inverse": "double s = 1.0 / (1.0 + z); *slope = -s * s; return s;",
    "stretch": "*slope = z > 0.0 ? 1.0 / (1.0 + z) : 1.0; return z > 0.0 ? log1p(z) : z;",
}


def to_c(model: Any, *, name: str = "model", fit_alone: bool = False) -> str:
    """C99 source of a fitted regressor's mean and of its gradient.

    The source has two functions and needs no library but ``math.h``, no memory beyond the stack
    and no state, so that threads may share it::

        void model(const double *x, double *y);
        void model_gradient(const double *x, double *gradient);

    x are the columns of one row of X, y the outputs, and the gradient is row by row the
    derivatives of each output along all columns: what ``predict`` and ``predict_gradient`` return,
    outside the box of the data, too, until a mean leaves the range of y where its standard
    deviation exceeds this range, and ``predict`` holds it. Numbers are written with all
    digits; what is left is the round-off of sums in another order. A compiler must not be told to
    change the arithmetic (``-ffast-math``).

    Parameters
    ----------
    model : estimator
        Fitted `HierarchicalPOURegressor`, `POURegressor`, `LSGDRegressor`, `MultiStageRegressor`
        whose stages keep no rows, or `SparseGridRegressor`.
    name : str, default="model"
        Name of the functions; an identifier of C.
    fit_alone : bool, default=False
        Write the mean of the fit also where ``predict`` gives way to a linear model, as it may in
        noisy tables; False refuses such a model.

    Returns
    -------
    str
        One file.

    Raises
    ------
    TypeError
        If the model is of another class.
    ValueError
        If the name is none in C, a stage of the model cannot be exported, or its mean gives way to
        a linear model.

    Examples
    --------
    >>> import numpy as np
    >>> from skpou import HierarchicalPOURegressor
    >>> from skpou.export import to_c
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> source = to_c(HierarchicalPOURegressor().fit(X, np.abs(X[:, 0])), name="absolute")
    >>> "void absolute_gradient(const double *x, double *gradient)" in source
    True
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ValueError(f"name must be an identifier of C. Got {name!r}.")
    program = program_of(model, fit_alone)
    if RESERVED.fullmatch(name) or name in HELPERS:
        raise ValueError(f"name={name!r} has another meaning in C or in the source.")
    k = len(program.columns)
    used = {step.operation for step in program.steps}
    functions = {s.values["function"] for s in program.steps if s.operation == "apply"}
    parts = [
        _header(model, program),
        "#include <math.h>\n",
        *(f"#define DIMENSIONS {k}\n" for _ in range("sparse_grid" in used)),
        *(
            f"\nstatic double apply_{f}(double z, double *slope)\n{{\n    {source}\n}}\n"
            for f, source in FUNCTION_SOURCES.items()
            if f in functions
        ),
        *(source for operation, source in HELPERS.items() if operation in used),
        *(_arrays(step) for step in program.steps),
        _evaluation(program, k),
        _entry_points(program, name, k),
    ]
    return "".join(parts)


def _header(model: Any, program: Program) -> str:
    names = [str(n) for n in getattr(model, "feature_names_in_", ())]
    columns = [_plain(n) for n in names] or [f"x[{j}]" for j in range(program.n_features)]
    box = model.scaling_
    place = {int(j): i for i, j in enumerate(box["columns"])}
    lines = [
        f"/* Mean of a fitted {type(model).__name__}: {program.n_features} columns, "
        f"{program.n_outputs} outputs.",
        " * Box of the data:",
    ]
    for j, column in enumerate(columns):
        where = "constant, without influence"
        if j in place:
            low, width = float(box["offset"][place[j]]), float(box["width"][place[j]])
            where = f"{low!r} to {low + width!r}"
        lines.append(f" *   {column}: {where}")
    return "\n".join([*lines, " */\n"])


def _plain(text: str) -> str:
    """Name of a column as it can stand in a comment."""
    return re.sub(r"[^\w .,:()\[\]%-]", "_", text, flags=re.ASCII)


def _arrays(step: Step) -> str:
    """Definitions of a step's arrays."""
    return "".join(
        _array(f"{step.name}_{key}", value)
        for key, value in step.values.items()
        if isinstance(value, np.ndarray)
    )


def _array(name: str, value: np.ndarray) -> str:
    whole = value.dtype.kind in "iu"
    # C has no arrays without entries.
    entries = value.reshape(-1).tolist() or [0 if whole else 0.0]
    rows = [entries[i : i + NUMBERS_A_LINE] for i in range(0, len(entries), NUMBERS_A_LINE)]
    body = ",\n".join("    " + ", ".join(map(repr, row)) for row in rows)
    kind = "int" if whole else "double"
    return f"\nstatic const {kind} {name}[{len(entries)}] = {{\n{body}}};\n"


def _evaluation(program: Program, k: int) -> str:
    """Function that takes all steps; its last argument is k for derivatives, 0 without."""
    lines = ["\nstatic void evaluate(const double *x, double *out, int k)\n{\n"]
    last = program.steps[-1].name
    for step in program.steps:
        if step.name != last:
            lines.append(f"    double {step.name}[{max(step.size, 1) * (k + 1)}] = {{0.0}};\n")
    for step in program.steps:
        target = "out" if step.name == last else step.name
        lines += [f"    {call};\n" for call in _calls(program, step, target)]
    return "".join([*lines, "}\n"])


def _calls(program: Program, step: Step, target: str) -> Iterable[str]:
    """Calls that take one step."""
    values, size = step.values, step.size
    sizes = [program.size(name) for name in step.inputs]

    def arrays(*keys: str) -> str:
        return ", ".join(f"{step.name}_{key}" for key in keys)

    inputs = ", ".join(step.inputs)
    end = f"{inputs}, {target}, k)"
    match step.operation:
        case "scale":
            numbers = f"{values['factor']!r}, {values['shift']!r}"
            yield f"scale({size}, {arrays('columns', 'offset', 'width')}, {numbers}, {end}"
        case "affine" | "distances" as operation:
            keys = ("matrix", "bias") if operation == "affine" else ("centres", "rate")
            yield f"{operation}({size}, {sizes[0]}, {arrays(*keys)}, {end}"
        case "apply":
            yield f"apply({size}, apply_{values['function']}, {end}"
        case "legendre":
            yield f"legendre({sizes[0]}, {values['degree']}, {end}"
        case "products":
            yield f"products({size}, {arrays('parent', 'factor')}, {end}"
        case "softmax":
            yield f"softmax({size}, {arrays('group')}, {int(values['sharp'])}, {end}"
        case "multiply":
            yield f"multiply({size}, {arrays('left', 'right')}, {end}"
        case "sum":
            yield f"sum({sizes[0]}, {size}, {arrays('group')}, {end}"
        case "add":
            yield f"for (int i = 0; i < {size} * (k + 1); i++) {target}[i] = 0.0"
            for name in step.inputs:
                yield f"add({size}, {name}, {target}, k)"
        case "sparse_grid":
            numbers = f"{sizes[0]}, {len(values['first'])}, {size}"
            parts = arrays("kind", "shift", "vectors", "first", "coef")
            yield f"sparse_grid({numbers}, {parts}, {end}"


def _entry_points(program: Program, name: str, k: int) -> str:
    d, m = program.n_features, program.n_outputs
    copies = "".join(
        f"        gradient[i * {d} + {int(j)}] = jets[i * {k + 1} + {1 + place}];\n"
        for place, j in enumerate(program.columns)
    )
    return f"""
void {name}(const double *x, double *y)
{{
    evaluate(x, y, 0);
}}

void {name}_gradient(const double *x, double *gradient)
{{
    int i;
    double jets[{m * (k + 1)}];
    evaluate(x, jets, {k});
    for (i = 0; i < {m * d}; i++)
        gradient[i] = 0.0;
    for (i = 0; i < {m}; i++) {{
{copies}    }}
}}
"""


assert POINT == "x"  # the name of the argument of `evaluate`
