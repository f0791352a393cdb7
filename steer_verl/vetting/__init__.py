"""What one asks of a tutor before trusting it, and after: ``steer tutor check``, ``calibrate``, ``replay``, ``log``."""
