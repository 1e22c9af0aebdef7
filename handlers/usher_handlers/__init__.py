"""The handlers that come with Usher. They are found through the entry-point group, like anybody's handlers."""
