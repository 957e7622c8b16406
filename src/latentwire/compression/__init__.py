"""Compression of embeddings: token counts, exact count-weighted PCA, the compressor, reconstruction metrics."""
