"""Conversion between the original library's files and folders in the Hub's layout."""
