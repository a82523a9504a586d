"""
Devices in a circuit simulator
==============================

The currents of a diode and of a transistor are measured on ngspice's own devices by sweeps of the
voltages, fitted, and written as subcircuits. The diode then rectifies, the transistor amplifies,
and the waveforms are compared with those of the devices themselves. ngspice is a package of Linux
distributions; where it is installed, ``python spice.py --output spice.png`` draws this figure.

.. figure:: ../_static/spice.png
   :width: 100%
   :alt: Waveforms of a rectifier and an amplifier with two kinds of devices, and their differences

   Waveforms with the simulator's own devices and with the fitted ones, which lie on each other, and
   their difference.
"""

# sphinx_gallery_thumbnail_path = '_static/spice.png'
import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from skpou import LSGDRegressor, POURegressor
from skpou.export import to_spice

MODELS = """
.model diode D(IS=1e-14 RS=0.5)
.model transistor NPN(IS=1e-15 BF=100 VAF=80)
"""
SWEEPS = {
    "diode": ("Va a 0 0\nD1 a 0 diode", "dc Va -0.2 0.8 0.005", ("v(a)",), ("i(va)",)),
    "transistor": (
        "Vb b 0 0\nVc c 0 0\nQ1 c b 0 transistor",
        "dc Vb 0.5 0.72 0.01 Vc 0 10 0.4",
        ("v(b)", "v(c)"),
        ("i(vc)", "i(vb)"),
    ),
}
DEVICES = {
    "diode": ("D1 in out diode", "X1 in in out fitted"),
    "transistor": ("Q1 c b e transistor", "X1 b c c b e fitted"),
}
CIRCUITS = {
    # A sine of 5 V charges a capacitor through the diode.
    "diode": """
Vin source 0 SIN(0 5 1k)
Rin source in 10
Cload out 0 1u
Rload out 0 1k
""",
    # A common emitter, without and with a capacitor across parts of its resistor.
    "transistor": """
Vcc supply 0 10
Vin source 0 SIN(0 20m 1k)
Cin source b 1u
R1 supply b 47k
R2 b 0 10k
Rc supply c 9.1k
Re1 e f 100
Re2 f 0 2k
Ce f 0 100u
""",
}
OUTPUT = {"diode": "v(out)", "transistor": "v(c)"}
#: Small steps and tight tolerances: what is left is the difference of the devices. With steps of
#: two microseconds the turns of the diode alone differ by 2e-4 of the amplitude.
OPTIONS = ".options reltol=1e-6 abstol=1e-14 vntol=1e-9"
TRANSIENT = "tran 1u 4m 0 1u"
STYLE = {"simulator's own": ("0.65", 4.0, "solid"), "fitted": ("black", 1.2, (0, (4, 2)))}


def simulate(netlist, command):
    """Vectors of one analysis of ngspice, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.cir"
        control = [".control", "set filetype=ascii", command, "write circuit.raw", ".endc", ".end"]
        path.write_text("\n".join(["circuit", OPTIONS, MODELS, netlist, *control]))
        done = subprocess.run(["ngspice", "-b", path], cwd=folder, capture_output=True, text=True)
        raw = Path(folder) / "circuit.raw"
        if not raw.exists():
            raise RuntimeError(done.stdout + done.stderr)
        head, values = raw.read_text().split("Values:")
    names = [line.split()[1] for line in head.split("\nVariables:")[1].strip().splitlines()]
    numbers = np.array(values.split(), dtype=float).reshape(-1, len(names) + 1)
    return dict(zip(names, numbers[:, 1:].T))


def measure(device):
    """Voltages (n, d), and currents (n, m) into the pins, of one of the simulator's devices."""
    netlist, command, voltages, currents = SWEEPS[device]
    found = simulate(netlist, command)
    # A source's current is what flows into it.
    return (
        np.stack([found[name] for name in voltages], 1),
        -np.stack([found[name] for name in currents], 1),
    )


def fit(device):
    """Currents by voltages: pieces for the diode; for two columns a network, in fewer terms."""
    X, y = measure(device)
    return (
        POURegressor(5, 5, gate="quadratic") if device == "diode" else LSGDRegressor((24,))
    ).fit(X, y)


def compare(device, model):
    """Times, and the waveforms with the simulator's own device and with the fitted one."""
    own, fitted = DEVICES[device]
    waves = {}
    for name, lines in (
        ("simulator's own", own),
        ("fitted", f"{fitted}\n{to_spice(model, name='fitted')}"),
    ):
        found = simulate(CIRCUITS[device] + lines, TRANSIENT)
        waves[name] = found["time"], found[OUTPUT[device]]
    time = np.linspace(0, 4e-3, 2001)
    return time, {name: np.interp(time, *wave) for name, wave in waves.items()}


def difference(waves):
    """Difference of the waveforms over the amplitude of the simulator's own."""
    own = waves["simulator's own"]
    return (waves["fitted"] - own) / (np.ptp(own) / 2)


def draw(results, path):
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"})
    plt.rcParams.update({"axes.spines.right": False, "axes.spines.top": False})
    figure, axes = plt.subplots(
        2, 2, figsize=(10, 5), sharex=True, layout="constrained", height_ratios=(2, 1)
    )
    titles = {"diode": "Rectifier: voltage behind the diode", "transistor": "Amplifier: collector"}
    for (device, (time, waves)), (top, bottom) in zip(results.items(), axes.T):
        for name, wave in waves.items():
            color, width, dashes = STYLE[name]
            label = f"{name} {device}"
            top.plot(1e3 * time, wave, color=color, lw=width, ls=dashes, label=label)
        top.set(title=titles[device], ylabel="V")
        top.legend(loc="upper right", bbox_to_anchor=(1, 1.24), frameon=False, ncols=2)
        error = np.maximum(np.abs(difference(waves)), 1e-12)
        bottom.semilogy(1e3 * time, error, color="black", lw=0.9)
        bottom.axhline(1e-4, color="#D55E00", lw=1)
        bottom.set(xlabel="time (ms)", ylabel="share", ylim=(1e-9, 1e-3), xlim=(0, 4))
        bottom.set_title("Difference over the amplitude; the line is 1e-4")
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="spice.png", help="file of the figure")
    path = parser.parse_args().output
    if shutil.which("ngspice") is None:
        raise SystemExit("This example needs ngspice, a package of Linux distributions.")
    results = {}
    for device in SWEEPS:
        model = fit(device)
        results[device] = compare(device, model)
        largest = np.abs(difference(results[device][1])).max()
        print(f"{device}: waveforms differ by {largest:.1e} of the amplitude")
    draw(results, path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
