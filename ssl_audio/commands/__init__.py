"""One sub-command of `ssl-audio` a file."""
