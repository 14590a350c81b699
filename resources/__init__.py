"""The outside world: the store, Olive, ONNX Runtime GenAI, base models, compute and registries."""
