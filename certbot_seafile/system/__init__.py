"""This machine: nginx, certbot's folders, files, and what clients are handed."""
