"""Reports: the results of a comparison as one self-contained HTML page."""
