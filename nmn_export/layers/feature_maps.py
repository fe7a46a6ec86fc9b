"""Feature maps of linear ⵟ-attention: inner products of features approximate the ⵟ-product.

The constants of a map are buffers, so they are in the state dict and in an exported file. Inputs in
half precision are computed in float32. The order of the features has no meaning, but queries and
keys must have the same.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor

from nmn_export.errors import NmnExportError
from nmn_export.layers.constants import Float32Constants
from nmn_export.layers.folded import Foldable, Folded
from nmn_export.ops.linear_attention import as_vector
from nmn_export.ops.yat import Scalar, compute_dtype

UNIT_GUARD = 1e-6
"""Added to a squared norm before vectors are divided by its root, but by `SlayFeatures`."""

_Map = TypeVar("_Map", bound="FeatureMap")


class FeatureMap(Foldable, Folded, Float32Constants):
    """Maps vectors [..., D] to features [..., M]. Folded, it is the same map with other buffers.

    Args:
        tensors: The constants of the map, by name.
        num_features: M.
        normalize: Whether vectors are divided by their norms first.
        epsilon: Added to squared norms.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], num_features: int, normalize: bool, epsilon: Scalar
    ) -> None:
        super().__init__()
        self.num_features, self.normalize, self.epsilon = num_features, normalize, epsilon
        self.dtype, self._folded = None, False
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor, epsilon: Scalar | None = None) -> Tensor:
        """Map [..., D] to [..., M], in float32 if `x` is in half precision, else in its dtype.

        Args:
            x: Vectors.
            epsilon: In place of the map's own, if that is learned elsewhere.
        """
        x = x.to(compute_dtype(x.dtype))
        constants = dict(self.named_buffers()) if self._folded else self._constants()
        constants = {name: tensor.to(x.dtype) for name, tensor in constants.items()}
        epsilon = as_vector(self.epsilon if epsilon is None else epsilon, x)
        return self._features(x, epsilon, constants)

    def fold(self: _Map) -> _Map:
        """Return the map with what `_constants` returns as its buffers."""
        folded = copy.copy(self)
        if not self._folded:
            dtype = next(t.dtype for t in self.buffers() if t.is_floating_point())
            constants = self._constants().items()
            folded._buffers = {n: t.detach().to(dtype).contiguous() for n, t in constants}
            folded._folded = True
        return folded

    def _constants(self) -> dict[str, Tensor]:
        """Return what `_features` needs and that depends on buffers only, computed in float64."""
        raise NotImplementedError

    def _features(self, x: Tensor, epsilon: Tensor, constants: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError


class SlayFeatures(FeatureMap):
    """The spherical performer: positive features of κ with b = 0.

    φ_pmr = √w_r · ⟨a_p, x̂⟩² / √P · exp(√(2 s_r) ⟨ω_rm, x̂⟩ − s_r) / √M + ε

    The exponent is clipped to ±20, and x̂ = x / √(‖x‖² + ε).

    Args:
        projection: `anchors` a [P, D], `projections` ω [R, M, D], `quad_nodes` s [R] and
            `quad_weights` w [R], from `create_slay_projection`.
        normalize: Divide vectors by √(‖x‖² + ε) once more, before.
        epsilon: ε > 0.
    """

    anchors: Tensor
    projections: Tensor
    quad_nodes: Tensor
    quad_weights: Tensor

    def __init__(
        self, projection: Mapping[str, Any], *, normalize: bool = True, epsilon: float = 1e-5
    ) -> None:
        names = ("anchors", "projections", "quad_nodes", "quad_weights")
        count = len(projection["anchors"]) * projection["projections"].shape[:2].numel()
        super().__init__({n: projection[n] for n in names}, count, normalize, epsilon)

    def _constants(self) -> dict[str, Tensor]:
        nodes, weights = self.quad_nodes.double(), self.quad_weights.double().clamp_min(0)
        per_node = self.projections.shape[1]
        scaled = (2 * nodes.clamp_min(0)).sqrt()[:, None, None] * self.projections
        return {
            "anchors": self.anchors,
            # The node varies fastest, as in upstream's order of features.
            "directions": scaled.transpose(0, 1).flatten(0, 1),
            "shifts": -nodes.repeat(per_node),
            "scales": (weights / (len(self.anchors) * per_node)).sqrt().repeat(per_node),
        }

    def _features(self, x: Tensor, epsilon: Tensor, constants: dict[str, Tensor]) -> Tensor:
        square = x.square().sum(-1, keepdim=True)
        # To divide by √(square + ε) twice is to divide by √(square + ε (square + ε)) once.
        x = x / (square + (epsilon * (square + epsilon) if self.normalize else epsilon)).sqrt()
        squares = F.linear(x, constants["anchors"]).square()
        exponents = F.linear(x, constants["directions"], constants["shifts"]).clamp(-20, 20)
        return _outer(squares, exponents.exp() * constants["scales"]) + epsilon


class MaclaurinFeatures(FeatureMap):
    """MAY: products of random signs, one for each term that is drawn from the power series of κ.

    φ_r = √(Z / M) ∏ ⟨ω_rl, x̂⟩ over l < degree_r

    Here x̂ = x / √(‖x‖² + ε). Features come in the order of falling degrees. They have both signs,
    so the denominator of attention may be close to zero.

    Args:
        projection: `omegas` ω [M, rows, D], `degrees` [M] and `Z`, from
            `create_maclaurin_projection` or from upstream's function of that name.
        normalize: Divide vectors by their norms first.
        epsilon: Added to the squared norms.

    Raises:
        NmnExportError: A degree is larger than the number of rows.
    """

    omegas: Tensor
    degrees: Tensor

    def __init__(
        self,
        projection: Mapping[str, Any],
        *,
        normalize: bool = True,
        epsilon: float = UNIT_GUARD,
    ) -> None:
        omegas, degrees = projection["omegas"], projection["degrees"]
        if degrees.max() > omegas.shape[1]:
            raise NmnExportError(
                "A Maclaurin feature needs as many rows as its degree",
                got=f"degree {int(degrees.max())} and {omegas.shape[1]} rows",
                fix="Draw the projection again.",
            )
        tensors = {"omegas": omegas, "degrees": degrees}
        super().__init__(tensors, len(omegas), normalize, epsilon)
        self.scale = math.sqrt(float(projection["Z"]) / len(omegas))

    def order(self) -> Tensor:
        """Return the indices [M] that sort the projection by falling degree."""
        return self.degrees.argsort(descending=True, stable=True)

    def _constants(self) -> dict[str, Tensor]:
        """Return row l of all features of a degree above l, for every l. The others have no use."""
        order = self.order()
        counts = [int((self.degrees > row).sum()) for row in range(int(self.degrees.max()))]
        return {f"row{row}": self.omegas[order[:n], row] for row, n in enumerate(counts)}

    def _features(self, x: Tensor, epsilon: Tensor, constants: dict[str, Tensor]) -> Tensor:
        x = _unit(x, epsilon) if self.normalize else x
        product = x[..., :0]
        for row in reversed(constants.values()):
            product = F.linear(x, row) * self._extended(product, len(row))
        return self._extended(product, self.num_features)

    def _extended(self, product: Tensor, count: int) -> Tensor:
        """Return `count` features; the product of those that had no factor yet is 1."""
        return F.pad(product, (0, count - product.shape[-1]), value=self.scale)


class RadialFeatures(FeatureMap):
    """RAY: features of the numerator of κ times features of its denominator.

    φ = ψ ⊗ ρ
    ψ_s = ⟨W1_s, z⟩ ⟨W2_s, z⟩ / √S
    ρ_jr = √(2 coef_j / R) cos(⟨ω_jr, z⟩ + phase_jr)

    Here z = [x / √(‖x‖² + ε), √b]. The features have both signs. The frequencies ω were drawn for
    a kernel: with ε = 1e-5 in it they reach thousands, and the cosines of two runtimes differ in
    the fourth digit.

    Args:
        projection: `W1` and `W2` [S, D + 1], `omegas` ω [J, R, D + 1], `phases` [J, R], `coef` [J]
            and `b`, from `create_radial_projection` or from upstream's function of that name.
        normalize: Divide vectors by their norms first.
        epsilon: Added to the squared norms.
    """

    W1: Tensor
    W2: Tensor
    omegas: Tensor
    phases: Tensor
    coef: Tensor

    def __init__(
        self,
        projection: Mapping[str, Any],
        *,
        normalize: bool = True,
        epsilon: float = UNIT_GUARD,
    ) -> None:
        tensors = {n: projection[n] for n in ("W1", "W2", "omegas", "phases", "coef")}
        count = len(projection["W1"]) * projection["phases"].numel()
        super().__init__(tensors, count, normalize, epsilon)
        self.bias = float(projection["b"])

    def _constants(self) -> dict[str, Tensor]:
        """Return weights and biases: the last feature of z is a constant."""
        root = math.sqrt(self.bias)
        first, second = self.W1.double() / math.sqrt(len(self.W1)), self.W2.double()
        omegas = self.omegas.double().flatten(0, 1)
        amplitudes = (2 * self.coef.double().clamp_min(0) / self.phases.shape[1]).sqrt()
        return {
            "first": first[:, :-1],
            "first_bias": root * first[:, -1],
            "second": second[:, :-1],
            "second_bias": root * second[:, -1],
            "angles": omegas[:, :-1],
            "angles_bias": root * omegas[:, -1] + self.phases.flatten(),
            "amplitudes": amplitudes.repeat_interleave(self.phases.shape[1]),
        }

    def _features(self, x: Tensor, epsilon: Tensor, constants: dict[str, Tensor]) -> Tensor:
        x = _unit(x, epsilon) if self.normalize else x
        first, second, angles = (
            F.linear(x, constants[name], constants[f"{name}_bias"])
            for name in ("first", "second", "angles")
        )
        return _outer(first * second, angles.cos() * constants["amplitudes"])


def _unit(x: Tensor, epsilon: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + epsilon).sqrt()


def _outer(slow: Tensor, fast: Tensor) -> Tensor:
    """Return the products [..., S · F] of all pairs of [..., S] and [..., F]."""
    return (slow.unsqueeze(-1) * fast.unsqueeze(-2)).flatten(-2)
