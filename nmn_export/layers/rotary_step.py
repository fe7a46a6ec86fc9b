"""One step of generation as a module, which can be exported to a file of its own."""

from torch import Tensor, nn

from nmn_export.layers.rotary import RotaryYatAttention
from nmn_export.layers.rotary_heads import RotaryState


class RotaryStep(nn.Module):
    """The step of a causal performer, with its state as inputs and outputs.

    The state has a fixed size, so a token costs the same at every position. In an exported file,
    `output_0` is the output. `output_1` to `output_3` are the next `kv`, `k_sum` and `position`.

    Args:
        layer: A causal performer. Its parameters are shared.
    """

    def __init__(self, layer: RotaryYatAttention) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: Tensor, kv: Tensor, k_sum: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output [B, E] for the tokens [B, E], and the next state.

        Args:
            x: The token of every sequence, [B, E].
            kv: See `RotaryState`, as the others. `initial_state` returns the first ones.
            k_sum: The sum of φ(k).
            position: Positions of the tokens, [B] int64.

        Raises:
            NmnExportError: The layer is not a causal performer, or the input does not fit.
        """
        out, state = self.layer.step(x, RotaryState(kv, k_sum, position))
        return out, *state
