"""Plain and residual networks as bases."""

from skpou.networks.architecture import ACTIVATIONS, ARCHITECTURES, Network
from skpou.networks.basis import NetworkBasis, NetworkColumns
from skpou.networks.derivatives import Coordinates, NetworkDerivatives
from skpou.networks.initializations import INITIALIZATIONS, box, glorot

# fmt: off
__all__ = ["ACTIVATIONS", "ARCHITECTURES", "INITIALIZATIONS", "Coordinates", "Network",
           "NetworkBasis", "NetworkColumns", "NetworkDerivatives", "box", "glorot"]
# fmt: on
