"""Families of bases of other rooms, as the search in stages tries them."""
