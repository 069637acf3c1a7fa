"""The tabs of the page, a class for each.

Its constructor adds what the tab shows and wires its events.
"""
