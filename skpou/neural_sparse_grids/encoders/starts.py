"""First embeddings that use the whole grid: whitened, along the data's manifold, or scaled.

A random network maps all points near the middle of the box, where few functions of the grid are
not zero, and training leaves them there (Zhang 2021, section 3.5.2).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from skpou.core import Rows
from skpou.core.linalg import TINY, evenly, row_blocks
from skpou.neural_sparse_grids.encoders.encoder import LOGIT_SLOPE, Encoder, NetworkBody

STARTS = ("auto", "whiten", "isomap", "scale")
#: An encoder that is trained already is where training goes on from.
GIVEN = "given"
#: Most points between which geodesic distances are computed, a matrix of 18 MB, and their nearest
#: neighbours: few, since more of them cut through the bends of a manifold.
LANDMARKS, NEIGHBOURS = 1500, 8
#: Fewest points of a manifold that can be told from noise.
LEAST_LANDMARKS = 200
#: Share of the variance that d coordinates must explain along the manifold, and may in a plane.
MANIFOLD_SHARE, PLANE_SHARE = 0.93, 0.9
#: Landmarks whose distances are looked at first, in a tenth of the time, where there are at least
#: so many times more, and the share of their variance below which there is no manifold: that of
#: fewer points is, if anything, the larger (of sixteen sets by .01 to .15).
SCOUTS, TIMES_MORE, SCOUTED_SHARE = 200, 2, 0.9
#: Distance of an embedded manifold from the faces, so that the outermost points keep a slope.
FACE = 0.05
#: Least standard deviation of a column in the unit box that first-order steps divide by: a third of
#: that of even points. Outliers that make a column narrow would else be driven far out.
LEAST_WIDTH = 0.1
#: Iterations that teach an encoder a given embedding, and the memory of L-BFGS. Training goes on
#: from there, so that a rough likeness is enough.
TEACHING_STEPS, TEACHING_HISTORY = 300, 30
#: Weight of squared parameters beside the mean square: it only bounds those that do not matter.
TEACHING_RIDGE = 1e-7
#: Change of loss or weights that ends it: round-off of a loss of about one.
TEACHING_CHANGE = 1e-12
#: Variance along a direction, relative to the largest, up to which the latent coordinates are flat.
FLAT = 1e-12
#: Rows at a time that moments are measured on: as many as a step of training has by default.
MEASURED_ROWS = 256


@torch.no_grad()
def whiten(encoder: Encoder, rows: Rows) -> None:
    """Give the latent coordinates zero mean and unit covariance, by the output layer."""
    body = encoder.network_body
    z = body(rows.X)
    share = (rows.weight / rows.weight.sum())[:, None]
    mean = (share * z).sum(0)
    centred = z - mean
    values, vectors = torch.linalg.eigh(centred.T @ (share * centred))
    varies = values > FLAT * values.max().clamp_min(TINY)
    inverse = torch.where(varies, values.clamp_min(TINY).rsqrt(), 1.0)
    body.move_output(mean, (vectors * inverse) @ vectors.T)


@torch.no_grad()
def scale_coordinates(encoder: Encoder, rows: Rows) -> None:
    """Set the scaling of each latent coordinate to its moments.

    As in training: layers such as batch normalisation act otherwise there.
    """
    encoder.train()
    blocks = row_blocks(rows.n_rows, MEASURED_ROWS)
    if len(blocks) > 1 and blocks[-1].stop - blocks[-1].start == 1:
        blocks = blocks[:-1]  # Batch normalisation refuses one row.
    z = torch.cat([encoder.raw(rows.X[block]) for block in blocks])
    encoder.eval()
    encoder.scaling.measure(z, rows.weight[: len(z)])


def manifold(
    X: Tensor, n_components: int, rng: np.random.Generator, force: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Coordinates along a manifold: Isomap (Tenenbaum, de Silva, Langford 2000).

    Parameters
    ----------
    X : Tensor of shape (n, k)
        Points.
    force : bool, default=False
        Take any manifold; otherwise one that explains the distances along it, and only where no
        plane does.

    Returns
    -------
    landmarks : ndarray of shape (l,)
        Numbers of points.
    coordinates : ndarray of shape (l, n_components)
        In the unit box; None instead of both where there is no such manifold.
    """
    points = X.detach().cpu().numpy().astype(np.float64)
    n, k = points.shape
    if not force and (n < LEAST_LANDMARKS or k <= n_components):
        return None
    spread = points.std(0)
    points = points / np.where(spread > 0, spread, 1.0)
    landmarks = np.sort(rng.permutation(n)[:LANDMARKS])
    points = points[landmarks]
    if not force:
        variances = np.linalg.eigvalsh(np.cov(points.T))[::-1]
        if variances[:n_components].sum() > PLANE_SHARE * variances.sum():
            return None
    graph = _neighbours(points)
    if graph is None:
        return None
    if not force and len(points) >= TIMES_MORE * SCOUTS:
        some = np.arange(len(points))[evenly(len(points), SCOUTS)]
        apart = dijkstra(graph, directed=False, indices=some)[:, some]
        if _explained(np.linalg.eigvalsh(_centred(apart))[::-1], n_components) < SCOUTED_SHARE:
            return None
    values, vectors = np.linalg.eigh(_centred(dijkstra(graph, directed=False)))
    values, vectors = values[::-1], vectors[:, ::-1]
    if len(values) < n_components or not values[n_components - 1] > 0:
        return None
    if not force and _explained(values, n_components) < MANIFOLD_SHARE:
        return None
    vectors = vectors[:, :n_components]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(n_components)]
    vectors = vectors * np.sign(largest)  # Eigenvectors have no sign of their own.
    low, high = vectors.min(0), vectors.max(0)
    return landmarks, FACE + (1 - 2 * FACE) * (vectors - low) / (high - low)


