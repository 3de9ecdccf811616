"""From files to embeddings: one by one, into a table on disk, over several devices, for a test set."""

from ssl_audio.embedding.files import FileEmbedding, embed_files

__all__ = ["FileEmbedding", "embed_files"]
