"""HTTPS that looks after itself for Seafile behind nginx: one certbot plugin."""

__version__ = "0.1.0"
