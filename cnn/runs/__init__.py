"""The shell: the loop and everything that touches disk, clock and signals. Imports training and what is below."""
