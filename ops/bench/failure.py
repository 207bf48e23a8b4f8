"""What a measurement raises that has no result."""


class MeasurementError(Exception):
    """There is no figure to report; the text says why, on one line."""
