"""YatDense on a GPU: its Triton kernels, their launches, and its weights as they take them."""
