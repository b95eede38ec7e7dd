"""The faults that verification finds."""


class VerificationFault(Exception):
    """The first fault that a check found. The message is a sentence."""


class WrongColumnType(VerificationFault):
    """A value has another type than its column; the other checks cannot run then."""
