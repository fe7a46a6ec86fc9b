"""Gradients for the torch ops: run the eager formula again and differentiate that."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef


def register_autograd(op: CustomOpDef, eager: Callable[..., Tensor]) -> None:
    """Give `op` the gradient of `eager`, a differentiable function of the same arguments.

    Nothing but the inputs is kept for the backward pass; the price is one more forward.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*(v for v in inputs if isinstance(v, Tensor)))
        ctx.arguments = [None if isinstance(v, Tensor) else v for v in inputs]
        ctx.is_tensor = [isinstance(v, Tensor) for v in inputs]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        with torch.enable_grad():
            arguments = [
                next(saved).detach().requires_grad_(needed) if is_tensor else value
                for value, is_tensor, needed in zip(
                    ctx.arguments, ctx.is_tensor, ctx.needs_input_grad, strict=True
                )
            ]
            wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
            found = torch.autograd.grad(eager(*arguments), [arguments[i] for i in wanted], grad)
        grads: list[Tensor | None] = [None] * len(arguments)
        for i, g in zip(wanted, found, strict=True):
            grads[i] = g
        return tuple(grads)

    op.register_autograd(backward, setup_context=setup_context)
