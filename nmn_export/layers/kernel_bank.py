"""Kernel banks: one parameter whose first rows are the weights of several layers."""

import threading
from collections.abc import Callable

import torch
from torch import nn

from nmn_export.errors import OptionError

BankKey = tuple[object, ...]
"""What layers of one bank have in common: the name of the bank, and kind, shape, dtype and device
of the weights."""

_LOCK = threading.Lock()


class KernelBanks:
    """The banks of this process by key."""

    def __init__(self) -> None:
        self._banks: dict[BankKey, nn.Parameter] = {}
        self._used: set[BankKey] = set()

    def clear(self) -> None:
        """Forget all banks. Layers keep their weights."""
        with _LOCK:
            self._banks.clear()
            self._used.clear()

    def get(
        self,
        key: BankKey,
        shape: tuple[int, ...],
        make: Callable[[tuple[int, ...]], nn.Parameter],
        frozen: bool,
    ) -> nn.Parameter:
        """Return the bank of a key. It is made first, or enlarged, if it has too few rows.

        Args:
            key: The key.
            shape: Rows that a layer asks for, and the shape of a row.
            make: Returns an initialised parameter of a shape.
            frozen: Whether the layer wants a bank without gradients.

        Raises:
            OptionError: The bank has other gradients, dtype or device than the layer asks for, or
                has too few rows and has already been used in a forward pass.
        """
        with _LOCK:
            bank = self._banks.get(key)
            if bank is None:
                bank = self._banks[key] = make(shape)
                bank.requires_grad_(not frozen)
                return bank
            self._check(key, bank, frozen)
            rows = len(bank)
            if shape[0] > rows:
                if key in self._used:
                    raise OptionError(
                        "The capacity is frozen after the first forward pass of a kernel bank",
                        got=f"{shape[0]} rows for bank '{key[0]}', which has {rows}",
                        fix="Set kernel_bank_size of its first layer to the largest number.",
                    )
                larger = make(shape).detach()
                larger[:rows] = bank.detach()
                bank.data = larger
            return bank

    def use(self, key: BankKey) -> None:
        """Freeze the capacity of a bank, because a layer computes with it."""
        if key not in self._used:
            with _LOCK:
                self._used.add(key)

    @staticmethod
    def _check(key: BankKey, bank: nn.Parameter, frozen: bool) -> None:
        if bank.requires_grad == frozen:
            raise OptionError(
                "Layers of one kernel bank must have the same lazy option",
                got=f"lazy={frozen} for bank '{key[0]}'",
                fix="Use another kernel_bank_id.",
            )
        if (bank.dtype, bank.device) != key[-2:]:
            raise OptionError(
                "A kernel bank must keep the dtype and device it was made with",
                got=f"{bank.dtype} on {bank.device} for bank '{key[0]}': its registry is stale",
                fix="Make all layers of a bank before converting or moving one of them.",
            )


def resolved_device(device: torch.device | str | None) -> torch.device:
    """Return the device of a new tensor for which `device` is given."""
    return torch.empty(0, device=device).device
