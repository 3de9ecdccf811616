"""Downstream tasks of an embedding: labelled data sets, cached features, probes, fine-tuning and tagging."""
