"""Gradients of the torch ops, by running the eager formula again and differentiating it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef


def register_autograd(op: CustomOpDef, eager: Callable[..., Tensor]) -> None:
    """Register the gradient of `eager` for `op`.

    The backward pass keeps only the inputs, at the cost of one more forward pass.

    Args:
        op: A torch op.
        eager: A differentiable function of the same arguments.
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
