"""Errors a person can act on: every message says what was wrong, where, and what to do."""


class PipelineError(Exception):
    """Something in the data, the store or the machine stops the run; the message names place and remedy."""


class ConfigError(PipelineError):
    """A recipe, a source or an argument is wrong; the message quotes it and names what is allowed."""
