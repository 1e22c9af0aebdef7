"""Sources: how one identity system's events become Events. `decode` is the door; one file a system behind it."""
