"""Independent plain-PyTorch implementation of what fwd2bot computes; see README.md."""
