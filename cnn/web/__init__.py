"""A network in the browser: a folder that any static host serves. Imports report and what is below."""
