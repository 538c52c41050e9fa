"""The version of the distribution: the build reads it from here, so that it is written once."""

__version__ = "0.1.0"
