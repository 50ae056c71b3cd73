"""Certificates that do not come from root's own live folder."""
