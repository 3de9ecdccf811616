"""Small things that many rooms need and that know nothing of audio or models."""
