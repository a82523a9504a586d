"""Random sine features and their spectra."""

from skpou.sines.features import BLOCK_ROWS, SineFeatures
from skpou.sines.spectrum import Spectrum
from skpou.sines.symmetric import Mirror, SymmetricFeatures

__all__ = ["BLOCK_ROWS", "Mirror", "SineFeatures", "Spectrum", "SymmetricFeatures"]
