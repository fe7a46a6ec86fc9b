"""Take networks of ⵟ-product layers from PyTorch to ONNX, and know that the numbers are right."""
