"""The errors of operators' requests. Their texts are sentences for the operator."""


class OperateError(Exception):
    """The request can't be fulfilled."""


class NotFound(OperateError):
    """There is no such dead letter, template or file."""


class NotDecodable(OperateError):
    """A file holds something else than an event."""
