"""`report.html`: what a comparison found, on one page that needs nothing but a browser."""

from .folders import write
from .page import page

__all__ = ["page", "write"]
