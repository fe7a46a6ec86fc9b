"""YatConv on a GPU: its Triton kernel, its launch, and its inputs and weights as it takes them."""
