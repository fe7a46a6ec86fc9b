"""Random constants of the feature maps of linear ⵟ-attention.

They approximate the spherical ⵟ-product, a function of the inner product t of two unit vectors:

    κ(t) = (t + b)² / (C − 2t),    C = 2 + ε

The keys of the results are those of upstream's functions. `create_maclaurin_projection` and
`create_radial_projection` also draw the same numbers for the same seed, up to the last bit of
radial frequencies.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nmn_export.errors import OptionError

Projection = dict[str, Any]
"""Constants of a feature map by name: tensors and numbers."""

Device = torch.device | str | None


def maclaurin_coeffs(bias: float, epsilon: float, nmax: int) -> npt.NDArray[np.float64]:
    """Return the coefficients of the power series of κ up to degree `nmax`."""
    c = 2.0 + epsilon
    geometric = (2.0 / c) ** np.arange(nmax + 1, dtype=np.float64) / c
    series = bias**2 * geometric
    series[1:] += 2 * bias * geometric[:-1]
    series[2:] += geometric[:-2]
    return series


def create_maclaurin_projection(
    head_dim: int,
    num_features: int = 256,
    bias: float = 1.0,
    epsilon: float = 1e-5,
    nmax: int = 40,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Projection:
    """Draw the constants of `MaclaurinFeatures`.

    Args:
        head_dim: D, the size of a head.
        num_features: M, the number of features.
        bias: b ≥ 0.
        epsilon: ε > 0.
        nmax: The largest degree of the series.
        seed: Of the random numbers; `None` draws different ones in every call.
        dtype: Of the result.
        device: Of the result.

    Returns:
        `omegas` [M, nmax + 1, D] of −1 and 1, `degrees` [M] int64, and `Z`, the sum of the series.

    Raises:
        OptionError: An option has a value that it cannot have.
    """
    _check_kernel(bias, epsilon)
    _check_counts(head_dim=head_dim, num_features=num_features, nmax=nmax)
    series = maclaurin_coeffs(bias, epsilon, nmax)
    total = float(series.sum())
    random = np.random.default_rng(seed)
    degrees = random.choice(nmax + 1, size=num_features, p=series / total)
    omegas = random.choice([-1.0, 1.0], size=(num_features, nmax + 1, head_dim))
    return {
        "omegas": torch.as_tensor(omegas, dtype=dtype, device=device),
        "degrees": torch.as_tensor(degrees, dtype=torch.int64, device=device),
        "Z": total,
    }


def create_radial_projection(
    head_dim: int,
    sketch_m: int = 128,
    num_radial: int = 8,
    radial_dim: int = 64,
    bias: float = 1.0,
    epsilon: float = 1e-5,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Projection:
    """Draw the constants of `RadialFeatures`, which has `sketch_m · num_radial · radial_dim` ones.

    Args:
        head_dim: D, the size of a head.
        sketch_m: S, features of the numerator of κ.
        num_radial: J, nodes of the quadrature of its denominator.
        radial_dim: R, features per node.
        bias: b ≥ 0.
        epsilon: ε > 0.
        seed: Of the random numbers; `None` draws different ones in every call.
        dtype: Of the result.
        device: Of the result.

    Returns:
        `W1` and `W2` [S, D + 1], `omegas` [J, R, D + 1], `phases` [J, R], `coef` [J] and `b`.

    Raises:
        OptionError: An option has a value that it cannot have.
    """
    _check_kernel(bias, epsilon)
    _check_counts(
        head_dim=head_dim, sketch_m=sketch_m, num_radial=num_radial, radial_dim=radial_dim
    )
    random = np.random.default_rng(seed)
    first, second = (random.standard_normal((sketch_m, head_dim + 1)) for _ in range(2))
    nodes, weights = np.polynomial.laguerre.laggauss(num_radial)
    omegas, phases = [], []
    for node in nodes:
        normal = random.standard_normal((radial_dim, head_dim + 1))
        omegas.append(normal * math.sqrt(2 * node / epsilon))
        phases.append(random.uniform(0, 2 * np.pi, radial_dim))
    arrays = {
        "W1": first,
        "W2": second,
        "omegas": np.stack(omegas),
        "phases": np.stack(phases),
        "coef": weights / epsilon,
    }
    tensors = {n: torch.as_tensor(a, dtype=dtype, device=device) for n, a in arrays.items()}
    return {**tensors, "b": bias}


def create_slay_projection(
    head_dim: int,
    num_anchor_features: int = 16,
    num_prf_features: int = 8,
    num_quad_nodes: int = 1,
    epsilon: float = 1e-5,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Projection:
    """Draw the constants of `SlayFeatures`, for κ with b = 0.

    Upstream has these features in JAX only, whose random numbers are others for the same seed.

    Args:
        head_dim: D, the size of a head.
        num_anchor_features: P, features of the numerator of κ.
        num_prf_features: M, features per node of its denominator.
        num_quad_nodes: R, nodes of the quadrature of its denominator.
        epsilon: ε > 0.
        seed: Of the random numbers; `None` draws different ones in every call.
        dtype: Of the result.
        device: Of the result.

    Returns:
        `anchors` [P, D], `projections` [R, M, D], `quad_nodes` [R] and `quad_weights` [R].

    Raises:
        OptionError: An option has a value that it cannot have.
    """
    _check_kernel(0.0, epsilon)
    _check_counts(
        head_dim=head_dim,
        num_anchor_features=num_anchor_features,
        num_prf_features=num_prf_features,
        num_quad_nodes=num_quad_nodes,
    )
    random = np.random.default_rng(seed)
    anchors = random.standard_normal((num_anchor_features, head_dim))
    nodes, weights = np.polynomial.laguerre.laggauss(num_quad_nodes)
    arrays = {
        "anchors": anchors / np.sqrt(np.square(anchors).sum(-1, keepdims=True) + 1e-8),
        "projections": random.standard_normal((num_quad_nodes, num_prf_features, head_dim)),
        "quad_nodes": nodes / (2.0 + epsilon),
        "quad_weights": weights / (2.0 + epsilon),
    }
    return {n: torch.as_tensor(a, dtype=dtype, device=device) for n, a in arrays.items()}


def _check_kernel(bias: float, epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise OptionError("epsilon must be positive and finite", got=epsilon, fix="Use 1e-5, say.")
    if not (math.isfinite(bias) and bias >= 0):
        raise OptionError("bias must be finite and at least 0", got=bias, fix="Use 1, say.")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise OptionError(f"{name} must be at least 1", got=count, fix="Use a larger number.")