def _centred(distances: np.ndarray) -> np.ndarray:
    """Inner products (l, l) of classical scaling: doubly centred squares of distances."""
    gram = -0.5 * distances**2
    gram -= gram.mean(0)
    gram -= gram.mean(1, keepdims=True)
    return gram


def _explained(values: np.ndarray, n_components: int) -> float:
    """Share of the first of some eigenvalues, which fall, in the positive ones."""
    return float(values[:n_components].sum() / values[values > 0].sum())


def _neighbours(points: np.ndarray) -> csr_array | None:
    """Distances between neighbours, as a graph; None where some points are apart from others."""
    n = len(points)
    count = min(NEIGHBOURS, n - 1)
    if count < 1:
        return None
    distances, neighbours = cKDTree(points).query(points, count + 1)
    # SciPy before 1.12 takes 32-bit indices alone.
    starts = np.arange(0, n * count + 1, count, dtype=np.int32)
    edges = (distances[:, 1:].ravel(), neighbours[:, 1:].ravel().astype(np.int32), starts)
    graph = csr_array(edges, shape=(n, n))
    if connected_components(graph, directed=False)[0] > 1:
        return None
    return graph


def teach(encoder: Encoder, X: Tensor, embedding: Tensor) -> None:
    """Fit the encoder to a given embedding (l, d) of points X (l, k), by L-BFGS."""
    body = encoder.network_body
    # The logistic function's inverse: squares of latent coordinates have no flat tails.
    target = torch.logit(embedding) / LOGIT_SLOPE
    theta = body.theta.detach().clone().requires_grad_()
    inputs = body.standardised(X)
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=TEACHING_STEPS,
        history_size=TEACHING_HISTORY,
        tolerance_grad=0,
        tolerance_change=TEACHING_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        hidden, output = body.parts(theta)
        z = body.network.forward(hidden, inputs) @ output.T
        value = (z - target).square().mean() + TEACHING_RIDGE * theta.square().mean()
        (theta.grad,) = torch.autograd.grad(value, theta)
        return value.detach()

    with torch.enable_grad():
        optimiser.step(loss)
    with torch.no_grad():
        if bool(torch.isfinite(theta).all()):
            body.theta.copy_(theta)


def start_encoder(encoder: Encoder, rows: Rows, start: str, rng: np.random.Generator) -> str:
    """Draw the encoder's parameters and scale its output; returns the start that was taken.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    start : {"auto", "whiten", "isomap", "scale", "given"}
        ``"auto"`` takes Isomap's coordinates where the points lie on a manifold, and whitens
        otherwise; ``"given"`` leaves the encoder as it is.
    rng : numpy.random.Generator
        Source of the parameters and of the landmarks.
    """
    if start == GIVEN:
        return start
    if isinstance(encoder.body, NetworkBody):
        least = LEAST_WIDTH if start == "scale" else 0.0
        encoder.body.start(rows.X, rows.weight, rng, least)
    if start == "scale" or not isinstance(encoder.body, NetworkBody):
        scale_coordinates(encoder, rows)
        return "scale"
    whiten(encoder, rows)
    if start == "whiten":
        return start
    found = manifold(rows.X, encoder.form.n_components, rng, force=start == "isomap")
    if found is None:
        return "whiten"
    landmarks = torch.as_tensor(found[0], device=rows.X.device)
    teach(encoder, rows.X[landmarks], torch.as_tensor(found[1], device="cpu").to(rows.X))
    return "isomap"
