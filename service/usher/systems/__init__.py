"""The identity systems: a folder for each, and beside them what all of them share."""
