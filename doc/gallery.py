"""What sphinx-gallery calls: the order of the examples, and the look of their figures."""

from pathlib import Path

#: Curves and surfaces, pieces, tables, classes, equations, and models outside Python.
ORDER = (
    *("diode", "error_bars", "sensor", "steep_front", "stages", "transistor"),
    *("curved_ridge", "phase_change", "steam_table"),
    *("spectra", "table", "categories", "which_one", "grid_search", "large_table"),
    *("sparse_grids", "swiss_roll", "digits"),
    *("logistic_growth", "advection", "helmholtz", "burgers"),
    *("viscous_burgers", "unknown_viscosity", "singular_corner"),
    *("read_json", "spice"),
)


def order(filename):
    """Examples that the list does not name come last, by their names."""
    stem = Path(filename).stem
    return (ORDER.index(stem) if stem in ORDER else len(ORDER), stem)


def plain_figures(gallery_conf, name):
    """Begin every example with the same few settings, and without figures of the one before."""
    import matplotlib
    import matplotlib.pyplot as plt

    plt.close("all")
    matplotlib.rcdefaults()
    plt.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 110,
        }
    )
