"""The handlers that come with Usher. They enter through the entry-point group, like anyone's."""
