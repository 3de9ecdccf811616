"""Embeddings of audio files: one by one, as a table on disk, on several devices, and of a test set."""

from ssl_audio.embedding.files import FileEmbedding, embed_files

__all__ = ["FileEmbedding", "embed_files"]
