"""The kernels run in Triton's interpreter here, which must be chosen before Triton is imported."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

if not isinstance(tl.cdiv, InterpretedFunction):
    raise RuntimeError("Triton was imported before TRITON_INTERPRET=1 was set; set it yourself.")
