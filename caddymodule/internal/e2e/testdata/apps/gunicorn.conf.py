"""What gunicorn 22 and later refuse unless told not to; earlier ones know no such setting. The gate must not count on it."""

header_map = "dangerous"
