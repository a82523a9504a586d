"""What every basis offers to solvers and training loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

#: Bases by the name under which their state is kept; each has `arrays` and `from_arrays`.
BASES: dict[str, type[Basis]] = {}


class Basis(ABC):
    """A family of functions ``phi_1 .. phi_p`` on the unit box.

    A new basis writes `matrix` and `partial`; tests inherit ``BasisContract``. One that can be a
    part of a fitted model also writes `arrays` and `from_arrays`, and names its state:
    ``class SineFeatures(Basis, kind="sine")``.

    Attributes
    ----------
    n_features : int
        Dimension d of the points.
    n_columns : int
        Number p of functions.
    n_running : int
        How many of the first functions run away outside the box, faster than a straight line.
    kind : str
        Name of the state in `BASES`; empty where none is kept.
    follows_rows : bool
        Whether there is a function for each row, whose `posterior_columns` are no columns.
    """

    n_features: int
    n_columns: int
    n_running: int = 0
    kind: ClassVar[str] = ""
    follows_rows: ClassVar[bool] = False

    def __init_subclass__(cls, kind: str = "", **options: Any):
        super().__init_subclass__(**options)
        if kind:
            cls.kind = kind
            BASES[kind] = cls

    @abstractmethod
    def matrix(self, X: Tensor) -> Tensor:
        """Evaluate every function at every point.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points in the unit box (or outside it, where the functions extrapolate).

        Returns
        -------
        Tensor of shape (n, p)
        """

    @abstractmethod
    def partial(self, X: Tensor, feature: int) -> Tensor:
        """Evaluate the functions' derivatives along one coordinate.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        feature : int
            Index of the coordinate, 0 <= feature < d.

        Returns
        -------
        Tensor of shape (n, p)
        """

    def arrays(self) -> dict[str, Any]:
        """State as plain values and numpy arrays, of a basis that has a `kind`."""
        raise NotImplementedError(f"{type(self).__name__} keeps no state.")

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], like: Tensor) -> Basis:
        """Rebuild from `arrays`, on the device of `like`."""
        raise NotImplementedError(f"{cls.__name__} keeps no state.")

    def evaluate(self, X: Tensor, coef: Tensor) -> Tensor:
        """Values (n, m) of the functions with coefficients (p, m).

        A basis of which few columns differ from zero at a point need not form `matrix`.
        """
        return self.matrix(X) @ coef.to(X)

    def evaluate_gradient(self, X: Tensor, coef: Tensor) -> Tensor:
        """Gradient (n, d, m) of the functions with coefficients (p, m).

        A basis whose derivatives share work does it once.
        """
        gradient = X.new_empty((*X.shape, coef.shape[1]))
        for feature in range(X.shape[1]):
            gradient[:, feature] = self.partial(X, feature) @ coef.to(X)
        return gradient

    def derivative(self, X: Tensor, coordinates: tuple[int, ...]) -> Tensor:
        """Evaluate the functions' derivatives along several coordinates, one after the other.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Points.
        coordinates : tuple of int
            ``(0, 0, 1)`` is the third derivative, twice along coordinate 0 and once along 1;
            ``()`` the functions themselves.

        Returns
        -------
        Tensor of shape (n, p)

        Raises
        ------
        NotImplementedError
            For second and higher derivatives, where a basis has not got them.
        """
        if len(coordinates) > 1:
            raise NotImplementedError(
                f"{type(self).__name__} has no derivatives of order {len(coordinates)}."
            )
        return self.partial(X, coordinates[0]) if coordinates else self.matrix(X)

    def derivatives(self, X: Tensor, orders: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Several of `derivative` at the same points, which may share work."""
        return [self.derivative(X, coordinates) for coordinates in orders]

    def precise(self) -> Basis:
        """The same functions with less round-off, where a basis knows how, for more time."""
        return self

    def posterior_columns(self, X: Tensor) -> Tensor:
        """Columns (n, q) whose coefficients the data determine: here those of `matrix`.

        A basis with fitted parameters may add the derivatives with respect to these, and have
        columns of their own for each of m outputs, (m, n, q).
        """
        return self.matrix(X)

    def unresolved(self, X: Tensor, coef: Tensor) -> Tensor:
        """Variance (n, m) of the values that no coefficient knows: here none.

        A basis with fitted parameters may add that of those which no row told.
        """
        return X.new_zeros((len(X), coef.shape[1]))

    def weights_of_rows(
        self, weight: Tensor, residual: Tensor, coef: Tensor
    ) -> tuple[Tensor, float, int] | None:
        """What makes the weights of the rows that a function for each has; None: no such basis.

        Parameters
        ----------
        weight : Tensor of shape (n,)
            Of the rows, all of which have a function.
        residual : Tensor of shape (n, m)
            What the fit leaves over there.
        coef : Tensor of shape (p, m)

        Returns
        -------
        precision : Tensor of shape (n, n)
            The weights of the rows are its products with the targets.
        penalty : float
            That of the fit.
        n_free : int
            Number of functions that cost nothing.
        """
        return None

    def evaluate_beside(self, X: Tensor, coef: Tensor) -> tuple[Tensor, Tensor]:
        """What `evaluate` and `posterior_columns` return, of one matrix where both need it."""
        own = type(self)
        if own.posterior_columns is not Basis.posterior_columns or not self._is_whole(len(X)):
            return self.evaluate(X, coef), self.posterior_columns(X)
        columns = self.matrix(X)
        return columns @ coef.to(X), columns

    def _is_whole(self, n_rows: int) -> bool:
        """Whether `evaluate` of so many points is one product of `matrix` and the coefficients."""
        return type(self).evaluate is Basis.evaluate


class ParametricBasis(ABC):
    """Columns that depend on parameters theta, at fixed points: what variable projection moves.

    Attributes
    ----------
    n_columns : int
        Number p of columns.
    n_parameters : int
        Number of entries of theta, a flat vector.
    """

    n_columns: int
    n_parameters: int

    @abstractmethod
    def matrix(self, theta: Tensor) -> Tensor:
        """Columns at the fixed points.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)

        Returns
        -------
        Tensor of shape (n, p)
        """

    @abstractmethod
    def jacobian(self, theta: Tensor, coef: Tensor) -> Tensor:
        """Derivative of ``matrix(theta) @ coef`` with respect to theta.

        Parameters
        ----------
        theta : Tensor of shape (n_parameters,)
        coef : Tensor of shape (p, m)

        Returns
        -------
        Tensor of shape (n, m, n_parameters)
        """
