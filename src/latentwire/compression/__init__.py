"""Compression of embeddings: token counts, exact weighted PCA, the compressor, nearest rows."""
