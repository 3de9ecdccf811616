"""Readers of models that other projects made. Each kind of address has one file; see `ssl_audio.hub.address`."""
