"""The faults that verification finds."""


class VerificationFault(Exception):
    """The first fault that a check found. The message is a sentence."""


class UnreadableTable(VerificationFault):
    """A table or a value has another form than expected; the other checks cannot run then."""
