"""Preparing the ONNX graph for TensorRT: plugin assignment, weights and decomposition."""
