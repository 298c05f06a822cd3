"""The transformer in torch: layers, paged attention, adapters, and its CUDA kernels."""
