"""The OCSP staple: fetched, verified, stored."""
