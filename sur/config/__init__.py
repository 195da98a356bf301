"""Every settings class, and the reading of settings files. Imports no torch."""
