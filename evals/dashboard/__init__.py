"""The dashboard of a sweep: a page of its folder, live while it runs or in one file."""
