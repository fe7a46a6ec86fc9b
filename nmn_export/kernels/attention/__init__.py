"""YatAttention on a GPU."""
