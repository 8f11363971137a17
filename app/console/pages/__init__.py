"""One module for each page, or for the pages of one subject."""
