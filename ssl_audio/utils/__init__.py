"""Small helpers that know nothing of audio or models."""
