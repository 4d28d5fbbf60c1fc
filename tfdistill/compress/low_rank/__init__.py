"""Low-rank factorization: a layer becomes several thin ones, whose kernels multiply to nearly its own."""
