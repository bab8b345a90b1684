"""Errors of reconstructed hands and the numbers that follow from them; pages are not made here."""
