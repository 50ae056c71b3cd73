"""What Seafile's nginx files say, and what to write into them: pure, bytes in and bytes out."""
