"""What may be asked of training in stages."""

from __future__ import annotations

from dataclasses import dataclass

from skpou.networks import Network

#: Most stages of "auto": each gains several of the sixteen digits that there are.
MOST_STAGES = 4
#: Residual, and ridge, at which a network hands over to further stages: descended to its floor, its
#: coefficients would be large, and their round-off is what no stage can remove.
HAND_OVER, HAND_OVER_RIDGE = 1e-9, 1e-7


@dataclass(frozen=True)
class MultiStageOptions:
    """What the stages are; the meaning is that of MultiStageRegressor's parameters.

    Attributes
    ----------
    network : Network or None
        Hidden layers of every stage; None: bases chosen automatically.
    solver : {"varpro", "adam_lbfgs"}
    n_stages : int or None
        Most stages; None: as many as are worth it.
    scale_factor : float or None
        Factor inside of the first activation from the second stage on; None: by the dominant
        frequency.
    tol : float
        Residual relative to the rms of y that counts as none.
    """

    network: Network | None = None
    solver: str = "varpro"
    n_stages: int | None = None
    scale_factor: float | None = None
    max_iter: int = 1000
    tol: float = 1e-14

    @property
    def given_network(self) -> Network:
        """The network of every stage.

        Raises
        ------
        ValueError
            If bases are to be chosen in its place.
        """
        if self.network is None:
            raise ValueError("Bases that are chosen automatically have no network.")
        return self.network

    @property
    def most(self) -> int:
        """Most stages."""
        return MOST_STAGES if self.n_stages is None else self.n_stages
