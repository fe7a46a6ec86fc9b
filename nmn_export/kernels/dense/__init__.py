"""YatDense on a GPU."""
