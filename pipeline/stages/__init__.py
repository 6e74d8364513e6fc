"""The stages, one file each: what they read, what they write, what they count."""
