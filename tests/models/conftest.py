"""The tutor on a scripted server serves the transport's tests too."""

from tests.tutor.conftest import lab

__all__ = ["lab"]
