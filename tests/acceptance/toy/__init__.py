"""Toybox, an identity system that does not exist: all that a system has to be, in as few lines as it takes."""
