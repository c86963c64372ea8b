"""The report: results of a comparison on one page that needs nothing but a browser."""
