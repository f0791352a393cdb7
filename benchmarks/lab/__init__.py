"""The laboratory's measurements: what is trained, what is read of it, and the pages that say so."""
