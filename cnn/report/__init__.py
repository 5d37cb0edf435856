"""A finished run -> one self-contained HTML page. Imports look and what is below."""
