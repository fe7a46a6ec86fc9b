"""The builder process: the parent's side, the worker, and the messages between them."""
