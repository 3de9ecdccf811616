"""What an embedding is good for: labelled tasks, features kept on disk, probes, fine-tuning, tags."""
