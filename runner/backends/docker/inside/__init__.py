"""What runs as pid 1 of a container: only the standard library, only modules of this package.

The supervisor sends these modules' source over the attached stdin (`../boot.py`), so an image
needs Python and nothing of runner in it, and both sides always speak the same version.
"""
