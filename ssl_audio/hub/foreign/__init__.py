"""Models of other people behind an address, one kind of address a file; see `ssl_audio.hub.address`."""
