"""Answering on a CPU without torch: quantized weights, kernels in C++, and the same in numpy where there is no compiler."""
