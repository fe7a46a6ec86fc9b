"""TensorRT: from an ONNX file to an engine, with the plugin's fused kernels or without."""
