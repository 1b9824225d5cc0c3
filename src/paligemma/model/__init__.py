"""The network, tensors in and tensors out: image tower, decoder, mask codec, and fast products on a CPU."""
