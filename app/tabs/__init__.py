"""The tabs, a file each: what they show, and which job each control starts."""
